//! Rate limits of a request: those that the waypoint counts first, which cost nobody else anything, then those that a rate limit
//! service counts. All of them have to let it pass. A request that one of them refuses is counted by none that the waypoint keeps.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mesh_model::rate_limit::service::{self, Verdict};
use mesh_model::rate_limit::{About, GlobalRateLimit, Kind, RateLimit, Target};
use mesh_model::reason::ReasonCode;
use mesh_model::route::{Rule, ServiceRoutes};
use tokio::time::Instant;

use super::answer::Refused;
use super::call::{self, To};
use super::caller::Caller;
use super::report::Report;
use crate::rate_limit::{Limiter, Taken};

/// Envoy's header, by which clients tell an answer of a proxy from one of their server.
const ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// Which of a service's limits count.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    /// Those of what was asked for, where the request follows this rule.
    Asked(Option<&'a Rule>),
    /// Those of the service itself: it is a backend of a route of another one.
    Backend,
}

impl Of<'_> {
    fn counts(self, limit: &RateLimit) -> bool {
        match (self, &limit.target) {
            (_, Target::Service(_)) | (Self::Asked(_), Target::Gateway(_)) => true,
            (Self::Asked(rule), target) => rule.is_some_and(|rule| rule.is_limited_by(target)),
            (Self::Backend, _) => false,
        }
    }
}

/// Counts a request.
///
/// # Errors
/// When it is over a limit.
pub(super) async fn check(
    caller: &Rc<Caller>,
    routes: &ServiceRoutes,
    of: Of<'_>,
    head: &mut Parts,
    report: &mut Report,
) -> Result<(), Refused> {
    let worker = &caller.worker;
    let Some(limits) = worker.rate_limits.of(&worker.context.rate_limits, routes) else { return Ok(()) };
    let route = match of {
        Of::Asked(rule) => rule.map(|rule| &rule.route),
        Of::Backend => None,
    };
    let counting = || limits.iter().filter(|limiter| of.counts(&limiter.limit));
    let mut taken = Counting(Vec::new());
    let about = About { caller: &caller.identity, headers: &head.headers, route };
    for limiter in counting() {
        match limiter.take(&about) {
            None => {}
            Some(Ok(of)) => taken.0.push((limiter, of)),
            Some(Err(wait)) => return Err(over(limiter, report, Some(wait), HeaderMap::new(), Bytes::new())),
        }
    }
    for limiter in counting() {
        let Kind::Global(global) = &limiter.limit.kind else { continue };
        let about = About { caller: &caller.identity, headers: &head.headers, route };
        let Some(message) = service::request(global, &about) else { continue };
        match Box::pin(ask(caller, global, &message)).await {
            Ok(Verdict::Pass { request, answer }) => {
                limiter.counted.ok.inc();
                request.iter().for_each(|edit| edit.apply(&mut head.headers));
                report.told.extend(answer);
            }
            Ok(Verdict::Over { headers, body, again }) => return Err(over(limiter, report, again, headers, body)),
            Err(why) => unanswered(limiter, global, &why, report)?,
        }
    }
    taken.keep();
    Ok(())
}

/// Tokens that were taken; given back unless they are kept: the caller may go while somebody else is asked, too.
struct Counting<'a>(Vec<(&'a Arc<Limiter>, Taken)>);

impl Counting<'_> {
    fn keep(mut self) {
        for (limiter, _) in self.0.drain(..) {
            limiter.counted.ok.inc();
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(limiter, taken)| limiter.give_back(taken));
    }
}

async fn ask(caller: &Rc<Caller>, global: &GlobalRateLimit, message: &[u8]) -> Result<Verdict, String> {
    let GlobalRateLimit { service, port, timeout, .. } = global;
    let room = caller.worker.asking.begin(caller.source(), 0);
    let _room =
        room.map_err(|full| format!("as much is being asked already as a data thread may ask at once: {full}"))?;
    let to = To { service, port: *port, deadline: Instant::now() + *timeout };
    let request = call::grpc(&to, service::PATH, message).map_err(|error| format!("it cannot be asked: {error}"))?;
    let message = call::send(caller, &to, request).await?.message()?;
    service::answer(message)
        .ok_or_else(|| "its answer is no RateLimitResponse, or says neither OK nor OVER_LIMIT".into())
}

/// Nobody has said whether it is over the limit.
fn unanswered(limiter: &Limiter, global: &GlobalRateLimit, why: &str, report: &mut Report) -> Result<(), Refused> {
    limiter.counted.error.inc();
    let limit = &limiter.limit;
    if !global.deny_on_failure {
        tracing::debug!(%limit, why, "failureMode Allow: a request passes that nobody has counted");
        return Ok(());
    }
    report.limited(&limit.policy);
    let GlobalRateLimit { service, port, .. } = global;
    let why = format!(
        "{limit}: the rate limit service {service}, port {port}, has not answered: {why}. Look whether it runs, and whether its \
         policies let this waypoint in"
    );
    Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, ReasonCode::RateLimiterFailed, why))
}

fn over(
    limiter: &Limiter,
    report: &mut Report,
    again: Option<Duration>,
    mut headers: HeaderMap,
    body: Bytes,
) -> Refused {
    limiter.counted.over.inc();
    let limit = &limiter.limit;
    report.limited(&limit.policy);
    headers.insert(ENVOY_RATELIMITED, HeaderValue::from_static("true"));
    if let Some(again) = again {
        // Whole seconds (RFC 9110 10.2.3), and not too few.
        let seconds = again.as_secs() + u64::from(again.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, seconds.max(1).into());
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
    let body = if body.is_empty() { format!("{}\n", ReasonCode::RateLimited).into() } else { body };
    let why = match &limit.kind {
        Kind::Local(local) => format!("over {limit}: {local}"),
        Kind::Global(global) => format!("over {limit}, says {}", global.service),
    };
    Refused::new(StatusCode::TOO_MANY_REQUESTS, ReasonCode::RateLimited, why).with(headers, body)
}
