//! The canonical form of a request: the one that policies judge, routes match and endpoints get.
//!
//! `//`, `%2F` and `%5C` mean different things to different servers. Where a policy of the service, or of one to which its routes send,
//! speaks of paths, none of them may go around it: slashes are merged, and encoded ones refused. Elsewhere they are the application's, as in Istio.

use http::request::Parts;
use http::uri::{self, PathAndQuery, Scheme};
use http::{StatusCode, Uri};
use mesh_model::http::{Received, Request, Rules, canonical};
use mesh_model::reason::ReasonCode;

use super::answer::Refused;

/// The form of a request. `speaks_of_paths` says whether a policy that may judge it does.
///
/// # Errors
/// When it could be read in more than one way.
pub(super) fn of(head: &Parts, speaks_of_paths: impl FnOnce() -> bool) -> Result<Request, Refused> {
    let extended = head.extensions.get::<hyper::ext::Protocol>().is_some();
    let received = Received::of_uri(head.version, &head.method, &head.uri, &head.headers, extended);
    let strict = is_odd(head.uri.path()) && speaks_of_paths();
    let rules = Rules { merge_slashes: strict, keep_encoded_slashes: !strict };
    canonical(&received, rules).map_err(|refusal| Refused::new(StatusCode::BAD_REQUEST, refusal.reason(), refusal))
}

/// It has what servers read differently: most paths have nothing of it.
fn is_odd(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.windows(2).any(|two| two == b"//")
        || bytes.windows(3).any(|three| three[0] == b'%' && matches!(&three[1..], b"2f" | b"2F" | b"5c" | b"5C"))
}

/// Writes it back: what is passed on is what was judged, to `target` and `authority`, which are its own or those of a route.
pub(super) fn write(form: &Request, target: PathAndQuery, authority: &str, head: &mut Parts) -> Result<(), Refused> {
    let bad = |what: &str| Refused::new(StatusCode::BAD_REQUEST, ReasonCode::BadRequest, what);
    head.method = form.method.clone();
    let mut parts = uri::Parts::default();
    parts.path_and_query = Some(target);
    if !authority.is_empty() {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.try_into().map_err(|_| bad("its host is none"))?);
    }
    head.uri = Uri::from_parts(parts).map_err(|_| bad("its path is none"))?;
    Ok(())
}
