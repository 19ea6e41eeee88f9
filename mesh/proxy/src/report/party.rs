//! A connection and its ends, as they are told of.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_hbone::connect::Baggage;
use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::service::Service;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::{Direction, Peer};
use mesh_runtime::metrics::{Reporter, WorkloadLabels};
use mesh_runtime::trace::TraceParent;

/// What a connection is.
pub struct Traffic {
    /// Seen from whom the proxy serves.
    pub direction: Direction,
    /// Whose report it is in metrics.
    pub reporter: Reporter,
    /// Where it comes from.
    pub from: SocketAddr,
    /// The other end of the hop.
    pub to: SocketAddr,
    /// What the tunnel is for.
    pub hbone_to: Option<Authority>,
    /// Who opened it.
    pub source: Party,
    /// Whom it was opened to.
    pub destination: Party,
    /// The service that was meant, if one was.
    pub service: Option<Arc<Service>>,
    /// Both identities are proven by mutual TLS.
    pub secured: bool,
    /// What the CONNECT of its tunnel says, or would say between nodes.
    pub trace: Option<TraceParent>,
}

/// One end of a connection, as told.
pub struct Party {
    pub(super) who: Who,
    pub(super) identity: Option<SpiffeId>,
}

/// Where what is known of it comes from.
pub(super) enum Who {
    /// Nowhere.
    Unknown,
    /// The tables.
    Known(Arc<Workload>),
    /// Itself.
    Told(Arc<WorkloadLabels>),
}

impl Party {
    /// A workload of the tables.
    pub fn workload(workload: &Arc<Workload>, identity: Option<&SpiffeId>) -> Self {
        Self { who: Who::Known(workload.clone()), identity: identity.cloned() }
    }

    /// A workload of the tables, if the address is one's; its identity is the table's word.
    pub fn known(workload: Option<&Arc<Workload>>) -> Self {
        match workload {
            Some(workload) => Self::workload(workload, workload.identity().ok().as_ref()),
            None => Self { who: Who::Unknown, identity: None },
        }
    }

    /// A proven caller whose address is nobody's: what it tells of itself.
    pub fn told(baggage: &Baggage, identity: &SpiffeId) -> Self {
        let text = |s: &str| Arc::<str>::from(s);
        let labels = WorkloadLabels {
            workload: text(&baggage.workload),
            canonical_service: text(&baggage.service_name),
            canonical_revision: text(&baggage.service_version),
            namespace: identity.namespace().clone(),
            app: text(&baggage.workload),
            version: text(&baggage.service_version),
            cluster: text(&baggage.cluster),
            region: text(&baggage.region),
            zone: text(&baggage.zone),
        };
        Self { who: Who::Told(Arc::new(labels)), identity: Some(identity.clone()) }
    }

    /// Namespace and name of its pod, if the tables know it.
    pub(super) fn pod(&self) -> Option<String> {
        match &self.who {
            Who::Known(workload) => Some(format!("{}/{}", workload.namespace, workload.name)),
            Who::Unknown | Who::Told(_) => None,
        }
    }

    /// As metrics label it.
    pub(super) fn labels(&self) -> Arc<WorkloadLabels> {
        match &self.who {
            Who::Unknown => Arc::default(),
            Who::Told(labels) => labels.clone(),
            Who::Known(workload) => Arc::new(WorkloadLabels {
                workload: workload.workload_name.clone(),
                canonical_service: workload.canonical_name.clone(),
                canonical_revision: workload.canonical_revision.clone(),
                namespace: workload.namespace.clone(),
                app: workload.canonical_name.clone(),
                version: workload.canonical_revision.clone(),
                cluster: workload.cluster.clone(),
                region: workload.locality.region.clone(),
                zone: workload.locality.zone.clone(),
            }),
        }
    }

    /// As the access log shows it, at `addr`; the identity only where it is proven.
    pub(super) fn peer(&self, addr: SocketAddr, secured: bool) -> Peer<'_> {
        let (workload, namespace, cluster) = match &self.who {
            Who::Unknown => (None, None, None),
            Who::Known(w) => (Some(&*w.name), Some(&*w.namespace), Some(&*w.cluster)),
            // Its pod is not known, its workload is no pod.
            Who::Told(labels) => (None, Some(&*labels.namespace), Some(&*labels.cluster)),
        };
        Peer {
            addr: Some(addr),
            workload,
            namespace,
            identity: self.identity.as_ref().filter(|_| secured).map(|id| id as &dyn Display),
            cluster,
        }
    }
}
