//! Opens a stream to an endpoint.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::Request;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::duplex::Duplex;
use mesh_hbone::pool::Key as HboneKey;
use mesh_model::destination::{AcrossTo, TunnelTo};
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_proxy::dial;
use mesh_proxy::dial::across::{self, Requests};
use mesh_proxy::local_pod::LocalPod;
use mesh_runtime::trace::TraceParent;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Unreachable};
use super::stream::Stream;
use crate::context::WaypointContext;

/// Opens a stream to an endpoint, as `waypoint`, which is us.
pub(crate) async fn open(
    context: &WaypointContext,
    pod: &LocalPod,
    waypoint: &Arc<Workload>,
    endpoint: &Endpoint,
) -> Result<Stream, Unreachable> {
    match endpoint {
        Endpoint::Plain(address, _) => {
            let tcp = dial_tcp(context, *address).await;
            tcp.map(Stream::plain).map_err(|error| Unreachable::Plain(*address, Arc::new(error)))
        }
        Endpoint::Tunnel(to) => {
            let (key, trace) = (key_to(waypoint, to)?, TraceParent::random());
            let request = request(&pod.baggage(waypoint), to, &trace, None)?;
            let (opened, _peer) = pod.pool.open(&key, request, || connect_to(context, &key)).await?;
            Ok(Stream::tunnel(Duplex::new(opened.tunnel)))
        }
        // Seldom, and much to hold for those that need it not.
        Endpoint::Across(to) => Box::pin(open_across(context, pod, waypoint, to)).await,
    }
}

/// A tunnel within a tunnel, to somebody on another network.
async fn open_across(
    context: &WaypointContext,
    pod: &LocalPod,
    waypoint: &Arc<Workload>,
    AcrossTo { outer, expected }: &AcrossTo,
) -> Result<Stream, Unreachable> {
    let (key, trace) = (key_to(waypoint, outer)?, TraceParent::random());
    let (proxy, baggage) = (&context.proxy, pod.baggage(waypoint));
    let requests = Requests {
        outer: request(&baggage, outer, &trace, None)?,
        inner: request(&baggage, outer, &trace, Some(&context.config.network))?,
    };
    let credentials = proxy.certificates.get(&key.source).await.map_err(dial::no_certificate)?;
    let connect = || connect_to(context, &key);
    let opened = across::open(&pod.pool, &key, expected, requests, credentials, &proxy.hbone, connect).await;
    let (opened, _peer) = opened?;
    Ok(Stream::tunnel(Duplex::new(opened.tunnel)))
}

/// What the connection to `to` may be shared by.
fn key_to(waypoint: &Workload, to: &TunnelTo) -> Result<HboneKey, Unreachable> {
    let source = waypoint.identity();
    let source = source.map_err(|error| Unreachable::NoWay(ReasonCode::InvalidIdentity, error.to_string()))?;
    Ok(dial::key(source, own_address(waypoint, to.peer), to))
}

/// A CONNECT. It is for requests of many callers, so it names none. `network` is ours, for the inner one of two only.
fn request(
    baggage: &str,
    to: &TunnelTo,
    trace: &TraceParent,
    network: Option<&str>,
) -> Result<Request<()>, Unreachable> {
    let host = to.service.as_ref().map(|service| &*service.hostname);
    let said = Context { baggage, client: None, host, traceparent: &trace.to_string(), network };
    connect::request(&to.authority.to_string(), &said)
        .map_err(|error| Unreachable::NoWay(ReasonCode::BadRequest, error.to_string()))
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
