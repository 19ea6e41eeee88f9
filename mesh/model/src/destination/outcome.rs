//! Where a connection should go, or why nowhere.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::Authority;
use crate::balance::NoEndpoint;
use crate::identity::{InvalidSpiffeId, SpiffeId};
use crate::reason::ReasonCode;
use crate::service::Service;
use crate::workload::Workload;

/// Where a connection should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Through a tunnel to a peer that proves one of the identities.
    Tunnel(TunnelTo),
    /// Through a tunnel within a tunnel, to another network.
    Across(AcrossTo),
    /// Plain TCP.
    Plain(PlainTo),
    /// The endpoint has no address: resolve its name, then ask [`ByName::at`].
    Resolve(ByName),
    /// Nowhere.
    Refuse(Refusal),
}

/// A tunnel to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTo {
    /// The peer's HBONE address.
    pub peer: SocketAddr,
    /// What the CONNECT asks for: the application's address, the dialled address at a waypoint, the service's hostname at
    /// a network gateway.
    pub authority: Authority,
    /// Identities of which the peer must prove one; the workload's own first.
    pub expected: Vec<SpiffeId>,
    /// Who ends the tunnel: the application's workload, the waypoint's or the gateway's.
    pub workload: Arc<Workload>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// A waypoint is in the way.
    pub via_waypoint: bool,
}

/// Two tunnels to open, one in the other (double HBONE, ambient contract 4.7). Both CONNECTs ask for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcrossTo {
    /// To the gateway of the other network.
    pub outer: TunnelTo,
    /// Identities of which the far end of the inner tunnel must prove one: those that the service names, never a
    /// workload's, because the gateway chooses the workload. Never empty.
    pub expected: Vec<SpiffeId>,
}

/// A plain connection to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainTo {
    /// Where to.
    pub address: SocketAddr,
    /// Who owns the address, if the mesh knows.
    pub workload: Option<Arc<Workload>>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
}

/// Why a connection goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would come back to ourselves (row O1).
    #[error("attempted recursive call to ourselves")]
    Recursive,
    /// The service cannot take it (row O7).
    #[error("{reason}: {service} port {port}")]
    NoUpstream {
        /// The service's key.
        service: String,
        /// The port that was dialled.
        port: u16,
        /// What it lacks.
        reason: NoEndpoint,
    },
    /// The waypoint in its way is not known or has no endpoint (row O5): never bypassed.
    #[error("unknown waypoint: {0}")]
    UnknownWaypoint(String),
    /// The endpoint is on another network and there is no way there (row O11).
    #[error("unknown network gateway: {0}")]
    UnknownGateway(String),
    /// The endpoint is on another network and the service names nobody who may answer there (trap 21).
    #[error(
        "service {0} has endpoints on another network and no subject alternative names: whoever answered there could \
         not be proven; does the control plane know the remote workloads' identities?"
    )]
    NoServiceIdentity(String),
    /// The workload's name makes no SPIFFE id, so its peer could not be proven.
    #[error("workload {0} has no valid identity: {1}")]
    Identity(String, InvalidSpiffeId),
}

impl Refusal {
    /// A stable code for logs and metrics; documented in `docs/reasons.md`.
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Recursive => ReasonCode::RecursiveCall,
            Self::NoUpstream { reason: NoEndpoint::Port(_), .. } => ReasonCode::UnknownServicePort,
            Self::NoUpstream { reason: NoEndpoint::Healthy, .. } => ReasonCode::NoHealthyUpstream,
            Self::UnknownWaypoint(_) => ReasonCode::UnknownWaypoint,
            Self::UnknownGateway(_) => ReasonCode::UnknownNetworkGateway,
            Self::NoServiceIdentity(_) => ReasonCode::NoServiceIdentity,
            Self::Identity(..) => ReasonCode::InvalidIdentity,
        }
    }
}

/// An endpoint that has only a name (`istio.workload.Workload.hostname`): resolve it, then ask where to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByName {
    /// The endpoint.
    pub workload: Arc<Workload>,
    pub(super) dialled: SocketAddr,
    pub(super) reach: Reach,
}

/// How a chosen endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is the application's own workload.
    Application {
        /// The service that was dialled.
        service: Option<Arc<Service>>,
        /// The application's port.
        port: u16,
    },
    /// It is a waypoint.
    Waypoint {
        /// The waypoint's own service.
        own: Option<Arc<Service>>,
        /// The service that was dialled.
        service: Option<Arc<Service>>,
        /// Its HBONE port.
        port: u16,
    },
    /// It is the gateway of another network.
    Gateway {
        /// The gateway's own service.
        own: Option<Arc<Service>>,
        /// The service that was dialled, and what to ask the gateway for.
        service: Arc<Service>,
        authority: Authority,
        /// Its HBONE port.
        port: u16,
        /// Who may answer behind it.
        expected: Vec<SpiffeId>,
        /// A waypoint behind it is in the way.
        via_waypoint: bool,
    },
}
