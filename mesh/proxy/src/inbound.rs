//! Serves HBONE connections to a pod: each caller proves its identity, within its share of the pod; its tunnels are handed
//! on.

mod caller_socket;
mod occupied;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::server::{AcceptError, Asked, Connection};
use mesh_hbone::unfinished::is_shed;
use mesh_identity::peer_watch::PeerWatch;
use mesh_identity::store::CertificateError;
use mesh_identity::tls::is_revoked;
use mesh_model::address::canonical;
use mesh_model::identity::{InvalidSpiffeId, SpiffeId};
use mesh_model::reason::ReasonCode;
use mesh_model::share::Source;
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::Reporter;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::caller_socket::{CallerSocket, Ending};
use self::occupied::{Carried, Occupied};
use crate::context::ProxyContext;
use crate::local_pod::LocalPod;
use crate::local_workload::{UnknownWorkload, deadline};
use crate::overload;
use crate::report::Report;

/// How long a connection that is cut, or sent elsewhere with nothing in it, may go on, so that its caller learns why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The connection that a tunnel is asked for on. It counts the tunnel as carried until this is dropped.
pub struct TunnelContext {
    /// The address that the connection came to.
    pub local: SocketAddr,
    /// The address that it came from.
    pub from: SocketAddr,
    /// The identity that the caller has proven.
    pub caller: Rc<SpiffeId>,
    /// True once the caller's certificate is revoked; none where there are no revocation lists.
    revoked: Option<watch::Receiver<bool>>,
    _carried: Carried,
}

impl TunnelContext {
    /// Resolves when the caller's certificate is revoked.
    pub async fn revoked(&mut self) {
        let told = match &mut self.revoked {
            Some(revoked) => revoked.wait_for(|revoked| *revoked).await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves one HBONE connection from `from` to `pod` until it ends: has its caller prove its identity, then hands each tunnel
/// that it asks for to `begin`. The caller gets GOAWAY when the pod or the proxy is about to end, and when the connection
/// carries nothing and another source needs its permit. `reporter` stands in metrics of revoked callers.
pub async fn serve(
    proxy: &ProxyContext,
    pod: &Rc<LocalPod>,
    reporter: Reporter,
    tcp: TcpStream,
    from: SocketAddr,
    begin: impl Fn(Asked, TunnelContext),
) {
    let local = match tcp.local_addr() {
        Ok(local) => canonical(local),
        Err(error) => return tracing::debug!(pod = %pod.info, %error, "connection gone before it was served"),
    };
    let way = (from, local);
    let source = Source::address(from.ip());
    let Some(permit) = overload::admit(&proxy.telemetry, &pod.quota, Direction::Inbound, &tcp, way, Some(&source))
    else {
        return pod.quota.close_later(tcp);
    };
    let handshake = match pod.quota.handshake(&source) {
        Ok(handshake) => handshake,
        Err(full) => {
            overload::shed(&proxy.telemetry, Direction::Inbound, &tcp, way, full);
            return pod.quota.close_later(tcp);
        }
    };
    // It has proven nothing yet: both are given to others before others are turned away.
    let ended = Arc::new(Notify::new());
    let [permit, handshake] = [permit, handshake].map(|permit| pod.quota.spare(permit, &source, &ended));
    let attempt = Report::attempt(&proxy.telemetry, Direction::Inbound, from, local);
    let ending = Ending::new();
    let proven = tokio::select! {
        proven = Box::pin(prove(proxy, pod, tcp, source, &ending)) => proven,
        () = ended.notified() => Err(Unproven::Ended),
    };
    let (mut connection, mut client) = match proven {
        Ok(proven) => proven,
        Err(unproven) => {
            if unproven.code() == ReasonCode::CertRevoked {
                proxy.telemetry.revocation.rejected(reporter);
            }
            ending.because_of_the_caller();
            return attempt.failed(unproven.code(), &unproven);
        }
    };
    drop(handshake);
    let caller = Rc::new(connection.peer.clone());
    let source = Source::Identity(connection.peer.clone());
    let Some(permit) = permit.take() else {
        connection.give_up();
        ending.because_of_the_caller();
        return attempt.failed(Unproven::Ended.code(), &Unproven::Ended);
    };
    let occupied = match pod.quota.proven(permit, &source) {
        Ok(permit) => Occupied::new(pod.clone(), source, permit),
        Err(full) => {
            connection.go_away();
            connection.give_up();
            ending.because_of_the_caller();
            return attempt.failed(full.code(), &full);
        }
    };
    let revocable = client.is_on();
    let draining = pod.sends_callers_away(&proxy.drain);
    tokio::pin!(draining);
    let mut going_away = false;
    // A caller that is gone without a word, its namespace with it, never says that it has seen GOAWAY.
    let unanswered = tokio::time::sleep(LAST_WORDS);
    tokio::pin!(unanswered);
    let (revoked, told_revoked) = watch::channel(false);
    let begin = |asked: Asked| match occupied.carry() {
        Ok(carried) => {
            let revoked = revocable.then(|| told_revoked.clone());
            begin(asked, TunnelContext { local, from, caller: caller.clone(), revoked, _carried: carried });
        }
        Err(full) => {
            asked.refuse(StatusCode::SERVICE_UNAVAILABLE, full.code());
            attempt.failed(full.code(), &full);
        }
    };
    loop {
        tokio::select! {
            asked = connection.next() => match asked {
                Some(Ok(asked)) => begin(asked),
                Some(Err(error)) => {
                    tracing::debug!(pod = %pod.info, %from, caller = %caller, %error, "HBONE connection broke");
                    return ending.because_of_the_caller();
                }
                None => return,
            },
            () = client.revoked() => {
                tracing::warn!(pod = %pod.info, %from, caller = %caller, "caller's certificate is revoked: connection cut");
                revoked.send_replace(true);
                connection.go_away();
                // Its tunnels end by themselves now; what it asks meanwhile is answered.
                let rest = async {
                    while let Some(Ok(asked)) = connection.next().await {
                        asked.refuse(StatusCode::UNAUTHORIZED, ReasonCode::CertRevoked);
                    }
                };
                let _ = tokio::time::timeout(LAST_WORDS, rest).await;
                return;
            }
            () = occupied.ended() => {
                attempt.failed(ReasonCode::EndedForOthers, &"it carried nothing, and somebody else needed its place");
                going_away = true;
                connection.go_away();
                let Some(_leaving) = pod.quota.leaving() else {
                    connection.give_up();
                    return ending.because_of_the_caller();
                };
                // What its caller asked for before it knew is served, if there is a permit again.
                let rest = async {
                    while let Some(Ok(asked)) = connection.next().await {
                        begin(asked);
                    }
                };
                if tokio::time::timeout(LAST_WORDS, rest).await.is_ok() {
                    return;
                }
                if occupied.is_at_rest() {
                    connection.give_up();
                    return ending.because_of_the_caller();
                }
            }
            () = &mut draining, if !going_away => {
                going_away = true;
                connection.go_away();
                unanswered.as_mut().reset(Instant::now() + LAST_WORDS);
            }
            () = &mut unanswered, if going_away => {
                if occupied.is_at_rest() {
                    return;
                }
                unanswered.as_mut().reset(Instant::now() + LAST_WORDS);
            }
        }
    }
}

/// Why a connection ends before its caller can ask for a tunnel.
#[derive(Debug, thiserror::Error)]
enum Unproven {
    #[error("{0}")]
    Workload(UnknownWorkload),
    #[error("{0}")]
    Identity(InvalidSpiffeId),
    #[error("{0}")]
    Certificate(CertificateError),
    #[error("{0}")]
    Accept(AcceptError),
    #[error("its handshake was not done, and somebody else needed its place")]
    Ended,
}

impl Unproven {
    /// The stable code; documented in `docs/reasons.md`.
    fn code(&self) -> ReasonCode {
        match self {
            Self::Workload(_) => ReasonCode::UnknownWorkload,
            Self::Identity(_) => ReasonCode::InvalidIdentity,
            Self::Certificate(_) => ReasonCode::NoCertificate,
            Self::Accept(AcceptError::Tls(error)) if is_revoked(error) => ReasonCode::CertRevoked,
            Self::Accept(AcceptError::Tls(error)) if is_shed(error) => ReasonCode::SourceOverloaded,
            Self::Accept(AcceptError::Tls(_) | AcceptError::NoIdentity) => ReasonCode::TlsFailed,
            Self::Accept(AcceptError::Http2(_)) => ReasonCode::Http2Failed,
            Self::Accept(AcceptError::Timeout) => ReasonCode::HandshakeTimeout,
            Self::Ended => ReasonCode::EndedForOthers,
        }
    }
}

/// The TLS handshake: caller and pod prove their identities to each other.
async fn prove(
    proxy: &ProxyContext,
    pod: &LocalPod,
    tcp: TcpStream,
    source: Source,
    ending: &Ending,
) -> Result<(Connection, PeerWatch), Unproven> {
    let workload = proxy.local_workload(&pod.info, deadline()).await.map_err(Unproven::Workload)?;
    let identity = workload.identity().map_err(Unproven::Identity)?;
    let credentials = proxy.certificates.get(&identity).await.map_err(Unproven::Certificate)?;
    let client = PeerWatch::new(credentials);
    let socket = CallerSocket::new(tcp, ending, pod.quota.late_close());
    let accepting = Connection::accept_from(source, socket, client.server_config(), &proxy.hbone);
    let connection = accepting.await.map_err(Unproven::Accept)?;
    Ok((connection, client))
}
