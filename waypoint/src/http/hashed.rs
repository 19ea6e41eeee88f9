//! What a consistent hash takes of a request, and the cookie that is given to who has none.

use std::net::IpAddr;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use mesh_model::balance::hash::hash;
use mesh_model::traffic::{Cookie, HashBy};

use crate::upstream::hash_of_address;

/// What a request is hashed by: the same in all its tries.
#[derive(Default)]
pub(super) struct Hashed {
    given: Option<(Cookie, String)>,
}

impl Hashed {
    /// The hash of a request of the caller at `from`; `None` if it does not have what is hashed.
    pub(super) fn of<B>(&mut self, by: &HashBy, request: &Request<B>, from: IpAddr) -> Option<u64> {
        match by {
            HashBy::Header(name) => Some(hash(0, request.headers().get(&**name)?.as_bytes())),
            HashBy::SourceIp => Some(hash_of_address(from)),
            HashBy::Query(name) => Some(hash(0, parameter(request.uri(), name)?.as_bytes())),
            HashBy::Cookie(cookie) => match value_of(request.headers(), &cookie.name) {
                Some(value) => Some(hash(0, value)),
                None => self.give(cookie),
            },
        }
    }

    fn give(&mut self, cookie: &Cookie) -> Option<u64> {
        cookie.ttl?;
        let (_, value) = self.given.get_or_insert_with(|| (cookie.clone(), format!("{:016x}", rand::random::<u64>())));
        Some(hash(0, value.as_bytes()))
    }

    /// Gives the cookie to the caller, if one was made.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        let Some((cookie, value)) = self.given else { return };
        let mut line = format!("{}={value}", cookie.name);
        // Zero: until the client ends.
        if let Some(ttl) = cookie.ttl.filter(|ttl| !ttl.is_zero()) {
            line += &format!("; Max-Age={}", ttl.as_secs().max(1));
        }
        if let Some(path) = &cookie.path {
            line += &format!("; Path={path}");
        }
        line += "; HttpOnly";
        // Names and paths that no header can have were refused when the rule was read.
        if let Ok(line) = HeaderValue::from_str(&line) {
            headers.append(SET_COOKIE, line);
        }
    }
}

/// The first parameter of that name.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The first cookie of that name.
fn value_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let all = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = all.filter_map(|one| one.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")).next()?;
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(by: &HashBy, lines: &[(&'static str, &str)], uri: &str) -> Option<u64> {
        let request = lines.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        Hashed::default().of(by, &request.body(()).unwrap(), [10, 0, 0, 1].into())
    }

    #[test]
    fn what_is_hashed() {
        let alice = Some(hash(0, b"alice"));
        let header = HashBy::Header("x-user".into());
        let query = HashBy::Query("user".into());
        let cookie = HashBy::Cookie(Cookie { name: "user".into(), path: None, ttl: None });
        for (what, by, lines, uri, expected) in [
            ("a header", &header, &[("x-user", "alice")][..], "/", alice),
            ("none of that name", &header, &[("x-other", "alice")], "/", None),
            ("a parameter", &query, &[], "/?a=b&user=alice&user=bob", alice),
            ("another's end", &query, &[], "/?superuser=alice", None),
            ("no query", &query, &[], "/", None),
            ("a cookie", &cookie, &[("cookie", "a=b; user=alice; c=d")], "/", alice),
            ("in quotes", &cookie, &[("cookie", "user=\"alice\"")], "/", alice),
            ("in a second line", &cookie, &[("cookie", "a=b"), ("cookie", "user=alice")], "/", alice),
            ("one that begins so", &cookie, &[("cookie", "users=alice")], "/", None),
            ("no cookie", &cookie, &[], "/", None),
            ("the caller", &HashBy::SourceIp, &[], "/", Some(hash(0, &[10, 0, 0, 1]))),
        ] {
            assert_eq!(of(by, lines, uri), expected, "{what}");
        }
    }

    #[test]
    fn who_has_no_cookie_is_given_one() {
        let second = Duration::from_secs(1);
        for (path, ttl, ends) in [
            (None, Duration::ZERO, "; HttpOnly"),
            (Some("/"), 90 * second, "; Max-Age=90; Path=/; HttpOnly"),
            (None, second / 2, "; Max-Age=1; HttpOnly"),
        ] {
            let cookie = Cookie { name: "user".into(), path: path.map(Into::into), ttl: Some(ttl) };
            let by = HashBy::Cookie(cookie);
            let (request, from) = (Request::get("/").body(()).unwrap(), IpAddr::from([10, 0, 0, 1]));
            let mut hashed = Hashed::default();
            let first = hashed.of(&by, &request, from).unwrap();
            assert_eq!(hashed.of(&by, &request, from), Some(first), "another try of it");
            let mut headers = HeaderMap::new();
            hashed.tell(&mut headers);
            let line = headers[SET_COOKIE].to_str().unwrap();
            let value = line.strip_prefix("user=").and_then(|line| line.strip_suffix(ends)).unwrap();
            assert_eq!(
                of(&by, &[("cookie", &format!("user={value}"))], "/"),
                Some(first),
                "it names the same endpoint"
            );
        }
    }
}
