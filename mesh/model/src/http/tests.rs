//! What a request is read as, or why it is refused. The rows that name a CVE are those of Envoy's security releases of 2026.

use http::header::{HOST, HeaderMap, HeaderValue};

use super::*;
use crate::reason::ReasonCode;
use HostFault as H;
use PathFault as P;

fn headers(hosts: &[&str]) -> HeaderMap {
    hosts.iter().map(|host| (HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap())).collect()
}

/// Over HTTP/1.1.
fn http1(target: &str, hosts: &[&str], rules: Rules) -> Result<Request, Refusal> {
    of(Version::HTTP_11, Method::GET, target, hosts, rules)
}

fn of(version: Version, method: Method, target: &str, hosts: &[&str], rules: Rules) -> Result<Request, Refusal> {
    let headers = headers(hosts);
    canonical(&Received::of_target(version, &method, target.as_bytes(), &headers), rules)
}

/// Over HTTP/2.
fn http2(authority: Option<&str>, path: &str, hosts: &[&str], rules: Rules) -> Result<Request, Refusal> {
    let headers = headers(hosts);
    let received = Received {
        version: Version::HTTP_2,
        method: &Method::GET,
        scheme: Some("http"),
        authority: authority.map(str::as_bytes),
        target: Target::Bytes(path.as_bytes()),
        extended_connect: false,
        headers: &headers,
    };
    canonical(&received, rules)
}

/// The same over both versions, and its own canonical form, whatever is to choose.
fn path_of(path: &str, rules: Rules) -> Result<String, PathFault> {
    let one = http1(path, &["a"], rules);
    assert_eq!(one, http2(Some("a"), path, &[], rules), "{path}");
    match one {
        Ok(request) => {
            let again = http1(request.target.as_str(), &[&request.authority()], rules);
            assert_eq!(again.as_ref(), Ok(&request), "{path}");
            Ok(request.target.to_string())
        }
        Err(Refusal::Path(fault)) => Err(fault),
        Err(other) => panic!("{path}: {other}"),
    }
}

#[test]
fn paths() {
    for (path, expected) in [
        ("/", Ok("/")),
        ("/a/b", Ok("/a/b")),
        ("/a/b/", Ok("/a/b/")),
        ("/a?b=/../c%2f//", Ok("/a?b=/../c%2f//")),
        ("/?", Ok("/?")),
        ("/a:b@c!$&'()*+,=~_-.", Ok("/a:b@c!$&'()*+,=~_-.")),
        ("/a\"{b}|^", Ok("/a\"{b}|^")),
        // Escapes.
        ("/%61%2D%2e%5F%7e%41%39", Ok("/a-._~A9")),
        ("/caf%c3%a9/%e2%82%ac", Ok("/caf%C3%A9/%E2%82%AC")),
        ("/%e9", Ok("/%E9")),
        ("/a%20b%3fc%23d%3b", Ok("/a%20b%3Fc%23d%3B")),
        ("/%252e%252e/%2561", Ok("/%252e%252e/%2561")),
        ("/a%", Err(P::Escape)),
        ("/a%2", Err(P::Escape)),
        ("/a%zz", Err(P::Escape)),
        ("/a%+1", Err(P::Escape)),
        ("/a%c0%af", Err(P::Overlong)),
        ("/%c0%ae%c0%ae/admin", Err(P::Overlong)),
        ("/%e0%80%af", Err(P::Overlong)),
        ("/%f0%80%80%af", Err(P::Overlong)),
        ("/a%2fb", Err(P::EncodedSlash)),
        ("/a%2Fb", Err(P::EncodedSlash)),
        ("/a%5Cb", Err(P::EncodedSlash)),
        ("/public/..%2fadmin", Err(P::EncodedSlash)),
        ("/a%00", Err(P::Control)),
        ("/a%0d%0aHost:b", Err(P::Control)),
        ("/a%7f", Err(P::Control)),
        // Dot segments.
        ("/public/../admin", Ok("/admin")),
        ("/public/%2e%2e/admin", Ok("/admin")),
        ("/public/.%2E/admin", Ok("/admin")),
        ("/../../admin", Ok("/admin")),
        ("/a/./b/.", Ok("/a/b/")),
        ("/a/b/..", Ok("/a/")),
        ("/..", Ok("/")),
        ("/.", Ok("/")),
        ("/a/...", Ok("/a/...")),
        ("/.well-known/x", Ok("/.well-known/x")),
        ("/..a/.b", Ok("/..a/.b")),
        // Slashes.
        ("//admin", Ok("/admin")),
        ("/a///b//", Ok("/a/b/")),
        ("/a//../b", Ok("/b")),
        ("//", Ok("/")),
        // Path parameters (CVE-2026-73511, -73551).
        ("/admin;x=1/users", Ok("/admin;x=1/users")),
        ("/public/..;/admin", Err(P::DotParameter)),
        ("/public/.;/admin", Err(P::DotParameter)),
        ("/public/..;a=b/admin", Err(P::DotParameter)),
        ("/public/%2e%2e;/admin", Err(P::DotParameter)),
        ("/public/..%3b/admin", Err(P::DotParameter)),
        ("/public/..;", Err(P::DotParameter)),
        ("/;../a", Ok("/;../a")),
        // What is no path.
        ("", Err(P::Form)),
        ("a", Err(P::Form)),
        ("*", Err(P::Form)),
        ("/a#b", Err(P::Fragment)),
        ("/a?b#c", Err(P::Fragment)),
        ("/a\\..\\b", Err(P::Backslash)),
        ("\\a", Err(P::Form)),
        ("/a\0", Err(P::Control)),
        ("/a\tb", Err(P::Control)),
        ("/a\x7f", Err(P::Control)),
        ("/a?b\x01", Err(P::Control)),
        ("/a b", Err(P::Character)),
        ("/a<b>", Err(P::Character)),
        ("/a?b c", Err(P::Character)),
        ("/é", Err(P::NotAscii)),
        ("/a?é", Err(P::NotAscii)),
    ] {
        assert_eq!(path_of(path, Rules::default()).as_deref(), expected.as_ref().copied(), "{path:?}");
    }
}

#[test]
fn slashes_as_istio_has_them_by_default() {
    let rules = Rules { merge_slashes: false, keep_encoded_slashes: true };
    for (path, expected) in [
        ("//a//b//", Ok("//a//b//")),
        ("/a//../b", Ok("/a/b")),
        ("/a/..//b", Ok("//b")),
        ("/group%2fproject/%5c", Ok("/group%2Fproject/%5C")),
        ("/https%3A%2F%2fexample.com%2F", Ok("/https%3A%2F%2Fexample.com%2F")),
        ("/a%2f...%2fb", Ok("/a%2F...%2Fb")),
        ("/public/..%2fadmin", Err(P::EncodedSlash)),
        ("/public%2f../admin", Err(P::EncodedSlash)),
        ("/public%2f%2e%2e%5cadmin", Err(P::EncodedSlash)),
        ("/public%2f.%2fadmin", Err(P::EncodedSlash)),
        ("/a%2f..;b", Err(P::DotParameter)),
    ] {
        assert_eq!(path_of(path, rules).as_deref(), expected.as_ref().copied(), "{path:?}");
    }
}

#[test]
fn hosts() {
    let long = "a".repeat(256);
    for (text, expected) in [
        ("example.com", Ok("example.com")),
        ("EXAMPLE.Com:8080", Ok("example.com:8080")),
        ("example.com.", Ok("example.com")),
        ("example.com.:80", Ok("example.com:80")),
        ("example.com:", Ok("example.com")),
        ("example.com:0080", Ok("example.com:80")),
        ("my_service", Ok("my_service")),
        ("10.0.0.1:1", Ok("10.0.0.1:1")),
        ("[FD00::0001]:443", Ok("[fd00::1]:443")),
        ("[::ffff:10.0.0.1]", Ok("[::ffff:10.0.0.1]")),
        ("", Err(H::Missing)),
        (".", Err(H::Missing)),
        (":80", Err(H::Missing)),
        ("user@example.com", Err(H::UserInfo)),
        ("user:secret@example.com:80", Err(H::UserInfo)),
        ("a..b", Err(H::EmptyLabel)),
        (".a", Err(H::EmptyLabel)),
        ("a..", Err(H::EmptyLabel)),
        ("a b", Err(H::Character)),
        ("a,b", Err(H::Character)),
        ("a/b", Err(H::Character)),
        ("a%2eb", Err(H::Character)),
        ("a\tb", Err(H::Character)),
        ("exämple", Err(H::Character)),
        ("a:0", Err(H::Port)),
        ("a:65536", Err(H::Port)),
        ("a:+80", Err(H::Port)),
        ("a:80:80", Err(H::Port)),
        ("a:000080", Err(H::Port)),
        ("[fd00::1", Err(H::Ipv6)),
        ("[fd00::1]80", Err(H::Ipv6)),
        ("[fe80::1%25eth0]", Err(H::Ipv6)),
        ("[10.0.0.1]", Err(H::Ipv6)),
        ("fd00::1", Err(H::Port)),
        // CVE-2026-73550.
        (&long, Err(H::Long)),
    ] {
        let expected = expected.map(str::to_owned).map_err(Refusal::Host);
        let authority = |request: Result<Request, Refusal>| request.map(|request| request.authority());
        assert_eq!(authority(http1("/", &[text], Rules::default())), expected, "Host: {text:?}");
        assert_eq!(authority(http2(Some(text), "/", &[], Rules::default())), expected, ":authority {text:?}");
        if let Ok(canonical) = &expected {
            assert_eq!(authority(http1("/", &[canonical], Rules::default())), expected, "again: {canonical:?}");
        }
    }
}

#[test]
fn which_host() {
    let host = |request: Result<Request, Refusal>| match request {
        Ok(request) => Ok(request.authority()),
        Err(Refusal::Host(fault)) => Err(fault),
        Err(other) => panic!("{other}"),
    };
    let old = |target, hosts: &[&str]| host(of(Version::HTTP_10, Method::GET, target, hosts, Rules::default()));
    let one = |target, hosts: &[&str]| host(http1(target, hosts, Rules::default()));
    let two = |authority, hosts: &[&str]| host(http2(authority, "/", hosts, Rules::default()));
    for (name, found, expected) in [
        ("1.1 without", one("/", &[]), Err(H::Missing)),
        ("1.1, two", one("/", &["a", "b"]), Err(H::Several)),
        ("1.1, the same twice", one("/", &["a", "a"]), Err(H::Several)),
        ("1.1, absolute", one("http://a/", &["A:80"]), Ok("a")),
        ("1.1, absolute, its port", one("http://a:81/", &["a:81"]), Ok("a:81")),
        ("1.1, absolute, another host", one("http://a/", &["b"]), Err(H::Different)),
        ("1.1, absolute, another port", one("http://a/", &["a:81"]), Err(H::Different)),
        ("1.1, absolute, the other scheme's port", one("https://a/", &["a:80"]), Err(H::Different)),
        ("1.1, absolute, without Host", one("http://a/", &[]), Err(H::Missing)),
        ("1.1, absolute, user", one("http://u@a/", &["a"]), Err(H::UserInfo)),
        ("1.1, absolute, no host", one("http:///", &[""]), Err(H::Missing)),
        ("1.1, another scheme", one("ftp://a/", &["a"]), Err(H::Scheme)),
        ("1.0 without", old("/", &[]), Ok("")),
        ("1.0, empty", old("/", &[""]), Ok("")),
        ("1.0, a port alone", old("/", &[":80"]), Err(H::Missing)),
        ("1.0, absolute", old("http://a/", &[]), Ok("a")),
        ("1.0, absolute, no host", old("http:///", &[]), Err(H::Missing)),
        ("1.0, two", old("/", &["a", "b"]), Err(H::Several)),
        ("2 without", two(None, &[]), Err(H::Missing)),
        ("2, Host alone", two(None, &["a"]), Ok("a")),
        ("2, both", two(Some("a:80"), &["a"]), Ok("a:80")),
        ("2, another Host", two(Some("a"), &["b"]), Err(H::Different)),
        ("2, two", two(Some("a"), &["a", "a"]), Err(H::Several)),
    ] {
        assert_eq!(found.as_deref(), expected.as_ref().map(|host: &&str| *host), "{name}");
    }
}

#[test]
fn forms_and_methods() {
    let rules = Rules::default();
    let target = |target, method| of(Version::HTTP_11, method, target, &["a"], rules).map(|r| r.target.to_string());
    let lower = Method::from_bytes(b"get").unwrap();
    let own = Method::from_bytes(b"PURGE").unwrap();
    for (name, found, expected) in [
        ("absolute", target("http://a/x?y", Method::GET), Ok("/x?y")),
        ("absolute, in capitals", target("HTTP://a/x", Method::GET), Ok("/x")),
        ("absolute without path", target("http://a", Method::GET), Ok("/")),
        ("absolute with a query alone", target("http://a?b=//", Method::GET), Ok("/?b=//")),
        ("absolute with a fragment", target("http://a#b", Method::GET), Err(Refusal::Path(P::Form))),
        ("absolute, dots", target("http://a/b/../../c", Method::GET), Ok("/c")),
        ("a query with a URL", target("/x?u=http://b/", Method::GET), Ok("/x?u=http://b/")),
        ("a path with a URL", target("/x/http://b/", Method::GET), Ok("/x/http:/b/")),
        ("asterisk", target("*", Method::OPTIONS), Ok("*")),
        ("asterisk of GET", target("*", Method::GET), Err(Refusal::Path(P::Form))),
        ("asterisk with a query", target("*?a", Method::OPTIONS), Err(Refusal::Path(P::Form))),
        ("a method of one's own", target("/", own), Ok("/")),
        ("lower case", target("/", lower), Err(Refusal::Method(MethodFault::LowerCase))),
        // CVE-2026-73547.
        ("CONNECT", target("a:80", Method::CONNECT), Err(Refusal::Method(MethodFault::Connect))),
        ("CONNECT with a path", target("/", Method::CONNECT), Err(Refusal::Method(MethodFault::Connect))),
    ] {
        assert_eq!(found.as_deref(), expected.as_ref().map(|target: &&str| *target), "{name}");
    }
}

/// A WebSocket is judged as the same request, however it is asked for.
#[test]
fn an_extended_connect_is_a_get() {
    let none = HeaderMap::new();
    let uri: Uri = "http://a/chat".parse().unwrap();
    let received = Received::of_uri(Version::HTTP_2, &Method::CONNECT, &uri, &none, true);
    assert_eq!(canonical(&received, Rules::default()), http1("/chat", &["a"], Rules::default()));
}

#[test]
fn what_is_canonical_is_not_copied() {
    let none = HeaderMap::new();
    for (text, copied) in [("http://a/b/c?d", false), ("http://a/b//c", true), ("http://a/%2D", true)] {
        let uri: Uri = text.parse().unwrap();
        let received = Received::of_uri(Version::HTTP_2, &Method::GET, &uri, &none, false);
        let request = canonical(&received, Rules::default()).unwrap();
        let same = std::ptr::eq(request.target.as_str(), uri.path_and_query().unwrap().as_str());
        assert_eq!(same, !copied, "{text}");
    }
    let uri: Uri = "http://a?b".parse().unwrap();
    let host = headers(&["a"]);
    let received = Received::of_uri(Version::HTTP_11, &Method::GET, &uri, &host, false);
    assert_eq!(canonical(&received, Rules::default()).unwrap().target.as_str(), "/?b");
}

#[test]
fn long_targets_are_refused() {
    let of = |length: usize| path_of(&format!("/{}", "a".repeat(length - 1)), Rules::default()).map(|path| path.len());
    assert_eq!((of(65_534), of(70_000)), (Ok(65_534), Err(P::Form)));
}

#[test]
fn refusals_have_their_reason() {
    for (refusal, reason, text) in [
        (Refusal::Path(P::Backslash), ReasonCode::AmbiguousPath, "path: it has a backslash"),
        (Refusal::Host(H::Missing), ReasonCode::AmbiguousHost, "host: there is none"),
        (Refusal::Method(MethodFault::LowerCase), ReasonCode::MethodNotServed, "method: it has lower-case letters"),
    ] {
        assert_eq!((refusal.reason(), refusal.to_string()), (reason, text.to_owned()));
    }
}
