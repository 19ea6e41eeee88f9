//! Opens a stream to an endpoint.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::duplex::Duplex;
use mesh_hbone::pool::Key as HboneKey;
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_proxy::dial;
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
            let source = waypoint.identity();
            let source = source.map_err(|error| Unreachable::NoWay(ReasonCode::InvalidIdentity, error.to_string()))?;
            let key = dial::key(source, own_address(waypoint, to.peer), to);
            let (baggage, trace) = (pod.baggage(waypoint), TraceParent::random().to_string());
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
            let (opened, _peer) = pod.pool.open(&key, request, || connect_to(context, &key)).await?;
            Ok(Stream::tunnel(Duplex::new(opened.tunnel)))
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
