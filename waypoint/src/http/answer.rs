//! What the waypoint answers itself.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mesh_model::reason::ReasonCode;
use tokio::time::Instant;

use super::report::Report;
use crate::body::Body;

/// Why a request did not get as far as an endpoint, or got no answer there.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// What the caller is answered.
    pub(crate) status: StatusCode,
    /// What the log and metrics say.
    pub(crate) code: ReasonCode,
    /// The same in words, for the log: a caller who is denied is not told by what.
    pub(crate) why: String,
    /// What the answer says, where it is not the waypoint's usual one.
    pub(super) own: Option<Box<Own>>,
}

/// An answer with words of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) body: Bytes,
}

impl Refused {
    /// With these words.
    pub(crate) fn new(status: StatusCode, code: ReasonCode, why: impl ToString) -> Self {
        Self { status, code, why: why.to_string(), own: None }
    }

    /// Answered with these headers and this body.
    pub(super) fn with(self, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self { own: Some(Box::new(Own { headers, body: body.into() })), ..self }
    }

    /// Answered with these words.
    pub(super) fn saying(self, words: &'static str) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        self.with(headers, words)
    }

    /// The answer. A gRPC caller gets a status of its protocol.
    pub(crate) fn answer(&self, grpc: bool) -> Response<Body> {
        let text = match self.status {
            // As Istio's proxies say it.
            StatusCode::FORBIDDEN => "RBAC: access denied".to_owned(),
            _ => format!("{}\n", self.code),
        };
        if grpc {
            let code = self.grpc_code();
            let Some(own) = &self.own else { return grpc_answer(code, &text) };
            let mut answer = grpc_answer(code, &String::from_utf8_lossy(&own.body));
            let others = own.headers.iter().filter(|(name, _)| !answer.headers().contains_key(*name));
            let others: Vec<_> = others.map(|(name, value)| (name.clone(), value.clone())).collect();
            answer.headers_mut().extend(others);
            return answer;
        }
        if let Some(own) = &self.own {
            let mut answer = Response::new(Body::whole(own.body.clone()));
            *answer.status_mut() = self.status;
            *answer.headers_mut() = own.headers.clone();
            return answer;
        }
        let mut answer = Response::new(Body::whole(text));
        *answer.status_mut() = self.status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        answer
    }

    /// The status of gRPC.
    fn grpc_code(&self) -> &'static str {
        // gRPC's own table of HTTP statuses, which has no word for what is over a limit.
        match self.status {
            _ if self.code == ReasonCode::RateLimited => "8",
            StatusCode::BAD_REQUEST => "13",
            StatusCode::UNAUTHORIZED => "16",
            StatusCode::FORBIDDEN => "7",
            StatusCode::NOT_FOUND => "12",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
            StatusCode::GATEWAY_TIMEOUT => "4",
            _ => "2",
        }
    }
}

/// Trailers only, in the place of headers (gRPC over HTTP/2).
fn grpc_answer(code: &'static str, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(text) = HeaderValue::from_str(text.trim_end()) {
        headers.insert("grpc-message", text);
    }
    answer
}

/// An answer, and what its body still holds.
pub(super) struct Answer {
    pub(super) head: Response<Body>,
    /// Both ends have agreed on another protocol.
    pub(super) agreed: Option<Box<dyn FnOnce(Report)>>,
}

impl Answer {
    /// One that no endpoint gave.
    pub(super) fn of_ours(head: Response<Body>) -> Self {
        Self { head, agreed: None }
    }

    /// Breaks its body off at `deadline`.
    pub(super) fn until(self, deadline: Option<Instant>) -> Self {
        Self { head: self.head.map(|body| body.until(deadline)), ..self }
    }

    /// The answer as the caller gets it; its end is reported.
    pub(super) fn finish(self, mut report: Report) -> Response<Body> {
        report.answered(self.head.status(), self.head.headers());
        match self.agreed {
            Some(agreed) => {
                agreed(report);
                self.head
            }
            None => self.head.map(|body| body.watched(report)),
        }
    }
}
