//! One endpoint as it is reached, and why it cannot be.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_hbone::client::OpenError;
use mesh_model::destination::{AcrossTo, Destination, TunnelTo};
use mesh_model::reason::ReasonCode;
use mesh_model::traffic::outlier::Outcome;
use mesh_model::workload::Workload;
use mesh_proxy::dial::across::AcrossError;
use mesh_proxy::dial::classify;
use mesh_proxy::hostnames::Unresolved;

/// Why an endpoint could not be reached. Nothing was sent to it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unreachable {
    /// There is no way to one.
    #[error("{1}")]
    NoWay(ReasonCode, String),
    /// It has only a name, and that leads nowhere.
    #[error("{0}")]
    Unresolved(#[from] Unresolved),
    /// It did not take the connection.
    #[error("{0}")]
    Tunnel(#[from] OpenError),
    /// It is on another network, and its gateway or who is behind that did not take the connection.
    #[error("{0}")]
    Across(#[from] AcrossError),
    /// It did not take the plain connection.
    #[error("connect to {0}: {1}")]
    Plain(SocketAddr, Arc<io::Error>),
    /// It does not speak HTTP.
    #[error("HTTP handshake: {0}")]
    Handshake(Arc<hyper::Error>),
    /// It took longer than its DestinationRule allows.
    #[error("no connection within the connectTimeout of its DestinationRule ({0:?})")]
    Slow(Duration),
}

impl Unreachable {
    /// The stable code; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::NoWay(code, _) => *code,
            Self::Unresolved(error) => error.code(),
            Self::Tunnel(error) | Self::Across(AcrossError { error, .. }) => classify(error).1,
            Self::Plain(..) => ReasonCode::ConnectFailed,
            Self::Handshake(_) => ReasonCode::Http2Failed,
            Self::Slow(_) => ReasonCode::ConnectTimeout,
        }
    }

    /// Another endpoint may take it: this one, not the way to all of them, is at fault.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        match self {
            Self::NoWay(..) | Self::Unresolved(_) => false,
            Self::Tunnel(error) | Self::Across(AcrossError { error, .. }) => match error {
                OpenError::Certificate(_) => false,
                // Policies are the same for all endpoints of a service, and asking the next one hides the denial.
                OpenError::Refused { status, .. } => *status != http::StatusCode::UNAUTHORIZED,
                _ => true,
            },
            Self::Plain(..) | Self::Handshake(_) | Self::Slow(_) => true,
        }
    }

    /// What it says about the endpoint, if anything.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let failed = if matches!(self, Self::Slow(_)) { Outcome::TimedOut } else { Outcome::Failed };
        self.is_of_endpoint().then_some(failed)
    }
}

/// Where one endpoint is, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    /// Through a tunnel.
    Tunnel(TunnelTo),
    /// On another network: through a tunnel to its gateway, and one within that to whom the gateway chooses.
    Across(AcrossTo),
    /// Plainly.
    Plain(SocketAddr, Option<Arc<Workload>>),
}

impl Endpoint {
    /// The one that was decided on, if a waypoint can reach it.
    pub(crate) fn of(destination: Destination) -> Result<Self, Unreachable> {
        match destination {
            Destination::Tunnel(to) => Ok(Self::Tunnel(to)),
            Destination::Plain(to) => Ok(Self::Plain(to.address, to.workload)),
            Destination::Refuse(refusal) => Err(Unreachable::NoWay(refusal.code(), refusal.to_string())),
            Destination::Across(to) => Ok(Self::Across(to)),
            // It was resolved, and is at no other name.
            Destination::Resolve(name) => Err(Unreachable::NoWay(
                ReasonCode::HostnameUnresolved,
                format!("endpoint {} is at an address that is a name again", name.hostname()),
            )),
        }
    }

    /// The endpoint's workload, if the tables know it; on another network its gateway's.
    pub(crate) fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Tunnel(to) | Self::Across(AcrossTo { outer: to, .. }) => Some(&to.workload),
            Self::Plain(_, workload) => workload.as_ref(),
        }
    }

    /// The address of this hop.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tunnel(to) | Self::Across(AcrossTo { outer: to, .. }) => to.peer,
            Self::Plain(address, _) => *address,
        }
    }
}
