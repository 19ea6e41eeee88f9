//! A question to a service that is asked about a request, by the waypoint as itself, through the mesh, like any service; and a call
//! of gRPC with one message each way.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::response::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Limited};
use mesh_model::address::NamespacedName;
use tokio::time::{Instant, timeout_at};

use super::caller::Caller;
use super::forward::{Hop, forward};
use super::hop;
use super::report::Report;
use crate::body::Body;
use crate::limits::ASKED_ANSWER;

/// Whom is asked.
pub(super) struct To<'a> {
    /// The service, `namespace/hostname`.
    pub(super) service: &'a NamespacedName,
    /// Its port.
    pub(super) port: u16,
    /// When the answer must have come.
    pub(super) deadline: Instant,
}

/// All of an answer.
pub(super) struct Whole {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    trailers: Option<HeaderMap>,
}

/// Asks, and waits for all of the answer.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn send(caller: &Rc<Caller>, to: &To<'_>, request: Request<Body>) -> Result<Whole, String> {
    let service = caller.worker.context.proxy.tables.read(|tables| tables.service(to.service).cloned());
    let service = service.ok_or("there is no such service")?;
    let dialled = hop::dialled(&service, to.port, caller.target.dialled.is_ipv4());
    let hop = Hop { deadline: Some(to.deadline), ..Hop::to(service, dialled) };
    let mut report =
        Report::new(caller, request.method(), request.uri(), request.headers(), request.version()).silent();
    let answer = forward(caller, &hop, request, None, &mut report).await.map_err(|refused| refused.why)?;
    let (head, body) = answer.head.into_parts();
    match timeout_at(to.deadline, Limited::new(body, ASKED_ANSWER).collect()).await {
        Ok(Ok(collected)) => {
            let trailers = collected.trailers().cloned();
            Ok(Whole { head, body: collected.to_bytes(), trailers })
        }
        Ok(Err(error)) => Err(format!("its answer broke off, or is longer than {ASKED_ANSWER} bytes: {error}")),
        Err(_) => Err("it took longer than its timeout".to_owned()),
    }
}

/// Says what a request asks for.
///
/// # Errors
/// When no URI can say it.
pub(super) fn address(request: &mut Request<Body>, authority: &str, target: PathAndQuery) -> Result<(), http::Error> {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    if !authority.is_empty() {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.try_into()?);
    }
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}

/// A call of a gRPC method.
///
/// # Errors
/// When no URI can name the service.
pub(super) fn grpc(to: &To<'_>, path: &'static str, message: &[u8]) -> Result<Request<Body>, http::Error> {
    let mut request = Request::new(Body::whole(framed(message)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let authority = format!("{}:{}", to.service.name, to.port);
    address(&mut request, &authority, PathAndQuery::from_static(path))?;
    Ok(request)
}

/// A message as gRPC sends it: not compressed, and how long it is.
fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    // What a waypoint writes is bounded by the head of a request and by what is shown of its body.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

impl Whole {
    /// The message that a gRPC call came to. The status may stand in the head, where there is nothing else.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn message(self) -> Result<Bytes, String> {
        if self.head.status != StatusCode::OK {
            return Err(format!("it answered {}", self.head.status));
        }
        let trailers = self.trailers.as_ref();
        let said =
            |name: &str| trailers.and_then(|trailers| trailers.get(name)).or_else(|| self.head.headers.get(name));
        let text = |name| said(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if text("grpc-status").is_none_or(|status| status != "0") {
            let (status, message) = (text("grpc-status").unwrap_or_default(), text("grpc-message").unwrap_or_default());
            return Err(format!("gRPC status {status:?}: {message}"));
        }
        let [0, a, b, c, d, ..] = self.body[..] else {
            return Err("its answer is no gRPC message that is not compressed".to_owned());
        };
        let message = self.body.slice(5..);
        if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
            return Err("its answer is not one gRPC message".to_owned());
        }
        Ok(message)
    }
}
