//! External authorization: whoever CUSTOM policies name is asked, by the waypoint as itself, through the mesh, like any service.
//!
//! Whoever gives no answer has not said yes: the request is refused, but where its provider says `failOpen`.

use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Limited};
use mesh_model::authorizer::verdict::Edit;
use mesh_model::authorizer::{Authorizer, Protocol, Verdict, grpc, over_http};
use mesh_model::http::Request as Form;
use mesh_model::policy::Facts;
use mesh_model::reason::ReasonCode;
use tokio::time::{Instant, timeout_at};

use super::answer::Refused;
use super::caller::Caller;
use super::coming::Coming;
use super::forward::{Hop, forward};
use super::report::Report;
use super::{headers, hop};
use crate::body::Body;
use crate::limits::{AUTHORIZER_ANSWER, SHOWN_TIME};

/// What is asked about.
pub(super) struct About<'a> {
    pub(super) facts: &'a Facts,
    pub(super) form: &'a Form,
}

/// Asks one after the other. Each sees the headers as those before it have left them. Gives the names of those that let it pass,
/// and adds to `told` what the caller is told with the answer.
///
/// # Errors
/// When one does not let it pass.
pub(super) async fn ask(
    caller: &Rc<Caller>,
    authorizers: &[Arc<Authorizer>],
    about: &About<'_>,
    (head, body): (&mut Parts, &mut Coming),
    told: &mut Vec<Edit>,
) -> Result<Vec<Arc<str>>, Refused> {
    let most = authorizers.iter().filter_map(|authorizer| authorizer.body).map(|body| body.most as usize).max();
    let room = caller.worker.asking.begin(most.unwrap_or_default());
    if let (Some(most), true) = (most, room.is_some()) {
        let longest = authorizers.iter().map(|authorizer| authorizer.timeout).max().unwrap_or_default();
        body.begin(most, Instant::now() + longest.min(SHOWN_TIME)).await?;
    }
    for authorizer in authorizers {
        let verdict = match &room {
            Some(_) => one(caller, authorizer, about, (head, body)).await,
            None => Err(Failed::NoAnswer("as much is being asked already as a data thread may ask at once".to_owned())),
        };
        let name = &authorizer.name;
        match verdict {
            Ok(Verdict::Pass(changes)) => {
                changes.request.iter().for_each(|edit| edit.apply(&mut head.headers));
                told.extend(changes.answer);
            }
            Ok(Verdict::Refuse { status, headers, body }) => {
                let why = format!("extension provider {name} answered {status}");
                return Err(Refused::new(status, ReasonCode::AuthorizerDenied, why).with(headers, body));
            }
            Err(Failed::TooLong) => {
                let why = format!("its body is longer than extension provider {name} looks at (maxRequestBytes)");
                return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, ReasonCode::AuthorizerFailed, why));
            }
            Err(Failed::NoAnswer(why)) if authorizer.fail_open => {
                tracing::debug!(provider = %name, why, "failOpen: a request passes about which nobody has said yes");
            }
            Err(Failed::NoAnswer(why)) => {
                let Authorizer { service, port, .. } = &**authorizer;
                let why = format!(
                    "extension provider {name} ({service}, port {port}) has not said yes: {why}. Look whether it runs, and \
                     whether its policies let this waypoint in"
                );
                return Err(Refused::new(authorizer.status_on_error, ReasonCode::AuthorizerFailed, why));
            }
        }
    }
    Ok(authorizers.iter().map(|authorizer| authorizer.name.clone()).collect())
}

/// Why there is no verdict.
enum Failed {
    /// It would have had to see more of the body than it may.
    TooLong,
    /// It said nothing that could be understood.
    NoAnswer(String),
}

async fn one(
    caller: &Rc<Caller>,
    authorizer: &Authorizer,
    about: &About<'_>,
    (head, body): (&Parts, &Coming),
) -> Result<Verdict, Failed> {
    let deadline = Instant::now() + authorizer.timeout;
    let tables = &caller.worker.context.proxy.tables;
    let no_answer = |why: &dyn Display| Failed::NoAnswer(why.to_string());
    let service = tables.read(|tables| tables.service(&authorizer.service).cloned());
    let service = service.ok_or_else(|| no_answer(&"there is no such service"))?;
    let request = check(caller, authorizer, about, (head, body))?;
    let dialled = hop::dialled(&service, authorizer.port, caller.target.dialled.is_ipv4());
    let hop = Hop { deadline: Some(deadline), ..Hop::to(service, dialled) };
    let mut report =
        Report::new(caller, request.method(), request.uri(), request.headers(), request.version()).silent();
    let answer = forward(caller, &hop, request, None, &mut report).await.map_err(|refused| no_answer(&refused.why))?;
    let (head, body) = answer.head.into_parts();
    let read = timeout_at(deadline, Limited::new(body, AUTHORIZER_ANSWER).collect()).await;
    let collected = match read {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) => {
            return Err(no_answer(&format!(
                "its answer broke off, or is longer than {AUTHORIZER_ANSWER} bytes: {error}"
            )));
        }
        Err(_) => return Err(no_answer(&"it took longer than its timeout")),
    };
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes();
    match &authorizer.protocol {
        Protocol::Http(check) => over_http::answer(check, head.status, &head.headers, body)
            .ok_or_else(|| no_answer(&format!("it answered {}", head.status))),
        Protocol::Grpc => {
            called(&Response::from_parts(head, ()), trailers.as_ref(), body).map_err(|why| no_answer(&why))
        }
    }
}

/// The request by which it is asked.
fn check(
    caller: &Caller,
    authorizer: &Authorizer,
    about: &About<'_>,
    (head, body): (&Parts, &Coming),
) -> Result<Request<Body>, Failed> {
    let us = caller.waypoint.identity().map_err(|error| Failed::NoAnswer(error.to_string()))?;
    let mut truth = head.headers.clone();
    headers::end_to_end(&mut truth);
    // An authorizer is told who asks, not what a caller says of itself.
    headers::told_of(&mut truth, &caller.identity, caller.from.ip(), &us);
    let read = body.beginning();
    let shown = match authorizer.body {
        None => Bytes::new(),
        Some(body) if read.len() <= body.most as usize => read,
        Some(body) if body.allow_partial => read.slice(..body.most as usize),
        Some(_) => return Err(Failed::TooLong),
    };
    let no_request = |error: &dyn Display| Failed::NoAnswer(format!("it cannot be asked: {error}"));
    let (mut request, target, authority) = match &authorizer.protocol {
        Protocol::Grpc => {
            let about = grpc::About {
                facts: about.facts,
                from: caller.from,
                us: &us.to_string(),
                request: about.form,
                headers: &truth,
                version: head.version,
                body: &shown,
                length: body.length,
                at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            };
            let mut request = Request::new(Body::whole(framed(&grpc::request(authorizer, &about))));
            *request.method_mut() = Method::POST;
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
            let authority = format!("{}:{}", authorizer.service.name, authorizer.port);
            (request, PathAndQuery::from_static(grpc::PATH), authority)
        }
        Protocol::Http(check) => {
            let mut request = Request::new(Body::whole(shown));
            *request.method_mut() = about.form.method.clone();
            *request.version_mut() = Version::HTTP_11;
            *request.headers_mut() = over_http::headers(check, &truth);
            let target = over_http::target(check, &about.form.target)
                .ok_or_else(|| no_request(&"its pathPrefix makes no path"))?;
            (request, target, about.form.authority())
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    if !authority.is_empty() {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.as_str().try_into().map_err(|error| no_request(&error))?);
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| no_request(&error))?;
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

/// What a gRPC call came to. The status may stand in the head, where there is nothing else.
fn called(head: &Response<()>, trailers: Option<&HeaderMap>, body: Bytes) -> Result<Verdict, String> {
    if head.status() != StatusCode::OK {
        return Err(format!("it answered {}", head.status()));
    }
    let said = |name: &str| trailers.and_then(|trailers| trailers.get(name)).or_else(|| head.headers().get(name));
    let text = |name| said(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if text("grpc-status").is_none_or(|status| status != "0") {
        let (status, message) = (text("grpc-status").unwrap_or_default(), text("grpc-message").unwrap_or_default());
        return Err(format!("gRPC status {status:?}: {message}"));
    }
    let [0, a, b, c, d, ..] = body[..] else {
        return Err("its answer is no gRPC message that is not compressed".to_owned());
    };
    let message = body.slice(5..);
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return Err("its answer is not one gRPC message".to_owned());
    }
    grpc::answer(message).ok_or_else(|| "its answer is no CheckResponse".to_owned())
}
