//! One subscriber's session over gRPC.
//!
//! What is owed is decided in [`delta::server`](crate::delta::server). A session sends one response at a time and
//! only when the last was answered, so it holds no queue: a slow subscriber gets the newest state when it is ready.

use std::sync::Arc;

use mesh_model::resource::Kind;
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::acknowledged::{Acknowledged, Place};
use crate::delta::Subscriber;
use crate::delta::server::{Meaning, Violation};
use crate::node;
use crate::published::Published;
use crate::service::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};

/// A reconnecting subscriber declares everything it holds in one request.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// Who is calling, once proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// For the log.
    pub name: String,
    /// The namespace it proved to be of; it may not claim another. None: nothing was asked to be proven.
    pub namespace: Option<String>,
}

/// Decides who may subscribe, from what came with the call.
pub trait Gate: Send + Sync + 'static {
    /// Who is calling.
    ///
    /// # Errors
    /// The status that the call ends with when it may not.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn admit(&self, metadata: &MetadataMap) -> Result<Caller, Status>;
}

/// The discovery service of a control plane.
pub struct Discovery {
    published: watch::Receiver<Published>,
    gate: Arc<dyn Gate>,
    acknowledged: Acknowledged,
}

impl Discovery {
    /// Serves what is published to those whom the gate admits.
    pub fn new(published: watch::Receiver<Published>, gate: Arc<dyn Gate>) -> Self {
        Self { published, gate, acknowledged: Acknowledged::default() }
    }

    /// What all subscribers have taken in.
    pub fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.clone()
    }

    /// As a service for a gRPC server.
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = self.gate.admit(request.metadata())?;
        // Room for one: the next is made when there is somebody to take it.
        let (responses, outgoing) = mpsc::channel(1);
        let place = self.acknowledged.enter(&caller.name);
        let session = Session { caller, place, subscriber: Subscriber::default(), published: self.published.clone() };
        tokio::spawn(session.run(request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

struct Session {
    caller: Caller,
    place: Place,
    subscriber: Subscriber,
    published: watch::Receiver<Published>,
}

type Responses = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

impl Session {
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>, responses: Responses) {
        tracing::info!(caller = self.caller.name, "subscriber connected");
        let end = self.serve(&mut requests, &responses).await;
        tracing::info!(caller = self.caller.name, end = ?end.as_ref().err(), "subscriber gone");
        if let Err(status) = end {
            // It may be gone already.
            let _ = responses.send(Err(status)).await;
        }
    }

    /// Serves until the subscriber leaves (Ok) or has to.
    async fn serve(
        &mut self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        loop {
            // Looked at before waiting, and seen as read: a change from now on wakes us.
            let published = self.published.borrow_and_update().clone();
            let response = self.subscriber.respond(&published);
            self.place.update(self.subscriber.held(Kind::Address), self.subscriber.owes());
            if let Some(response) = response {
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request)?,
                    // The way a subscriber goes is of no interest.
                    Ok(None) | Err(_) => return Ok(()),
                },
                changed = self.published.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the control plane is shutting down"));
                    }
                }
                () = responses.closed() => return Ok(()),
            }
        }
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let introduced = self.subscriber.node().is_some();
        let meaning = self.subscriber.request(request).map_err(|violation| match violation {
            Violation::Node(_) => Status::invalid_argument(violation.to_string()),
            Violation::TooMuch => Status::resource_exhausted(violation.to_string()),
        })?;
        if !introduced {
            self.check_node()?;
        }
        let caller = &self.caller.name;
        match meaning {
            Meaning::Subscribed(kind) => tracing::debug!(caller, ?kind, "subscribed"),
            Meaning::Accepted(kind) => tracing::debug!(caller, ?kind, "accepted"),
            Meaning::Rejected(kind, reason) => {
                tracing::warn!(caller, ?kind, reason, "resources refused by a subscriber")
            }
            Meaning::Stale(kind) => tracing::debug!(caller, ?kind, "answer to an older response dropped"),
            Meaning::UnknownType(url) => tracing::debug!(caller, url, "request of a type that is not served"),
        }
        Ok(())
    }

    /// A caller may say only of its own namespace that it is there.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn check_node(&self) -> Result<(), Status> {
        let Some(proven) = &self.caller.namespace else { return Ok(()) };
        let claimed = self.subscriber.node().and_then(node::namespace_of);
        if claimed == Some(proven) {
            return Ok(());
        }
        let claimed = claimed.unwrap_or("none");
        Err(Status::permission_denied(format!("the token is of namespace {proven}, the node claims {claimed}")))
    }
}
