//! What a report says of a connection and of its two ends.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_hbone::connect::Baggage;
use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::service::Service;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::{Direction, Peer};
use mesh_runtime::metrics::{ConnectionSecurity, Reporter, ServiceLabels, TrafficLabels, WorkloadLabels};
use mesh_runtime::trace::TraceParent;

/// What a report says of a connection.
pub struct Traffic {
    /// From, or to, the workload that the proxy serves.
    pub direction: Direction,
    /// The label that says which proxy reports.
    pub reporter: Reporter,
    /// The client's address.
    pub from: SocketAddr,
    /// The address at the other end of this hop.
    pub to: SocketAddr,
    /// The authority that the tunnel asks for, if there is one.
    pub hbone_to: Option<Authority>,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// The service that was meant, if one was.
    pub service: Option<Arc<Service>>,
    /// Both identities are proven by mutual TLS.
    pub secured: bool,
    /// The trace context that the CONNECT of its tunnel carries, or would carry between nodes.
    pub trace: Option<TraceParent>,
}

impl Traffic {
    /// The whole label set of metrics about it.
    pub fn labels(&self) -> TrafficLabels {
        let service = self.service.as_ref().map_or_else(ServiceLabels::default, |s| ServiceLabels {
            hostname: s.hostname.clone(),
            name: s.name.clone(),
            namespace: s.namespace.clone(),
        });
        let principal = |id: Option<&SpiffeId>| id.map_or_else(|| "".into(), |id| Arc::from(id.to_string()));
        TrafficLabels {
            reporter: self.reporter,
            source: self.source.labels(),
            source_principal: principal(self.source.identity.as_ref().filter(|_| self.secured)),
            service: Arc::new(service),
            destination: self.destination.labels(),
            destination_principal: principal(self.destination.identity.as_ref()),
            security: match self.secured {
                true => ConnectionSecurity::MutualTls,
                false => ConnectionSecurity::Unknown,
            },
        }
    }
}

/// One end of a connection.
pub struct Party {
    pub(super) who: Who,
    pub(super) identity: Option<SpiffeId>,
}

/// Where the labels of an end come from.
pub(super) enum Who {
    /// Nothing is known of it.
    Unknown,
    /// It is a workload of the tables.
    Known(Arc<Workload>),
    /// It describes itself (baggage).
    Told(Arc<WorkloadLabels>),
}

impl Party {
    /// A workload of the tables, which has proven `identity` if there is one.
    pub fn workload(workload: &Arc<Workload>, identity: Option<&SpiffeId>) -> Self {
        Self { who: Who::Known(workload.clone()), identity: identity.cloned() }
    }

    /// A workload of the tables, if there is one, with the identity that the tables say it has.
    pub fn known(workload: Option<&Arc<Workload>>) -> Self {
        match workload {
            Some(workload) => Self::workload(workload, workload.identity().ok().as_ref()),
            None => Self { who: Who::Unknown, identity: None },
        }
    }

    /// A caller of proven identity whose address is no workload's: described by its baggage.
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
