//! Connections to endpoints: which endpoint, the way to it, and those that are kept for the next request.
//!
//! An endpoint is reached as ztunnel would reach it: through a tunnel if it is in the mesh, as the waypoint's own identity, else
//! plainly. What is spoken inside is HTTP/1 or HTTP/2.

mod connection;
mod pool;
mod stream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::duplex::Duplex;
use mesh_hbone::pool::Key as HboneKey;
use mesh_model::destination::{Destination, TunnelTo};
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_proxy::dial::{self, classify};
use mesh_runtime::trace::TraceParent;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::context::WaypointContext;
use crate::worker::Worker;

pub(crate) use connection::{Connection, Handed, HttpVersion, LocalExecutor};
pub(crate) use pool::{Key, Lent, Pool};
pub(crate) use stream::Stream;

/// Why an endpoint could not be reached. Nothing was sent to it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unreachable {
    /// There is no way to one.
    #[error("{1}")]
    NoWay(ReasonCode, String),
    /// It did not take the connection.
    #[error("{0}")]
    Tunnel(#[from] OpenError),
    /// It did not take the plain connection.
    #[error("connect to {0}: {1}")]
    Plain(SocketAddr, Arc<io::Error>),
    /// It does not speak HTTP.
    #[error("HTTP handshake: {0}")]
    Handshake(Arc<hyper::Error>),
}

impl Unreachable {
    /// The stable code; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::NoWay(code, _) => *code,
            Self::Tunnel(error) => classify(error).1,
            Self::Plain(..) => ReasonCode::ConnectFailed,
            Self::Handshake(_) => ReasonCode::Http2Failed,
        }
    }

    /// Another endpoint may take it: this one, not the way to all of them, is at fault.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        match self {
            Self::NoWay(..) | Self::Tunnel(OpenError::Certificate(_)) => false,
            // Policies are the same for all endpoints of a service, and asking the next one hides the denial.
            Self::Tunnel(OpenError::Refused { status, .. }) => *status != http::StatusCode::UNAUTHORIZED,
            Self::Tunnel(_) | Self::Plain(..) | Self::Handshake(_) => true,
        }
    }
}

/// Where one endpoint is, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Through a tunnel.
    Tunnel(TunnelTo),
    /// Plainly.
    Plain(SocketAddr, Option<Arc<Workload>>),
}

impl Way {
    /// The way that was decided on, if it is one that a waypoint goes.
    pub(crate) fn of(destination: Destination) -> Result<Self, Unreachable> {
        match destination {
            Destination::Tunnel(to) => Ok(Self::Tunnel(to)),
            Destination::Plain(to) => Ok(Self::Plain(to.address, to.workload)),
            Destination::Refuse(refusal) => Err(Unreachable::NoWay(refusal.code(), refusal.to_string())),
            Destination::Across(to) => Err(Unreachable::NoWay(
                ReasonCode::UnknownNetworkGateway,
                format!("endpoint behind {}: a waypoint reaches only endpoints of its own network", to.outer.peer),
            )),
            Destination::Resolve(name) => Err(Unreachable::NoWay(
                ReasonCode::HostnameUnresolved,
                format!("endpoint {}: a waypoint reaches only endpoints that have an address", name.hostname()),
            )),
        }
    }

    /// The endpoint's workload, if the tables know it.
    pub(crate) fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Tunnel(to) => Some(&to.workload),
            Self::Plain(_, workload) => workload.as_ref(),
        }
    }

    /// The address of this hop.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tunnel(to) => to.peer,
            Self::Plain(address, _) => *address,
        }
    }
}

/// Opens the way for `waypoint`, us.
pub(crate) async fn open(worker: &Worker, waypoint: &Arc<Workload>, way: &Way) -> Result<Stream, Unreachable> {
    match way {
        Way::Plain(address, _) => {
            let tcp = dial_tcp(&worker.context, *address).await;
            tcp.map(Stream::Plain).map_err(|error| Unreachable::Plain(*address, Arc::new(error)))
        }
        Way::Tunnel(to) => {
            let source = waypoint.identity();
            let source = source.map_err(|error| Unreachable::NoWay(ReasonCode::InvalidIdentity, error.to_string()))?;
            let key = dial::key(source, own_address(waypoint, to.peer), to);
            let (baggage, trace) = (worker.pod.baggage(waypoint), TraceParent::random().to_string());
            // It is for requests of many callers, so it names none.
            let said = Context {
                baggage: &baggage,
                client: None,
                host: to.service.as_ref().map(|service| &*service.hostname),
                traceparent: &trace,
                network: None,
            };
            let request = connect::request(&to.authority.to_string(), &said)
                .map_err(|error| Unreachable::NoWay(ReasonCode::BadRequest, error.to_string()))?;
            let (opened, _peer) = worker.pod.pool.open(&key, request, || connect_to(&worker.context, &key)).await?;
            Ok(Stream::Tunnel(Duplex::new(opened.tunnel)))
        }
    }
}

/// The address that we call `peer` from; only a part of the key here, the kernel chooses.
fn own_address(waypoint: &Workload, peer: SocketAddr) -> IpAddr {
    let own = waypoint.addresses.iter().find(|ip| ip.is_ipv4() == peer.is_ipv4());
    own.copied().unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into())
}

/// A new HBONE connection for the pool.
async fn connect_to(context: &WaypointContext, key: &HboneKey) -> Result<Client, OpenError> {
    let proxy = &context.proxy;
    dial::connect(&proxy.certificates, key, &proxy.hbone, dial_tcp(context, key.peer)).await
}

async fn dial_tcp(context: &WaypointContext, to: SocketAddr) -> io::Result<TcpStream> {
    let limit = context.proxy.hbone.handshake_timeout;
    let tcp = timeout(limit, TcpStream::connect(to)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // What the kernel refuses here is not worth a connection.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}
