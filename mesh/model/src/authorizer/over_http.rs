//! An HTTP check: the headers it has, and what its answer means. Pure.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use prost::bytes::Bytes;

use super::HttpCheck;
use super::verdict::{CLIENT_CERT, Changes, Edit, Verdict, may_change};
use crate::policy::strings::StringMatch;

/// The headers of the check of a request with these. Without a body its length is 0.
pub fn headers(check: &HttpCheck, of: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in of {
        // Who called is the waypoint's word, not the caller's.
        let may_see = may_change(name) || *name == CLIENT_CERT;
        if may_see && (*name == AUTHORIZATION || is_one_of(&check.request_headers, name)) {
            headers.append(name, value.clone());
        }
    }
    // Added last: a caller cannot say them itself.
    for (name, value) in &check.additional_headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.remove(CONTENT_LENGTH);
    headers
}

/// Where it is asked. None when the prefix makes no path of it.
pub fn target(check: &HttpCheck, of: &PathAndQuery) -> Option<PathAndQuery> {
    if check.path_prefix.is_empty() {
        return Some(of.clone());
    }
    format!("{}{of}", check.path_prefix.trim_end_matches('/')).parse().ok()
}

/// What an answer means: 200 lets pass, 5xx is none, everything else refuses.
pub fn answer(check: &HttpCheck, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Option<Verdict> {
    if status.is_server_error() {
        return None;
    }
    if status == StatusCode::OK {
        return Some(Verdict::Pass(Changes {
            request: set(headers, |name| is_one_of(&check.upstream_on_allow, name)),
            answer: set(headers, |name| is_one_of(&check.downstream_on_allow, name)),
        }));
    }
    // Without a list everything is passed on, as Envoy has it; with one, what a refusal does not work without comes besides.
    let needed = |name: &HeaderName| [WWW_AUTHENTICATE, LOCATION, SET_COOKIE].contains(name);
    let all = check.downstream_on_deny.is_empty();
    let mut told = HeaderMap::new();
    for (name, value) in headers {
        if may_change(name) && (all || needed(name) || is_one_of(&check.downstream_on_deny, name)) {
            told.append(name, value.clone());
        }
    }
    Some(Verdict::Refuse { status, headers: told, body })
}

/// The first line of a name takes the place of what there is; more of them stand beside it.
fn set(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> Vec<Edit> {
    let names = headers.keys().filter(|name| may_change(name) && wanted(name));
    let of = |name: &HeaderName| {
        let name = name.clone();
        headers
            .get_all(&name)
            .iter()
            .enumerate()
            .map(move |(place, value)| match place {
                0 => Edit::Set(name.clone(), value.clone()),
                _ => Edit::Add(name.clone(), value.clone()),
            })
            .collect::<Vec<_>>()
    };
    names.flat_map(of).collect()
}

fn is_one_of(patterns: &[StringMatch], name: &HeaderName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name.as_str()))
}
