//! Connections that a pod asks for instead of having them captured: SOCKS on its loopback (`UNSTABLE_ENABLE_SOCKS5`).
//! From the target on they go the way of all others.

use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_proxy::local_workload;
use mesh_proxy::overload;
use mesh_proxy::report::Report;
use mesh_runtime::access_log::Direction;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Downstream, go};
use crate::pod::Pod;
use crate::serving::Worker;
use crate::socks::{self, LONGEST, Read, Refused, Reply, Target};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves one SOCKS client.
pub(crate) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, from: SocketAddr) {
    let context = &worker.context;
    let Ok(local) = tcp.local_addr() else { return };
    let way = (from, local);
    let Some(_permit) =
        overload::admit(&context.proxy.telemetry, &pod.local.quota, Direction::Outbound, &tcp, way, None)
    else {
        return;
    };
    let attempt = Report::attempt(&context.proxy.telemetry, Direction::Outbound, from, local);
    let failed = |code, error: &dyn Display| attempt.failed(code, error);
    let (downstream, target) = match timeout(PATIENCE, Box::pin(converse(tcp))).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => return failed(ReasonCode::BadRequest, &error),
        Err(_) => return failed(ReasonCode::HandshakeTimeout, &format_args!("no SOCKS request within {PATIENCE:?}")),
    };
    let deadline = local_workload::deadline();
    let client = match context.proxy.local_workload(&pod.local.info, deadline).await {
        Ok(client) => client,
        Err(error) => return failed(ReasonCode::UnknownWorkload, &error),
    };
    let dialled = match target {
        Target::Address(address) => address,
        Target::Name(name, port) => {
            let found = match &context.dns {
                Some(dns) => Box::pin(dns.resolve(&pod.dns, &name)).await,
                None => Err("names are resolved by the DNS proxy, which is off (ISTIO_META_DNS_CAPTURE)".to_owned()),
            };
            match found {
                Ok(ip) => SocketAddr::new(ip, port),
                Err(error) => {
                    downstream.refuse(Reply::HostUnreachable);
                    return failed(ReasonCode::HostnameUnresolved, &format_args!("{name}: {error}"));
                }
            }
        }
    };
    // Others must see the pod, not its loopback: policies judge addresses, and answers have to find back.
    let Some(from) = seen_as(&client, from, dialled) else {
        return failed(ReasonCode::UnknownWorkload, &"the control plane tells no address of this pod");
    };
    go(worker.clone(), pod, downstream, client, (from, dialled), deadline).await;
}

/// The pod's address that fits what is dialled.
fn seen_as(client: &Workload, from: SocketAddr, dialled: SocketAddr) -> Option<SocketAddr> {
    let fits = client.addresses.iter().find(|ip| ip.is_ipv4() == dialled.is_ipv4());
    fits.or(client.addresses.first()).map(|ip| SocketAddr::new(*ip, from.port()))
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
enum Unheard {
    #[error("SOCKS: {0}")]
    Refused(#[from] Refused),
    #[error("the SOCKS client is gone: {0}")]
    Gone(#[from] std::io::Error),
}

/// Hears what a client wants; not a byte more is read.
async fn converse(mut tcp: TcpStream) -> Result<(Downstream, Target), Unheard> {
    if let Err(refused) = hear(&mut tcp, socks::greeting).await? {
        if refused == Refused::Method {
            tcp.write_all(&socks::NO_METHOD).await?;
        }
        return Err(refused.into());
    }
    tcp.write_all(&socks::NO_AUTHENTICATION).await?;
    match hear(&mut tcp, socks::request).await? {
        Ok(target) => Ok((Downstream::socks(tcp), target)),
        Err(refused) => {
            if let Some(reply) = refused.reply() {
                tcp.write_all(&reply.bytes()).await?;
            }
            Err(refused.into())
        }
    }
}

/// One message.
async fn hear<T>(
    tcp: &mut TcpStream,
    read: impl Fn(&[u8]) -> Result<Read<T>, Refused>,
) -> std::io::Result<Result<T, Refused>> {
    let mut buffer = [0; LONGEST];
    let mut length = 0;
    loop {
        match read(&buffer[..length]) {
            Ok(Read::Whole(message)) => return Ok(Ok(message)),
            Err(refused) => return Ok(Err(refused)),
            Ok(Read::More(more)) => {
                tcp.read_exact(&mut buffer[length..length + more]).await?;
                length += more;
            }
        }
    }
}
