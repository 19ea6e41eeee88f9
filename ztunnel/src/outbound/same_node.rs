//! Between two pods of this node there is no wire: both ends of the tunnel would be this process, which would encrypt
//! for itself. The two ends meet here instead. Everything else is as it is between nodes: both identities have to be
//! proven to the certificate authority, the destination's policies decide, both ends report, and a policy that changes
//! cuts. Bytes never leave the two pods' own namespaces but through this process.
//!
//! `SAME_NODE_ENCRYPTION=true` turns it off, and so does `CRL_PATH`.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh_hbone::carry::{self, CarryError, Count};
use mesh_hbone::client::OpenError;
use mesh_hbone::pool::Key;
use mesh_hbone::stream::TunnelError;
use mesh_identity::tls::PeerRefused;
use mesh_model::destination::TunnelTo;
use mesh_model::identity::SpiffeId;
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_proxy::dial::{classify, no_certificate, traffic};
use mesh_proxy::report::{Party, Report};
use mesh_runtime::metrics::{Reporter, ResponseFlags};
use mesh_runtime::trace::TraceParent;
use tokio::time::Instant;

use super::downstream::{self, Downstream};
use crate::inbound::{self, Entered, TunnelRequest};
use crate::pod::Pod;
use crate::serving::Worker;

/// HTTP/2's CANCEL (RFC 9113, section 7): what a caller on another node would see of a cut.
const CANCEL: u32 = 8;

/// The pod at the other end, if it is one of ours. Nodes of two clusters may have one name, and so may their pods.
pub(super) fn neighbour(worker: &Worker, to: &TunnelTo) -> Option<Rc<Pod>> {
    let config = &worker.context.config;
    let ours = *to.workload.node == *config.node && *to.workload.cluster == *config.cluster;
    // Lists of revoked certificates are looked at in handshakes, and only there.
    if config.same_node_encryption || config.crl.is_some() || !ours {
        return None;
    }
    worker.pod(&to.workload.name, &to.workload.namespace, &to.workload.service_account)
}

/// Serves a connection from `from` whose other end is `neighbour`.
pub(super) async fn serve(
    worker: &Worker,
    neighbour: Rc<Pod>,
    (client, deadline): (&Arc<Workload>, Instant),
    downstream: Downstream,
    from: SocketAddr,
    key: &Key,
    to: TunnelTo,
) {
    let trace = TraceParent::random();
    let report =
        Report::open(&worker.context.proxy.telemetry, traffic(Reporter::Source, client, from, key, &to, trace));
    let entering =
        Box::pin(enter(worker, &neighbour, (client, deadline), (from, downstream.gone()), key, (&to, trace)));
    let entered = tokio::select! {
        biased;
        // First: once it dials it tells of a caller that leaves by itself, for its own end.
        entered = entering => entered,
        () = downstream.gone() => return report.failed(ResponseFlags::Connect, ReasonCode::CallerGone, &downstream::GONE),
    };
    let entered = match entered {
        Ok(entered) => entered,
        Err(OpenError::Refused { reason: Some(reason), .. }) if reason == ReasonCode::CallerGone.as_str() => {
            return report.failed(ResponseFlags::Connect, ReasonCode::CallerGone, &downstream::GONE);
        }
        Err(error) => {
            let (flags, code) = classify(&error);
            return report.failed(flags, code, &error);
        }
    };
    let Entered {
        application, report: theirs, permit: _permit, registration: _registration, cut, in_use: _in_use, ..
    } = entered;
    report.opened();
    theirs.opened();
    let application = neighbour.dialler.look_after(application);
    let count = Rc::new(Both(report.count_from_client(), theirs.count_from_client()));
    if neighbour.has_stopped() {
        // While its application was dialled. Its report tells that its pod is gone.
        return report.broken(&CarryError::Tunnel(TunnelError::Lost));
    }
    tokio::select! {
        result = carry::tcp_and_tcp(downstream.opened(), application, count) => {
            match &result {
                Ok(()) => theirs.closed(),
                Err(error) => theirs.broken(error),
            }
            report.ended(result);
        }
        cut = cut => match cut {
            Ok(reason) => {
                theirs.cut(&reason);
                report.broken(&CarryError::Tunnel(TunnelError::Reset(CANCEL)));
            }
            // Its report tells that its pod is gone.
            Err(_) => report.broken(&CarryError::Tunnel(TunnelError::Lost)),
        },
    }
}

/// All that two ends of a tunnel do before bytes flow.
async fn enter(
    worker: &Worker,
    neighbour: &Pod,
    (client, deadline): (&Arc<Workload>, Instant),
    (from, gone): (SocketAddr, impl Future<Output = ()>),
    key: &Key,
    (to, trace): (&TunnelTo, TraceParent),
) -> Result<Entered, OpenError> {
    let context = &worker.context;
    let unknown = |error| OpenError::Certificate(format!("the peer has none: {error}"));
    let server = context
        .proxy
        .local_workload(&neighbour.local.info, deadline)
        .await
        .map_err(|error| unknown(error.to_string()))?;
    let identity = server.identity().map_err(|error| unknown(error.to_string()))?;
    prove(key, &identity)?;
    for id in [&key.source, &identity] {
        context.proxy.certificates.get(id).await.map_err(no_certificate)?;
    }
    let request = TunnelRequest {
        local: to.peer,
        from,
        port: Some(from.port()),
        caller: &key.source,
        target: &to.authority,
        trace: Some(trace),
        deadline,
    };
    let describe = |_: &Workload, _: &_| (Party::workload(client, Some(&key.source)), to.service.clone());
    inbound::enter(worker, neighbour, &request, gone, describe)
        .await
        .map_err(|turned| OpenError::Refused { status: turned.status, reason: Some(turned.code.to_string()) })
}

/// What each end's TLS would check of the other's identity.
fn prove(key: &Key, server: &SpiffeId) -> Result<(), OpenError> {
    let refused = if !key.expected.contains(server) {
        PeerRefused::Identity { expected: key.expected.clone(), presented: server.clone() }
    } else if key.source.trust_domain() != server.trust_domain() {
        PeerRefused::TrustDomain { presented: key.source.clone(), ours: server.trust_domain().clone() }
    } else {
        return Ok(());
    };
    let expected = key.expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    Err(OpenError::Tls { expected, error: Arc::new(std::io::Error::other(refused.to_string())) })
}

/// Counts for both ends.
struct Both(Rc<dyn Count>, Rc<dyn Count>);

impl Count for Both {
    fn forth(&self, bytes: usize) {
        self.0.forth(bytes);
        self.1.forth(bytes);
    }

    fn back(&self, bytes: usize) {
        self.0.back(bytes);
        self.1.back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    #[test]
    fn both_ends_prove_what_tls_would_prove() {
        let (client, server) = (id("spiffe://td/ns/a/sa/client"), id("spiffe://td/ns/a/sa/server"));
        let (other, foreign) = (id("spiffe://td/ns/a/sa/other"), id("spiffe://elsewhere/ns/a/sa/client"));
        for (source, expected, says) in [
            (&client, vec![&server], None),
            (&client, vec![&other, &server], None),
            (
                &client,
                vec![&other],
                Some("expected spiffe://td/ns/a/sa/other, but the peer is spiffe://td/ns/a/sa/server"),
            ),
            (&client, vec![], Some("expected nobody")),
            (&foreign, vec![&server], Some("not of our trust domain td")),
        ] {
            let key = Key {
                source: source.clone(),
                source_ip: "10.0.0.1".parse().unwrap(),
                expected: expected.into_iter().cloned().collect(),
                peer: "10.0.0.2:15008".parse().unwrap(),
                workload: "w".into(),
            };
            let proven = prove(&key, &server).map_err(|error| error.to_string());
            match says {
                None => assert_eq!(proven, Ok(())),
                Some(says) => assert!(proven.clone().is_err_and(|e| e.contains(says)), "{proven:?}"),
            }
        }
    }
}
