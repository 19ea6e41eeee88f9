use http::HeaderValue;

use super::*;

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-user-type", HeaderValue::from_static("dev"));
    headers.append("accept", HeaderValue::from_static("a"));
    headers.append("accept", HeaderValue::from_static("b"));
    headers.insert("user-agent", HeaderValue::from_static("kube-probe/1.36"));
    headers
}

fn request(headers: &HeaderMap) -> SeenRequest<'_> {
    SeenRequest {
        method: "GET",
        path: "/healthz/live?verbose=1",
        host: "web.shop",
        protocol: "HTTP/1.1",
        headers,
        code: Some(503),
        grpc_status: None,
        flags: "UF,DI",
        received: 10,
        sent: 2_000,
        duration: Duration::from_millis(1_500),
    }
}

fn seen<'a>(peer: &'a SpiffeId, request: Option<SeenRequest<'a>>) -> Seen<'a> {
    Seen {
        source: "10.1.0.7:50000".parse().unwrap(),
        destination: "10.96.0.1:80".parse().unwrap(),
        upstream: Some("[fd00::1]:8080".parse().unwrap()),
        peer: Some(peer),
        request,
    }
}

#[test]
fn what_expressions_say_of_a_request() {
    let (peer, headers) = (SpiffeId::new("cluster.local", "shop", "client").unwrap(), headers());
    let seen = seen(&peer, Some(request(&headers)));
    for (text, holds) in [
        // As Istio's users write them.
        ("response.code >= 400", Some(true)),
        ("response.code != 200 || connection.mtls == false", Some(true)),
        ("request.url_path.startsWith('/healthz')", Some(true)),
        ("!request.url_path.startsWith(\"/healthz\")", Some(false)),
        ("has(response.code)", Some(true)),
        ("connection.mtls && request.url_path.contains('v1beta3')", Some(false)),
        ("request.url_path.contains('login') && request.headers['x-user-type'] == 'dev'", Some(false)),
        ("request.headers['X-User-Type'] == 'dev'", Some(true)),
        ("response.code in [500, 503]", Some(true)),
        ("request.method in ['POST', 'PUT']", Some(false)),
        ("request.duration > duration('1s')", Some(true)),
        ("request.duration >= duration('1m1.5s') || request.duration < duration('500ms')", Some(false)),
        ("request.useragent.matches('^kube-probe/1[.][0-9]+$')", Some(true)),
        ("request.useragent.matches('probe')", Some(true)),
        ("response.flags != 0", Some(true)),
        ("response.flags == 544", Some(true)),
        // Each of the others.
        ("request.path == '/healthz/live?verbose=1' && request.url_path == '/healthz/live'", Some(true)),
        ("request.host.endsWith('.shop') && request.scheme == 'http' && request.protocol == 'HTTP/1.1'", Some(true)),
        ("request.size == 10 && response.size > 1999", Some(true)),
        ("source.address == '10.1.0.7:50000' && source.port == 50000", Some(true)),
        ("destination.address.startsWith('10.96.') && destination.port == 80", Some(true)),
        ("upstream.address == '[fd00::1]:8080' && upstream.port == 8080", Some(true)),
        ("connection.uri_san_peer_certificate == 'spiffe://cluster.local/ns/shop/sa/client'", Some(true)),
        // Headers: several values, and none.
        ("request.headers['accept'] == 'a,b'", Some(true)),
        ("request.headers.accept.contains('b')", Some(true)),
        ("request.headers['x-no'] == 'dev'", Some(false)),
        ("request.headers['x-no'] != 'dev'", Some(true)),
        ("'x-no' in request.headers || has(request.headers['x-no'])", Some(false)),
        ("has(request.headers.accept) && 'accept' in request.headers", Some(true)),
        ("has(request.id) || has(request.referer)", Some(false)),
        // What the request does not have, and what settles the matter without it.
        ("response.grpc_status == 14", None),
        ("!(response.grpc_status == 14)", None),
        ("has(response.grpc_status) && response.grpc_status == 14", Some(false)),
        ("response.grpc_status == 14 && response.code == 200", Some(false)),
        ("response.grpc_status == 14 || response.code == 503", Some(true)),
        ("response.grpc_status == 14 || response.code == 200", None),
        // How parts go together.
        ("true || false && false", Some(true)),
        ("(true || false) && false", Some(false)),
        ("!!true == true", Some(true)),
        ("!(false) && -1 < 0 && 'it\\'s' == \"it's\"", Some(true)),
        ("1 in []", Some(false)),
    ] {
        let expression = Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expression.holds(&seen), holds, "{text}");
    }
}

#[test]
fn what_is_not_followed_is_named() {
    let long = format!("{}true", " ".repeat(2_045));
    let deep = format!("{}true{}", "(".repeat(33), ")".repeat(33));
    for (text, error) in [
        ("", "at character 1: a value is missing at the end"),
        ("response.code", "at character 1: this is a number, where true or false is needed"),
        ("true && response.code", "at character 9: this is a number"),
        ("response.code >= '400'", "at character 18: this is a text, and is compared with a number"),
        ("response.code > 1 > 0", "at character 19: \">\" is not followed here: comparisons are joined"),
        ("connection.mtls > false", "at character 1: true and false are compared by == and !="),
        (
            "response.cod >= 400",
            "at character 1: response.cod is no attribute that a waypoint knows: there are request.path,",
        ),
        ("request.time > 1", "at character 1: request.time is no attribute"),
        ("metadata.x == 'a'", "at character 1: metadata.x is no attribute"),
        ("request.headers == 'a'", "at character 17: \"[\" is missing"),
        ("request.headers['a b'] == 'c'", "at character 17: \"a b\" is no name of a header"),
        ("request.path.lowerAscii() == 'a'", "at character 14: lowerAscii is not followed of a text"),
        ("response.code.contains('a')", "at character 15: contains is not followed of a number"),
        ("request.path.matches('(')", "at character 14: the regular expression \"(\""),
        ("request.path.contains(request.host)", "at character 23: a text in quotes is missing"),
        ("size(request.path) > 1", "at character 1: the function size is not followed"),
        ("duration('1 s') > request.duration", "at character 1: \"1 s\" is not a length of time"),
        ("response.code + 1 > 2", "at character 15: \"+\" is not followed here"),
        ("true ? true : false", "at character 6: \"?\" is not followed here"),
        ("response.code in 5", "at character 18: after `in` comes a list"),
        ("response.code in [500, 'a']", "at character 24: the list has a number in each place"),
        ("response.code = 200", "at character 15: '=' is no part of an expression"),
        ("response.code >= 400u", "at character 18: 400u is not a whole number"),
        ("request.path == r'a'", "at character 17: r'…' is not followed"),
        ("request.path == 'a", "at character 17: the text that begins here has no '"),
        ("(true", "at character 6: \")\" is missing"),
        ("true true", "at character 6: here another expression begins"),
        ("has(true)", "at character 5: true is no attribute"),
        (&long, "at character 1: longer than 2048 bytes"),
        (&deep, "at character 34: more than 32 parentheses"),
    ] {
        let said = Expression::compile(text).map(|_| ()).unwrap_err().to_string();
        assert!(said.starts_with(error), "{text}: {said} instead of {error}");
    }
    assert!(Expression::compile(&deep[1..deep.len() - 1]).is_ok());
    assert!(Expression::compile(&long[1..]).is_ok());
}

#[test]
fn what_cannot_be_asked_is_logged() {
    let (peer, headers) = (SpiffeId::new("cluster.local", "shop", "client").unwrap(), headers());
    let logs = |filters: &[&str], seen: &Seen<'_>| {
        let filters = filters.iter().map(|text| Expression::compile(text).unwrap()).collect();
        AccessLogging { filters }.logs(seen)
    };
    let http = seen(&peer, Some(request(&headers)));
    let unanswered = seen(&peer, Some(SeenRequest { code: None, ..request(&headers) }));
    let connection = seen(&peer, None);
    for (filters, expected) in [
        (&[][..], [false, false, false]),
        (&["true"], [true, true, true]),
        (&["response.code < 400"], [false, true, true]),
        (&["has(response.code) && response.code < 400"], [false, false, false]),
        (&["response.code < 400", "response.code == 503"], [true, true, true]),
        (&["request.headers['x-user-type'] == 'ops'"], [false, false, true]),
        (&["!connection.mtls"], [false, false, false]),
    ] {
        assert_eq!([&http, &unanswered, &connection].map(|seen| logs(filters, seen)), expected, "{filters:?}");
    }
}

#[test]
fn the_headers_that_are_looked_at_are_known() {
    let text = "'x-b' in request.headers && (request.id == 'a' || !(request.headers['X-B'].contains('c')))";
    let expression = Expression::compile(text).unwrap();
    assert_eq!(expression.headers().iter().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-b", "x-request-id"]);
    assert_eq!(expression.source(), text);
}
