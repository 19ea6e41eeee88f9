//! Asks the agent to enrol a new pod: what the CNI plugin does, and anyone who starts pods without a runtime.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::cni::{ADD_PATH, AddRequest};

/// How long the agent may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// As much of the agent's answer as is read, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// Why a pod was not enrolled. The pod must not start: it would be outside a mesh it belongs to.
#[derive(Debug, thiserror::Error)]
pub enum CmdAddError {
    /// The agent cannot be reached.
    #[error("the node agent does not answer at {path} (is it running?): {reason}")]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// It took too long.
    #[error("the node agent did not answer within {TIMEOUT:?}")]
    Timeout,
    /// It said no.
    #[error("the node agent answered {status}: {reason}")]
    Refused {
        /// The HTTP status: 400 for a request it does not understand, 500 when enrolment failed.
        status: http::StatusCode,
        /// Its reason.
        reason: String,
    },
}

/// Asks the agent at `socket`. `Ok` means that the pod may start: it is enrolled, or does not belong in the mesh.
pub async fn cmd_add(socket: &Path, request: &AddRequest) -> Result<(), CmdAddError> {
    tokio::time::timeout(TIMEOUT, ask(socket, request)).await.unwrap_or(Err(CmdAddError::Timeout))
}

async fn ask(socket: &Path, request: &AddRequest) -> Result<(), CmdAddError> {
    let unreachable = |reason: String| CmdAddError::Unreachable { path: socket.to_owned(), reason };
    let body = serde_json::to_vec(request).map_err(|error| unreachable(error.to_string()))?;
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| unreachable(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let request = http::Request::post(ADD_PATH)
        .header(http::header::HOST, "localhost")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreachable(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status();
        let reason = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let reason = reason.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        if status.is_success() {
            Ok(())
        } else {
            Err(CmdAddError::Refused { status, reason: reason.unwrap_or_default() })
        }
    };
    tokio::pin!(connection);
    tokio::select! {
        biased;
        outcome = exchange => outcome,
        ended = &mut connection => {
            Err(unreachable(ended.err().map_or_else(|| "it hung up".to_owned(), |error| error.to_string())))
        }
    }
}
