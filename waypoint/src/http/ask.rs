//! External authorization: whoever CUSTOM policies name is asked, by the waypoint as itself, through the mesh, like any service.
//!
//! Whoever gives no answer has not said yes: the request is refused, but where its provider says `failOpen`.

use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode, Version};
use mesh_model::authorizer::verdict::Edit;
use mesh_model::authorizer::{Authorizer, Protocol, Verdict, grpc, over_http};
use mesh_model::http::Request as Form;
use mesh_model::policy::Facts;
use mesh_model::reason::ReasonCode;
use tokio::time::Instant;

use super::answer::Refused;
use super::call::{self, To};
use super::caller::Caller;
use super::coming::Coming;
use super::headers;
use crate::body::Body;
use crate::limits::SHOWN_TIME;

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
    let room = caller.worker.asking.begin(caller.source(), most.unwrap_or_default());
    if let (Some(most), Ok(_)) = (most, &room) {
        let longest = authorizers.iter().map(|authorizer| authorizer.timeout).max().unwrap_or_default();
        body.begin(most, Instant::now() + longest.min(SHOWN_TIME)).await?;
    }
    for authorizer in authorizers {
        let verdict = match &room {
            Ok(_) => one(caller, authorizer, about, (head, body)).await,
            Err(full) => Err(Failed::NoAnswer(format!(
                "as much is being asked already as a data thread may ask at once: {full}"
            ))),
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
    let Authorizer { service, port, .. } = authorizer;
    let to = To { service, port: *port, deadline: Instant::now() + authorizer.timeout };
    let request = check(caller, (authorizer, &to), about, (head, body))?;
    let answer = call::send(caller, &to, request).await.map_err(Failed::NoAnswer)?;
    match &authorizer.protocol {
        Protocol::Http(check) => over_http::answer(check, answer.head.status, &answer.head.headers, answer.body)
            .ok_or_else(|| Failed::NoAnswer(format!("it answered {}", answer.head.status))),
        Protocol::Grpc => {
            let message = answer.message().map_err(Failed::NoAnswer)?;
            grpc::answer(message).ok_or_else(|| Failed::NoAnswer("its answer is no CheckResponse".to_owned()))
        }
    }
}

/// The request by which it is asked.
fn check(
    caller: &Caller,
    (authorizer, to): (&Authorizer, &To<'_>),
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
    match &authorizer.protocol {
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
            call::grpc(to, grpc::PATH, &grpc::request(authorizer, &about)).map_err(|error| no_request(&error))
        }
        Protocol::Http(check) => {
            let mut request = Request::new(Body::whole(shown));
            *request.method_mut() = about.form.method.clone();
            *request.version_mut() = Version::HTTP_11;
            *request.headers_mut() = over_http::headers(check, &truth);
            let target = over_http::target(check, &about.form.target)
                .ok_or_else(|| no_request(&"its pathPrefix makes no path"))?;
            call::address(&mut request, &about.form.authority(), target).map_err(|error| no_request(&error))?;
            Ok(request)
        }
    }
}
