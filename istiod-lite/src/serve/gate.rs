//! Is a caller who it says, and is that one still there? Asked of the headers of each call, before a byte of what
//! follows them is read.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use mesh_model::address::NamespacedName;
use mesh_xds::server;
use tokio::sync::watch;
use tonic::Status;

use super::connections::ConnectionInfo;
use super::seldom::Seldom;
use crate::ca::authorize::alive;
use crate::ca::proof::Proof;
use crate::ca::token::{Caller, TokenError};
use crate::cluster::Cluster;

/// How long a call waits for the folders to be read for the first time. Before that nobody is known.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What Kubernetes says; None before that was read.
pub(crate) type Known = watch::Receiver<Option<Arc<Cluster>>>;

/// Asks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate {
    proof: Arc<Proof>,
    cluster: Known,
    strangers: Arc<Seldom>,
}

/// A caller that was let in. Calls have it among their extensions.
#[derive(Clone)]
pub(crate) struct Admitted(pub(crate) Arc<Caller>);

impl Gate {
    pub(crate) fn new(proof: Arc<Proof>, cluster: Known) -> Self {
        Self { proof, cluster, strangers: Arc::new(Seldom::new(Duration::from_secs(1))) }
    }

    /// Who is calling. Its connection may stay from then on.
    ///
    /// # Errors
    /// The status that the call ends with: no hint about what runs where.
    pub(crate) async fn admit(
        &self,
        headers: &http::HeaderMap,
        connection: Option<&ConnectionInfo>,
    ) -> Result<Arc<Caller>, Status> {
        let from = connection.map(ConnectionInfo::from);
        let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = self.proof.verify(authorization).await.map_err(|reason| {
            if let Some(many) = self.strangers.now() {
                tracing::warn!(?from, %reason, many, "caller refused");
            }
            match reason {
                TokenError::Unavailable(_) => Status::unavailable("tokens cannot be checked at the moment"),
                _ => refused(),
            }
        })?;
        // Bound to no pod, a token is good until it expires: nothing is known that could have ended before.
        if caller.pod.is_some() {
            let cluster = known(&self.cluster).await?;
            alive(&cluster, &caller).map_err(|reason| {
                tracing::warn!(?from, caller = caller.name(), %reason, "caller refused");
                refused()
            })?;
        }
        if let Some(connection) = connection {
            connection.authenticated();
        }
        Ok(Arc::new(caller))
    }
}

/// What Kubernetes says, as soon as it is known.
pub(crate) async fn known(cluster: &Known) -> Result<Arc<Cluster>, Status> {
    let unread = || Status::unavailable("the control plane has not read what runs in the cluster yet");
    let mut cluster = cluster.clone();
    let known = tokio::time::timeout(FIRST_LOOK, cluster.wait_for(Option::is_some)).await;
    let known = known.map_err(|_| unread())?.map_err(|_| unread())?;
    known.clone().ok_or_else(unread)
}

/// All that a caller hears who may not have what it asks for: no hint about what runs where.
pub(crate) fn refused() -> Status {
    Status::unauthenticated("request authenticate failure")
}

/// Discovery tells all subscribers the same, as istiod does.
pub(crate) struct Subscribers {
    /// The service accounts of node proxies.
    pub(crate) proxies: Vec<NamespacedName>,
}

impl server::Gate for Subscribers {
    fn admit(&self, call: &Parts) -> Result<server::Caller, Status> {
        let Admitted(caller) = call.extensions.get().ok_or_else(refused)?;
        Ok(server::Caller {
            name: caller.name(),
            namespace: Some(caller.account.namespace.to_string()),
            proxy: self.proxies.contains(&caller.account),
        })
    }
}
