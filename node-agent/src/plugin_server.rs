//! Answers the CNI plugin: HTTP over a Unix socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::cni::{ADD_PATH, AddRequest};

/// The largest request, in bytes.
const MAX_BODY: usize = 64 << 10;
/// How long a caller may take to say what it wants.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;

/// A request and where its answer goes. `Ok`: the pod may start. `Err`: it may not, because.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: AddRequest,
    /// The answer.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Listens at `path`, replacing a stale socket. Everyone on the node may ask (mode 0666, as runtimes expect): the
/// answer reveals nothing and does only what the list of pods wants anyway.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until dropped. Calls go to `calls`, whose receiver answers them.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let permits = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, calls.clone()));
                    let served = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(READ_DEADLINE)
                        .max_buf_size(MAX_BODY)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    if let Err(error) = served {
                        tracing::debug!(%error, "a CNI plugin's connection ended early");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a CNI plugin's connection");
                // Out of descriptors, most likely: waiting helps, spinning does not.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: mpsc::Sender<Call>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (status, text) = match outcome(request, calls).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err((status, reason)) => (status, reason),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

async fn outcome(request: Request<Incoming>, calls: mpsc::Sender<Call>) -> Result<(), (StatusCode, String)> {
    if request.uri().path() != ADD_PATH {
        return Err((StatusCode::NOT_FOUND, format!("only {ADD_PATH} is answered here")));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "POST it".to_owned()));
    }
    let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
    let body = tokio::time::timeout(READ_DEADLINE, Limited::new(request.into_body(), MAX_BODY).collect())
        .await
        .map_err(|_| bad("the request did not arrive in time".to_owned()))?
        .map_err(|error| bad(error.to_string()))?
        .to_bytes();
    let request: AddRequest = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let failed = |reason: &str| (StatusCode::INTERNAL_SERVER_ERROR, reason.to_owned());
    let (answer, outcome) = oneshot::channel();
    calls.send(Call { request, answer }).await.map_err(|_| failed("the node agent is stopping"))?;
    match outcome.await {
        Ok(outcome) => outcome.map_err(|reason| failed(&reason)),
        Err(_) => Err(failed("the node agent is stopping")),
    }
}
