//! Checks of one rule.

use std::time::Duration;

use super::super::destination_rule::parse_duration;
use super::super::field::FieldPath;
use super::super::host;
use super::check_part::{Checked, at_most, destination, http_match, percent, refuse};
use super::{
    Abort, CorsPolicy, Delay, DerivePort, Fault, HeaderOperations, Headers, HttpRule, Redirect, Retries, Rewrite,
};

/// Longest that a request is made to wait on purpose: it holds memory meanwhile.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// Most that a request is tried again.
const MOST_ATTEMPTS: u32 = 100;

pub(super) fn rule(one: &HttpRule, path: &FieldPath) -> Checked {
    let at = path.field("match");
    at_most(one.matches.len(), &at)?;
    one.matches.iter().enumerate().try_for_each(|(i, one)| http_match(one, &at.index(i)))?;
    refuse(one.direct_response.is_some(), path.field("directResponse"), "not followed: let a Service answer")?;
    refuse(one.delegate.is_some(), path.field("delegate"), "not followed: write the rules in this object")?;
    actions(one, path)?;
    if let Some(rewrite) = &one.rewrite {
        self::rewrite(rewrite, &path.field("rewrite"))?;
    }
    length(one.timeout.as_deref(), false, &path.field("timeout"))?;
    if let Some(retries) = &one.retries {
        self::retries(retries, &path.field("retries"))?;
    }
    if let Some(fault) = &one.fault {
        self::fault(fault, &path.field("fault"))?;
    }
    if let Some(to) = &one.mirror {
        destination(to, &path.field("mirror"))?;
    }
    at_most(one.mirrors.len(), &path.field("mirrors"))?;
    for (i, mirror) in one.mirrors.iter().enumerate() {
        let at = path.field("mirrors").index(i);
        destination(&mirror.destination, &at.field("destination"))?;
        percent(mirror.percentage, None, &at, ("percentage", ""))?;
    }
    percent(one.mirror_percentage, one.mirror_percent, path, ("mirrorPercentage", "mirrorPercent"))?;
    if let Some(policy) = &one.cors_policy {
        cors(policy, &path.field("corsPolicy"))?;
    }
    headers(one.headers.as_ref(), &path.field("headers"))
}

/// A redirect, or somewhere to send requests.
fn actions(one: &HttpRule, path: &FieldPath) -> Checked {
    let (at, to) = (path.field("route"), path.field("redirect"));
    if let Some(redirect) = &one.redirect {
        refuse(!one.route.is_empty(), at, "route and redirect exclude each other: write one of them")?;
        refuse(one.rewrite.is_some(), path.field("rewrite"), "a redirect says the new path by itself: leave it out")?;
        refuse(one.fault.is_some(), path.field("fault"), "not followed with a redirect: leave it out")?;
        return self::redirect(redirect, &to);
    }
    if one.route.is_empty() {
        return Err(at.error("missing: write where requests go, or a redirect"));
    }
    at_most(one.route.len(), &at)?;
    for (i, route) in one.route.iter().enumerate() {
        let at = at.index(i);
        destination(&route.destination, &at.field("destination"))?;
        refuse(route.weight.is_some_and(|weight| weight > 1_000_000), at.field("weight"), "write at most 1000000")?;
        headers(route.headers.as_ref(), &at.field("headers"))?;
    }
    let nothing = one.route.len() > 1 && one.route.iter().all(|route| route.weight.unwrap_or_default() == 0);
    refuse(nothing, at, "the weights come to 0: give at least one destination a weight")
}

fn redirect(redirect: &Redirect, path: &FieldPath) -> Checked {
    let code = redirect.redirect_code.filter(|code| ![301, 302, 303, 307, 308].contains(code));
    refuse(code.is_some(), path.field("redirectCode"), "write 301, 302, 303, 307 or 308")?;
    let scheme = redirect.scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme));
    refuse(scheme.is_some(), path.field("scheme"), "write http or https")?;
    let why = "port and derivePort exclude each other: write one of them";
    refuse(redirect.port.is_some() && redirect.derive_port.is_some(), path.field("derivePort"), why)?;
    if let Some(port) = redirect.port {
        host::port(port, &path.field("port"))?;
    }
    if let Some(authority) = &redirect.authority {
        host::full_name(authority, &path.field("authority"))?;
    }
    uri(redirect.uri.as_deref(), &path.field("uri"))?;
    let nothing = *redirect == Redirect { redirect_code: redirect.redirect_code, ..Redirect::default() };
    let port = redirect.derive_port == Some(DerivePort::FromRequestPort) && redirect.uri.is_none();
    refuse(
        nothing || port && redirect.authority.is_none(),
        path.clone(),
        "it would lead to where the request is: write uri or authority",
    )
}

fn rewrite(rewrite: &Rewrite, path: &FieldPath) -> Checked {
    let why = "not followed: match the beginning of the path (prefix), and write uri";
    refuse(rewrite.uri_regex_rewrite.is_some(), path.field("uriRegexRewrite"), why)?;
    refuse(*rewrite == Rewrite::default(), path.clone(), "empty: write uri or authority, or leave it out")?;
    if let Some(authority) = &rewrite.authority {
        host::full_name(authority, &path.field("authority"))?;
    }
    uri(rewrite.uri.as_deref(), &path.field("uri"))
}

fn uri(uri: Option<&str>, path: &FieldPath) -> Checked {
    let bad = uri.filter(|uri| {
        !uri.starts_with('/') || uri.contains(['?', '#', '%']) || uri.bytes().any(|b| !(0x21..0x7f).contains(&b))
    });
    refuse(
        bad.is_some(),
        path.clone(),
        "no path: write \"/\" and what follows, without a query, without what has to be escaped",
    )
}

/// What is asked for again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RetryOn {
    /// Statuses of answers.
    pub(crate) codes: Vec<u16>,
    /// Statuses of gRPC.
    pub(crate) grpc_codes: Vec<u8>,
}

/// What Istio asks for again where nothing is said.
const DEFAULT: &str = "connect-failure,refused-stream,unavailable,cancelled,503";

/// Reads `retryOn`.
///
/// # Errors
/// The first word that is not followed.
pub(crate) fn retry_on(written: Option<&str>) -> Result<RetryOn, String> {
    let mut on = RetryOn::default();
    for word in written.filter(|words| !words.is_empty()).unwrap_or(DEFAULT).split(',') {
        match word.trim() {
            "5xx" => on.codes.extend(500..600),
            "gateway-error" => on.codes.extend([502, 503, 504]),
            "retriable-4xx" => on.codes.push(409),
            // Another endpoint is asked in any case, where nothing was sent or a request may be sent twice.
            "connect-failure" | "refused-stream" | "reset" | "reset-before-request" | "retriable-status-codes" | "" => {
            }
            "cancelled" => on.grpc_codes.push(1),
            "deadline-exceeded" => on.grpc_codes.push(4),
            "internal" => on.grpc_codes.push(13),
            "resource-exhausted" => on.grpc_codes.push(8),
            "unavailable" => on.grpc_codes.push(14),
            word => match word.parse() {
                Ok(code @ 400..=599) => on.codes.push(code),
                _ => return Err(word.to_owned()),
            },
        }
    }
    on.codes.sort_unstable();
    on.codes.dedup();
    Ok(on)
}

fn retries(retries: &Retries, path: &FieldPath) -> Checked {
    let why = "too many: write at most 100";
    refuse(retries.attempts.is_some_and(|attempts| attempts > MOST_ATTEMPTS), path.field("attempts"), why)?;
    let off = retries.attempts.unwrap_or(0) == 0;
    let why = "nothing is tried again without attempts: write how many, or leave it out";
    refuse(off && retries.per_try_timeout.is_some(), path.field("perTryTimeout"), why)?;
    refuse(off && retries.retry_on.is_some(), path.field("retryOn"), why)?;
    length(retries.per_try_timeout.as_deref(), true, &path.field("perTryTimeout"))?;
    length(retries.backoff.as_deref(), true, &path.field("backoff"))?;
    retry_on(retries.retry_on.as_deref()).map(drop).map_err(|word| {
        path.field("retryOn").error(format!(
            "{word:?} is not followed: write 5xx, gateway-error, retriable-4xx, statuses such as 503, connect-failure, reset, \
             refused-stream, cancelled, deadline-exceeded, internal, resource-exhausted or unavailable"
        ))
    })
}

fn fault(fault: &Fault, path: &FieldPath) -> Checked {
    refuse(*fault == Fault::default(), path.clone(), "empty: write delay or abort, or leave it out")?;
    if let Some(delay) = &fault.delay {
        let path = path.field("delay");
        let Delay { fixed_delay, exponential_delay, percentage, percent: old } = delay;
        refuse(exponential_delay.is_some(), path.field("exponentialDelay"), "not followed: write fixedDelay")?;
        let at = path.field("fixedDelay");
        if fixed_delay.is_none() {
            return Err(at.error("missing: write how long requests wait, for example 5s"));
        }
        length(fixed_delay.as_deref(), true, &at)?;
        let long = fixed_delay.as_deref().and_then(parse_duration).is_some_and(|length| length > LONGEST_DELAY);
        refuse(long, at, "too long: write at most 1h")?;
        percent(*percentage, *old, &path, ("percentage", "percent"))?;
    }
    let Some(abort) = &fault.abort else { return Ok(()) };
    let path = path.field("abort");
    let Abort { http_status, grpc_status, http2_error, percentage, percent: old } = abort;
    let why = "not followed: write httpStatus; who speaks gRPC gets the status of gRPC that stands for it";
    refuse(grpc_status.is_some(), path.field("grpcStatus"), why)?;
    refuse(http2_error.is_some(), path.field("http2Error"), "not followed: write httpStatus")?;
    let at = path.field("httpStatus");
    match http_status {
        Some(200..=599) => {}
        Some(status) => return Err(at.error(format!("{status}: write 200 to 599"))),
        None => return Err(at.error("missing: write the status of the answer, for example 503")),
    }
    percent(*percentage, *old, &path, ("percentage", "percent"))
}

fn cors(policy: &CorsPolicy, path: &FieldPath) -> Checked {
    refuse(policy.unmatched_preflights.is_some(), path.field("unmatchedPreflights"), "not followed: leave it out")?;
    for (i, origin) in policy.allow_origins.iter().enumerate() {
        let at = path.field("allowOrigins").index(i);
        let why = "only exact is followed: write each origin, one with \"*\" in its host, or \"*\"";
        refuse(origin.prefix.is_some() || origin.regex.is_some() || origin.exact.is_none(), at, why)?;
    }
    let old = !policy.allow_origin.is_empty() && !policy.allow_origins.is_empty();
    refuse(old, path.field("allowOrigin"), "it says the same as allowOrigins: leave it out")?;
    for (field, names) in [
        ("allowMethods", &policy.allow_methods),
        ("allowHeaders", &policy.allow_headers),
        ("exposeHeaders", &policy.expose_headers),
    ] {
        let path = path.field(field);
        at_most(names.len(), &path)?;
        let bad = names.iter().position(|name| name != "*" && http::HeaderName::from_bytes(name.as_bytes()).is_err());
        bad.map_or(Ok(()), |i| Err(path.index(i).error(format!("{:?} is no name", names[i]))))?;
    }
    length(policy.max_age.as_deref(), false, &path.field("maxAge"))
}

fn headers(headers: Option<&Headers>, path: &FieldPath) -> Checked {
    let Some(headers) = headers else { return Ok(()) };
    for (field, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(HeaderOperations { set, add, remove }) = operations else { continue };
        let path = path.field(field);
        for (field, pairs) in [("set", set), ("add", add)] {
            at_most(pairs.len(), &path.field(field))?;
            for (name, value) in pairs {
                let at = path.field(field).field(name);
                header_name(name, &at)?;
                let why = "a value that no header can have";
                refuse(http::HeaderValue::from_str(value).is_err(), at.clone(), why)?;
                // Envoy would put something of the request there.
                refuse(
                    value.contains('%'),
                    at,
                    "\"%\" stands for what Envoy fills in, which is not followed: write it without",
                )?;
            }
        }
        let at = path.field("remove");
        at_most(remove.len(), &at)?;
        remove.iter().enumerate().try_for_each(|(i, name)| header_name(name, &at.index(i)))?;
    }
    Ok(())
}

fn header_name(name: &str, path: &FieldPath) -> Checked {
    let lower = name.to_ascii_lowercase();
    let of_connection = [
        "connection",
        "content-length",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "proxy-connection",
    ];
    refuse(of_connection.contains(&&*lower), path.clone(), "it is the connection's: no route can edit it")?;
    let is_name = lower == ":authority" || http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    refuse(!is_name, path.clone(), "no header has such a name")
}

fn length(text: Option<&str>, positive: bool, path: &FieldPath) -> Checked {
    let Some(text) = text else { return Ok(()) };
    match parse_duration(text) {
        Some(length) if !positive || length >= Duration::from_millis(1) => Ok(()),
        Some(_) => Err(path.error(format!("{text:?} is too short: write at least 1ms"))),
        None => Err(path.error(format!("{text:?} is no length of time: write for example 250ms, 10s or 5m"))),
    }
}
