//! Keeps a proxy's tables following the control plane: the stream, reconnects, apply, acknowledge.
//!
//! What the messages mean is decided in [`delta::client`](crate::delta::client). What was received stays through
//! disconnections, for as long as they last; only the control plane removes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mesh_control::channel::ControlChannel;
use mesh_model::resource::Kind;
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_runtime::backoff::Backoff;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::delta::{Client, Unsubscribed};
use crate::demand::{Demands, Question};
use crate::follow::Writer;
use crate::observe::{End, Observer};
use crate::service::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

/// A whole mesh comes in one response.
const MAX_RESPONSE: usize = 200 * 1024 * 1024;
/// Requests on their way out; one answer per response, and look-ups.
const OUTGOING: usize = 16;
/// Keys that nobody uses are looked for at least so often, and no more often than that.
const SWEEP: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// For so long a control plane that has never answered may be starting, as we are: nothing is wrong yet.
const STARTS: Duration = Duration::from_secs(5);
/// Most refused resources of one response that are logged one by one.
const MAX_LOGGED: usize = 10;

/// Follows the control plane, for ever. `kinds`: what is asked for; a control plane that has none of a kind may never answer,
/// and then the tables are never complete. `demand`: addresses come only when asked for, instead of all of them.
pub async fn run(
    channel: ControlChannel,
    node: Node,
    kinds: &'static [Kind],
    writer: Writer,
    demand: Option<Demands>,
    observer: Arc<dyn Observer>,
) -> Infallible {
    let mut follower = Follower { state: Client::new(node, kinds, demand.is_some()), writer, demand, observer };
    let mut backoff = Backoff::default();
    let (begun, mut answered, mut tried) = (Instant::now(), false, false);
    loop {
        let ended = follower.stream(channel.clone()).await;
        follower.observer.ended(ended.end);
        let wait = backoff.after(ended.fruitful);
        answered |= ended.fruitful;
        match ended.status {
            Some(status) if ended.end != End::Reconnect => {
                let (code, error) = (status.code(), status.message());
                match Trouble::of(answered, begun.elapsed(), std::mem::replace(&mut tried, true)) {
                    Trouble::Starting => {
                        tracing::info!(?code, error, "waits for the control plane, which does not answer yet");
                    }
                    Trouble::StillStarting => {
                        tracing::debug!(?code, error, retry_in = ?wait, "the control plane does not answer yet");
                    }
                    Trouble::Real => {
                        tracing::warn!(
                            ?code,
                            error,
                            retry_in = ?wait,
                            "no stream from the control plane; what is known stays"
                        );
                    }
                }
            }
            _ => tracing::info!(retry_in = ?wait, "the control plane ended the stream; connecting again"),
        }
        tokio::time::sleep(wait).await;
    }
}

/// How much a failed stream matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Both ends start; said once.
    Starting,
    /// The same again.
    StillStarting,
    /// The control plane should be there, and is not.
    Real,
}

impl Trouble {
    /// `answered`: the control plane has told us something before. `running`: for how long we have been.
    fn of(answered: bool, running: Duration, tried: bool) -> Self {
        match (answered || running >= STARTS, tried) {
            (true, _) => Self::Real,
            (false, false) => Self::Starting,
            (false, true) => Self::StillStarting,
        }
    }
}

struct Follower {
    state: Client,
    writer: Writer,
    demand: Option<Demands>,
    observer: Arc<dyn Observer>,
}

/// How a stream ended.
#[derive(Debug)]
struct Ended {
    end: End,
    status: Option<Status>,
    /// The next try need not wait long.
    fruitful: bool,
}

impl Follower {
    async fn stream(&mut self, channel: ControlChannel) -> Ended {
        let first = self.state.connected();
        let (requests, outgoing) = mpsc::channel(OUTGOING + first.len());
        for request in first {
            // There is room for them.
            let _ = requests.try_send(request);
        }
        let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let mut incoming = match service.delta_aggregated_resources(ReceiverStream::new(outgoing)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ended { end: End::ConnectionError, status: Some(status), fruitful: false },
        };
        let mut useful = false;
        let keep = self.demand.as_ref().map_or(Duration::MAX, Demands::keep);
        let mut sweep = tokio::time::interval((keep / 2).clamp(SWEEP.0, SWEEP.1));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = sweep.tick(), if self.demand.is_some() => {
                    if let Some(request) = self.let_go().await {
                        let _ = requests.send(request).await;
                    }
                }
                message = incoming.message() => match message {
                    Ok(Some(response)) => {
                        useful = true;
                        self.receive(response, &requests).await;
                    }
                    Ok(None) => return Ended { end: End::Complete, status: None, fruitful: useful },
                    Err(status) => {
                        let end = if turnover(&status) { End::Reconnect } else { End::Error };
                        return Ended { end, status: Some(status), fruitful: useful };
                    }
                },
                Some(question) = next(&mut self.demand) => {
                    if let Some(request) = self.ask(question) {
                        // A closed channel shows as the end of the stream.
                        let _ = requests.send(request).await;
                    }
                }
            }
        }
    }

    async fn receive(&mut self, response: DeltaDiscoveryResponse, requests: &mpsc::Sender<DeltaDiscoveryRequest>) {
        let bytes = response.resources.iter().filter_map(|r| r.resource.as_ref()).map(|any| any.value.len() as u64);
        self.observer.message(&response.type_url, bytes.sum());
        let received = match self.state.receive(response) {
            Ok(received) => received,
            Err(unusable) => {
                tracing::warn!(%unusable, "response of the control plane left aside");
                return;
            }
        };
        for rejected in received.rejected.iter().take(MAX_LOGGED) {
            tracing::warn!(name = rejected.name, reason = rejected.reason, "resource of the control plane refused");
        }
        tracing::debug!(
            kind = ?received.kind,
            changed = received.upserts.len(),
            removed = received.removals.len(),
            refused = received.rejected.len(),
            "response of the control plane"
        );
        self.writer.apply(received.kind, received.upserts, received.removals).await;
        if self.state.ready() {
            self.writer.synced();
        }
        let mut forget = None;
        if let Some(demands) = &mut self.demand {
            let keys = demands.answer(received.answered, received.absent);
            // They mean nothing: there is nothing to remove.
            forget = self.state.unsubscribe(keys).map(|unsubscribed| unsubscribed.request);
        }
        let _ = requests.send(received.answer).await;
        if let Some(request) = forget {
            let _ = requests.send(request).await;
        }
    }

    /// Lets go of what nobody has used for a while; gives the request that says so. A pod is asked for by its uid only by
    /// us, who serve it: it is kept for as long as it exists.
    async fn let_go(&mut self) -> Option<DeltaDiscoveryRequest> {
        let (demands, tables) = (self.demand.as_mut()?, self.writer.reader());
        let unused = demands.unused(|key| tables.read(|tables| tables.workload(key).is_some()));
        let Unsubscribed { request, removals } = self.state.unsubscribe(unused)?;
        let (keys, removed) = (request.resource_names_unsubscribe.len(), removals.len());
        tracing::debug!(keys, removed, "let go of addresses that nobody has used for a while");
        self.writer.apply(Kind::Address, Vec::new(), removals).await;
        Some(request)
    }

    /// Joins those who wait for a key; gives the request to send if it is a new one.
    fn ask(&mut self, question: Question) -> Option<DeltaDiscoveryRequest> {
        let key = self.demand.as_mut()?.wait(question)?;
        self.state.subscribe(&key)
    }
}

/// The next question; never, when nothing is asked on demand.
async fn next(demand: &mut Option<Demands>) -> Option<Question> {
    match demand {
        Some(demands) => demands.next().await,
        None => None,
    }
}

/// Whether a stream ended as streams do when servers come and go.
fn turnover(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
        || ["transport is closing", "received prior goaway"].iter().any(|text| status.message().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_no_trouble() {
        let soon = STARTS - Duration::from_millis(1);
        for (answered, running, tried, trouble) in [
            (false, Duration::ZERO, false, Trouble::Starting),
            (false, soon, true, Trouble::StillStarting),
            (false, STARTS, true, Trouble::Real),
            (false, STARTS, false, Trouble::Real),
            (true, Duration::ZERO, false, Trouble::Real),
            (true, soon, true, Trouble::Real),
        ] {
            assert_eq!(Trouble::of(answered, running, tried), trouble, "{answered} {running:?} {tried}");
        }
    }

    #[test]
    fn turnover_is_no_failure() {
        for (status, expected) in [
            (Status::unknown("x"), true),
            (Status::cancelled("x"), true),
            (Status::deadline_exceeded("x"), true),
            (Status::unavailable("rpc error: transport is closing"), true),
            (Status::unavailable("received prior goaway: max age"), true),
            (Status::unavailable("x"), false),
            (Status::unauthenticated("x"), false),
            (Status::permission_denied("x"), false),
            (Status::invalid_argument("x"), false),
        ] {
            assert_eq!(turnover(&status), expected, "{status:?}");
        }
    }
}
