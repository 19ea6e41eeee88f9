//! One subscriber's session over gRPC.
//!
//! What is owed is decided in [`delta::server`](crate::delta::server). A session sends one response at a time and
//! only when the last was answered, so it holds no queue: a slow subscriber gets the newest state when it is ready.
//!
//! | file | question |
//! |---|---|
//! | `limits` | how much may a caller hold, and all of them? |
//! | `requests` | which messages are in the bytes that come? |
//! | `body` | which bytes leave, and when? |
//! | `heavy` | where is worked on what is large, so that everybody else is served meanwhile? |

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use mesh_model::resource::Kind;
use mesh_proto::discovery::DeltaDiscoveryRequest;
use mesh_runtime::metrics::{XdsServerMetrics, XdsSubscriber};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::acknowledged::{self, Acknowledged};
use crate::budget::{Full, Reservation};
use crate::delta::Subscriber;
use crate::delta::measure::measure;
use crate::delta::server::{Meaning, Response};
use crate::observe;
use crate::published::Published;

mod body;
mod heavy;
mod limits;
mod requests;

use heavy::Heavy;
use limits::Callers;
pub use limits::Limits;
use requests::{Large, Received, Requests};

/// The one method that is served.
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Who is calling, once proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// For the log, and to tell callers apart: what one may hold is counted by it.
    pub name: String,
    /// The namespace it proved to be of; it may not claim another. None: nothing was asked to be proven.
    pub namespace: Option<String>,
    /// Whether it serves pods by what it is told: then others wait until it has taken that in.
    pub proxy: bool,
}

/// Decides who may subscribe, from what came with the call.
pub trait Gate: Send + Sync + 'static {
    /// Who is calling.
    ///
    /// # Errors
    /// The status that the call ends with when it may not.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn admit(&self, call: &Parts) -> Result<Caller, Status>;
}

/// The discovery service of a control plane. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    published: watch::Receiver<Published>,
    gate: Arc<dyn Gate>,
    callers: Arc<Callers>,
    heavy: Heavy,
    acknowledged: Acknowledged,
    metrics: XdsServerMetrics,
}

impl Discovery {
    /// Serves what is published to those whom the gate admits.
    pub fn new(published: watch::Receiver<Published>, gate: Arc<dyn Gate>, limits: Limits) -> Self {
        let (callers, heavy, acknowledged) = (Callers::new(limits), Heavy::new(), Acknowledged::default());
        Self { published, gate, callers, heavy, acknowledged, metrics: XdsServerMetrics::default() }
    }

    /// Counts its streams in these.
    #[must_use]
    pub fn counted_in(mut self, metrics: XdsServerMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// What all proxies among the subscribers have taken in.
    pub fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.clone()
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn subscribe(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (parts, incoming) = request.into_parts();
        if parts.uri.path() != METHOD {
            return Err(Status::unimplemented("only delta aggregated resources are served"));
        }
        let caller = self.gate.admit(&parts)?;
        let held = self.callers.stream(&caller.name)?;
        // Room for one: the next is made when there is somebody to take it.
        let (responses, outgoing) = mpsc::channel(1);
        let session = Session {
            // Whoever has a token may listen; only proxies are waited for.
            registration: caller.proxy.then(|| self.acknowledged.enter(&caller.name)),
            caller,
            subscriber: Subscriber::default(),
            published: self.published.clone(),
            names: held.names,
            heavy: self.heavy.clone(),
            counted: self.metrics.subscriber(),
        };
        let limits = self.callers.limits;
        let requests = Requests::new(incoming, limits.request, held.large);
        let (stream, age) = (held.stream, limits.age.map(|age| limits::about(age, random())));
        tokio::spawn(async move {
            session.run(requests, responses, age).await;
            drop(stream);
        });
        Ok(body::response(outgoing))
    }
}

impl NamedService for Discovery {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tonic::codegen::Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.subscribe(request).unwrap_or_else(Status::into_http);
        Box::pin(std::future::ready(Ok(answer)))
    }
}

struct Session {
    caller: Caller,
    /// Of a proxy.
    registration: Option<acknowledged::Registration>,
    subscriber: Subscriber,
    published: watch::Receiver<Published>,
    /// What its names take, of what is for all.
    names: Reservation<Arc<str>>,
    heavy: Heavy,
    counted: XdsSubscriber,
}

type Responses = mpsc::Sender<Result<Response, Status>>;

impl Session {
    async fn run(mut self, requests: Requests, responses: Responses, age: Option<Duration>) {
        tracing::info!(caller = self.caller.name, "subscriber connected");
        // A message that is read in part must not be lost when something is published: it is read on its own.
        let (received, mut incoming) = mpsc::channel(1);
        let end = tokio::select! {
            end = self.serve(&mut incoming, &responses) => end,
            end = requests.read(received) => Err(end),
            () = until(age) => {
                // What was made for it still leaves, and then the end of the stream, which is no error.
                tracing::debug!(caller = self.caller.name, ?age, "the stream has reached its age");
                if let Some(registration) = self.registration.take() {
                    registration.resume_later();
                }
                return;
            }
        };
        tracing::info!(caller = self.caller.name, end = ?end.as_ref().err(), "subscriber gone");
        if let Err(status) = end {
            // It may be gone already.
            let _ = responses.send(Err(status)).await;
        }
    }

    /// Serves until the subscriber leaves (Ok) or has to.
    async fn serve(&mut self, incoming: &mut mpsc::Receiver<Received>, responses: &Responses) -> Result<(), Status> {
        // Until there is something to compare with, what a subscriber declares would only be kept.
        let known = |published: &Published| Kind::ALL.iter().all(|kind| published.of(*kind).is_some());
        tokio::select! {
            known = self.published.wait_for(known) => drop(known.map_err(|_| stopping())?),
            () = responses.closed() => return Ok(()),
        }
        // A large request is one until it was compared with what there is: then little is left of it.
        let mut large: Option<Large> = None;
        loop {
            // Looked at before waiting, and seen as read: a change from now on wakes us.
            let published = self.published.borrow_and_update().clone();
            let latest = published.of(Kind::Address).map_or(0, |snapshot| snapshot.generation());
            let response = self.respond(published).await?;
            if let Some(registration) = &self.registration {
                registration.update(self.subscriber.held(Kind::Address), latest);
            }
            drop(large.take());
            if let Some(response) = response {
                self.counted.pushed(observe::word(response.kind));
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            if self.subscriber.has_answered() {
                self.counted.settled();
            }
            tokio::select! {
                received = incoming.recv() => match received {
                    Some(Ok((message, turn))) => {
                        self.request(message).await?;
                        large = turn;
                    }
                    Some(Err(status)) => return Err(status),
                    // The way a subscriber goes is of no interest.
                    None => return Ok(()),
                },
                changed = self.published.changed() => {
                    changed.map_err(|_| stopping())?;
                    self.counted.changed();
                }
                () = responses.closed() => return Ok(()),
            }
        }
    }

    async fn respond(&mut self, published: Published) -> Result<Option<Response>, Status> {
        let work = self.subscriber.work(&published, heavy::LIGHT);
        let mut subscriber = std::mem::take(&mut self.subscriber);
        let (subscriber, response) = self
            .heavy
            .run(work, move || {
                let response = subscriber.respond(&published);
                (subscriber, response)
            })
            .await?;
        self.subscriber = subscriber;
        self.hold()?;
        Ok(response)
    }

    async fn request(&mut self, message: Vec<u8>) -> Result<(), Status> {
        let work = message.len() / BYTES_OF_WORK;
        // Nothing is made of more than may be held.
        let names = measure(&message).map_err(|unmeasured| Status::resource_exhausted(unmeasured.to_string()))?.names;
        self.names.set(self.subscriber.cost() + names * limits::NAME_AT_LEAST).map_err(|full| self.too_much(full))?;
        let introduced = self.subscriber.introduced();
        let mut subscriber = std::mem::take(&mut self.subscriber);
        let taken = self.heavy.run(work, move || {
            let request = DeltaDiscoveryRequest::decode(message.as_slice())
                .map_err(|error| Status::invalid_argument(format!("no discovery request: {error}")))?;
            drop(message);
            let meaning =
                subscriber.request(request).map_err(|violation| Status::invalid_argument(violation.to_string()))?;
            Ok::<_, Status>((subscriber, meaning))
        });
        let (subscriber, meaning) = taken.await??;
        self.subscriber = subscriber;
        self.hold()?;
        if !introduced {
            self.check_node()?;
            self.counted.introduced(observe::role(&self.subscriber.role()));
        }
        let caller = &self.caller.name;
        match meaning {
            Meaning::Subscribed(kind) => tracing::debug!(caller, ?kind, "subscribed"),
            Meaning::Accepted(kind) => {
                tracing::debug!(caller, ?kind, "accepted");
                self.counted.accepted(observe::word(kind));
            }
            Meaning::Rejected(kind, reason) => {
                tracing::warn!(caller, ?kind, reason, "resources refused by a subscriber");
                self.counted.refused(observe::word(kind));
            }
            Meaning::Stale(kind) => {
                tracing::debug!(caller, ?kind, "answer to an older response dropped");
                self.counted.stale(observe::word(kind));
            }
            Meaning::UnknownType(url) => tracing::debug!(caller, url, "request of a type that is not served"),
        }
        Ok(())
    }

    /// Holds what the subscriber's names take now.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn hold(&mut self) -> Result<(), Status> {
        self.names.set(self.subscriber.cost()).map_err(|full| self.too_much(full))
    }

    fn too_much(&self, full: Full) -> Status {
        tracing::warn!(caller = self.caller.name, ?full, "a subscriber asks for more names than it may hold");
        limits::too_many_names(full)
    }

    /// A caller may say only of its own namespace that it is there.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn check_node(&self) -> Result<(), Status> {
        let Some(proven) = &self.caller.namespace else { return Ok(()) };
        let claimed = self.subscriber.namespace();
        if claimed == Some(proven) {
            return Ok(());
        }
        let claimed = claimed.unwrap_or("none");
        Err(Status::permission_denied(format!("the token is of namespace {proven}, the node claims {claimed}")))
    }
}

/// So many bytes of a request are as much work as a name.
const BYTES_OF_WORK: usize = 32;

/// Never, without an age.
async fn until(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without chance, all ages are alike.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}

fn stopping() -> Status {
    Status::new(Code::Unavailable, "the control plane is shutting down")
}
