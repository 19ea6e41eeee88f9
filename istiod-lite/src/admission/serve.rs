//! Answers the API server, over HTTPS with the certificate that proxies are shown, too.
//!
//! Whoever reaches the port may ask: nobody learns more than whether an object of his own can be read. So connections, the time they
//! take, what they send and what it costs to read it are bounded, and an address leaves room for others.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use mesh_model::share::{Shares, Source};
use mesh_runtime::drain;
use mesh_runtime::http_server::{Bounds, Request, Response, Router, converse, response};
use rustls::server::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::metrics::AdmissionMetrics;
use super::review::{Decided, NotAReview, Verdict, decide};
use crate::cluster::Cluster;
use crate::translate::Mesh;
use crate::translate::revision::Revisions;

/// Connections at once; one is for one review.
const CONNECTIONS: usize = 256;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest review: the object that is written and the one that is there, of which an API server takes 3 MiB and keeps 1.5.
const REVIEW: usize = 6 << 20;
/// All reviews that are being read or answered.
const REVIEWS: usize = 32 << 20;
/// How long it is still answered after the drain has begun: until every API server has heard that this replica is going.
const LINGER: Duration = Duration::from_secs(2);

/// Reviews, and what they are decided by.
#[derive(Clone)]
pub struct Reviews {
    mesh: Arc<Mesh>,
    cluster: watch::Receiver<Option<Arc<Cluster>>>,
    metrics: AdmissionMetrics,
    /// They are read one after another: what strangers send costs one thread, and the rest goes on.
    turn: Arc<Semaphore>,
}

impl Reviews {
    /// Reviews for this control plane. `cluster` says its tags.
    pub fn new(mesh: Mesh, cluster: watch::Receiver<Option<Arc<Cluster>>>, metrics: AdmissionMetrics) -> Self {
        Self { mesh: Arc::new(mesh), cluster, metrics, turn: Arc::new(Semaphore::new(1)) }
    }

    /// `/validate`, as Istio has it.
    pub fn routes(self) -> Router {
        Router::new().route(Method::POST, "/validate", "decides an AdmissionReview", move |request| {
            let reviews = self.clone();
            async move { reviews.answer(request).await }
        })
    }

    async fn answer(&self, request: Request) -> Response {
        let decided = {
            // Never closed.
            let _turn = self.turn.acquire().await;
            let this = self.clone();
            spawn_blocking(move || this.decide(request.body())).await
        };
        match decided {
            Ok(Ok(decided)) => {
                // Ours to ourselves among them, every minute.
                if !decided.dry_run {
                    self.count(&decided.verdict);
                }
                response(StatusCode::OK, "application/json", decided.answer())
            }
            Ok(Err(error)) => {
                self.metrics.malformed.inc();
                response(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", format!("{error}\n"))
            }
            // A panic in there: the API server does as its failure policy says.
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the review could not be read\n"),
        }
    }

    fn decide(&self, body: &[u8]) -> Result<Decided, NotAReview> {
        decide(body, |revision| {
            // Before the cluster is read, only its own names are known.
            let cluster = self.cluster.borrow().clone().unwrap_or_default();
            Revisions::new(&cluster, &self.mesh).is_ours(revision)
        })
    }

    fn count(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Good(kind) => self.metrics.passed(*kind),
            Verdict::Wrong(kind, rejected) => {
                self.metrics.failed(*kind);
                tracing::info!(%kind, namespace = rejected.namespace, name = rejected.name, "refused: {}", rejected.sentence());
            }
            Verdict::WrongAlready(_) | Verdict::NotEnforced(_) | Verdict::NotOurs => {}
        }
    }
}

/// Serves `router` until a moment after the drain has begun.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, drain: drain::Watch) {
    // The drain waits for the moment.
    let _token = drain.token();
    let (acceptor, router) = (TlsAcceptor::from(tls), Arc::new(router));
    let (shares, bounds) = (Shares::new(CONNECTIONS), Bounds::new(REVIEW, REVIEWS).one_request());
    let end = async {
        drain.started().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => return,
        };
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(share) = shares.enter(&Source::address(from.ip())) else {
            // Fails only on a socket that is gone already.
            let _ = tcp.set_zero_linger();
            continue;
        };
        let (acceptor, router, bounds) = (acceptor.clone(), router.clone(), bounds.clone());
        tokio::spawn(async move {
            let _share = share;
            match shake_hands(&acceptor, tcp).await {
                Ok(stream) => converse(stream, router, bounds).await,
                Err(why) => tracing::debug!(%from, why, "no TLS"),
            }
        });
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
) -> Result<tokio_rustls::server::TlsStream<TcpStream>, String> {
    // The answer is small, and somebody waits for it.
    let _ = tcp.set_nodelay(true);
    match timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(shaken) => shaken.map_err(|e| e.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    }
}
