//! Headers that do not pass, and those by which the waypoint tells the application who calls.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_model::identity::SpiffeId;

/// Envoy's name for who called, in whose name (`By` is who passes it on).
const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// They are of one connection only (RFC 9110 7.6.1), whether `Connection` names them or not.
const OF_A_CONNECTION: [HeaderName; 5] = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE];

/// Takes away what is of one connection only; gives the protocols that an `Upgrade` asked for, or agreed to.
pub(crate) fn end_to_end(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    // Without being named by `Connection` it asks for nothing.
    let upgrade = named.contains(&UPGRADE).then(|| headers.get(UPGRADE).cloned()).flatten();
    // `TE: trailers` is what gRPC asks of everybody on the way.
    let trailers = headers.get_all(TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers")))
    });
    for name in named.iter().filter(|name| !is_needed(name)).chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// The body is in chunks and in no other coding besides (RFC 9112, 6.1): of another one the next hop is not told, because it is of a
/// connection only, and would take the coded bytes for what was sent.
pub(crate) fn has_no_other_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// A caller cannot take away what the message does not work without, or what says who it is.
fn is_needed(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
    [HOST, CONTENT_LENGTH, CONTENT_TYPE, AUTHORIZATION, COOKIE, TRAILER].contains(name)
        || [XFCC, FORWARDED_FOR, FORWARDED_PROTO].contains(name)
}

/// Says who calls, as the tunnel has proven it, in the place of whatever the caller says of itself.
pub(crate) fn told_of(headers: &mut HeaderMap, caller: &SpiffeId, from: IpAddr, us: &SpiffeId) {
    let mut text = String::with_capacity(160);
    // Writing to a String cannot fail.
    let _ = write!(text, "By={us};URI={caller}");
    match HeaderValue::from_str(&text) {
        Ok(value) => headers.insert(XFCC, value),
        Err(_) => headers.remove(XFCC),
    };
    text.clear();
    let _ = write!(text, "{from}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_is_of_one_connection_ends_there() {
        let mut headers = map(&[
            ("host", "cart"),
            ("connection", "keep-alive, X-Secret"),
            ("connection", "upgrade, host, x-forwarded-client-cert"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, Trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-secret", "for this hop"),
            ("x-forwarded-client-cert", "By=somebody"),
            ("x-other", "stays"),
        ]);
        assert_eq!(end_to_end(&mut headers).unwrap(), "websocket");
        let left = map(&[
            ("host", "cart"),
            ("te", "trailers"),
            ("x-forwarded-client-cert", "By=somebody"),
            ("x-other", "stays"),
        ]);
        assert_eq!(headers, left);
    }

    #[test]
    fn an_upgrade_that_connection_does_not_name_asks_for_nothing() {
        let mut headers = map(&[("upgrade", "websocket")]);
        assert_eq!(end_to_end(&mut headers), None);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_a_caller_says_of_itself_is_not_believed() {
        let mut headers = map(&[
            ("x-forwarded-client-cert", "By=spiffe://td/ns/a/sa/a;URI=spiffe://td/ns/admin/sa/admin"),
            ("x-forwarded-client-cert", "URI=spiffe://td/ns/root/sa/root"),
            ("x-forwarded-for", "10.9.9.9"),
            ("x-forwarded-for", "10.9.9.8"),
            ("x-forwarded-proto", "https"),
        ]);
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let (caller, us) = (id("spiffe://td/ns/shop/sa/web"), id("spiffe://td/ns/shop/sa/waypoint"));
        told_of(&mut headers, &caller, "10.0.0.7".parse().unwrap(), &us);
        let expected = map(&[
            ("x-forwarded-client-cert", "By=spiffe://td/ns/shop/sa/waypoint;URI=spiffe://td/ns/shop/sa/web"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(headers, expected);
    }
}
