use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Version};
use mesh_proto::ext_authz as pb;
use pb::check_response::HttpResponse;
use prost::Message;
use prost::bytes::Bytes;

use super::verdict::{Changes, Edit};
use super::*;
use crate::http::{Received, Rules, canonical};
use crate::policy::Facts;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn asker(protocol: Protocol) -> Authorizer {
    Authorizer {
        name: "ask".into(),
        service: NamespacedName::new("shop", "ask.shop.svc"),
        port: 9000,
        timeout: Duration::from_secs(1),
        fail_open: false,
        status_on_error: StatusCode::FORBIDDEN,
        body: None,
        protocol,
    }
}

#[test]
fn what_a_check_over_grpc_says() {
    let headers = map(&[("host", "Cart:80"), ("x-a", "1"), ("x-a", "2"), ("authorization", "Bearer t")]);
    let received = Received::of_target(Version::HTTP_11, &Method::POST, b"/a/%62?c=d", &headers);
    let request = canonical(&received, Rules::default()).unwrap();
    let facts = Facts {
        source_ip: "10.0.0.7".parse().unwrap(),
        source: Some("spiffe://td/ns/shop/sa/web".parse().unwrap()),
        destination: "10.1.0.1:80".parse().unwrap(),
    };
    let body = Bytes::from_static(b"\xffhello");
    let about = grpc::About {
        facts: &facts,
        from: "10.0.0.7:4000".parse().unwrap(),
        us: "spiffe://td/ns/shop/sa/waypoint",
        request: &request,
        headers: &headers,
        version: Version::HTTP_2,
        body: &body,
        length: Some(6),
        at: Duration::new(5, 6),
    };
    let mut authorizer = asker(Protocol::Grpc);
    let said = |authorizer: &Authorizer| {
        let message = pb::CheckRequest::decode(grpc::request(authorizer, &about)).unwrap();
        message.attributes.unwrap()
    };
    let attributes = said(&authorizer);
    let source = attributes.source.unwrap();
    assert_eq!(source.principal, "spiffe://td/ns/shop/sa/web");
    let address = source.address.unwrap().socket_address.unwrap();
    assert_eq!((&*address.address, address.port_value), ("10.0.0.7", 4000));
    assert_eq!(attributes.destination.unwrap().principal, "spiffe://td/ns/shop/sa/waypoint");
    let asked = attributes.request.unwrap();
    assert_eq!(asked.time.unwrap(), mesh_proto::Timestamp { seconds: 5, nanos: 6 });
    let http = asked.http.unwrap();
    assert_eq!((&*http.method, &*http.path, &*http.host), ("POST", "/a/b?c=d", "cart:80"));
    assert_eq!((&*http.scheme, &*http.protocol, http.size), ("http", "HTTP/2.0", 6));
    assert_eq!((&*http.body, http.raw_body.len()), ("\u{fffd}hello", 0));
    let expected = [
        (":authority", "cart:80"),
        (":method", "POST"),
        (":path", "/a/b?c=d"),
        (":scheme", "http"),
        ("authorization", "Bearer t"),
        ("x-a", "1,2"),
    ];
    assert_eq!(http.headers.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
    authorizer.body = Some(BodyInCheck { most: 10, allow_partial: false, as_bytes: true });
    let http = said(&authorizer).request.unwrap().http.unwrap();
    assert_eq!((&*http.body, http.raw_body), ("", body.clone()));
}

fn option(name: &str, value: &str, append: Option<bool>, append_action: i32) -> pb::HeaderValueOption {
    let header = pb::HeaderValue { key: name.into(), value: value.into(), raw_value: Bytes::new() };
    pb::HeaderValueOption { header: Some(header), append, append_action }
}

#[test]
fn what_an_answer_over_grpc_means() {
    let answer = |code, response| {
        let status = Some(pb::RpcStatus { code, message: String::new() });
        grpc::answer(pb::CheckResponse { status, http_response: response }.encode_to_vec().into()).unwrap()
    };
    let refused = |status: u16, headers: &[(&str, &str)], body: &'static str| Verdict::Refuse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map(headers),
        body: body.into(),
    };
    assert_eq!(answer(0, None), Verdict::Pass(Changes::default()));
    assert_eq!(answer(7, None), refused(403, &[], ""));
    let denied = |code, headers| {
        let status = Some(pb::HttpStatus { code });
        HttpResponse::DeniedResponse(pb::DeniedHttpResponse { status, headers, body: "no".into() })
    };
    let headers = vec![option("x-why", "because", None, 0), option("content-length", "9", None, 0)];
    assert_eq!(answer(16, Some(denied(401, headers))), refused(401, &[("x-why", "because")], "no"));
    for nonsense in [0, 100, 70_000, -1] {
        assert_eq!(answer(7, Some(denied(nonsense, Vec::new()))), refused(403, &[], "no"), "{nonsense}");
    }
    // A yes with the answer of a no, and the other way round: the status counts.
    assert_eq!(answer(0, Some(denied(401, Vec::new()))), Verdict::Pass(Changes::default()));
    let ok = || {
        HttpResponse::OkResponse(pb::OkHttpResponse {
            headers: vec![
                option("x-user", "bob", None, 0),
                option("x-more", "1", Some(true), 0),
                option("x-maybe", "2", None, 1),
                option("x-there", "3", None, 3),
                option("host", "evil", None, 0),
                option("x-forwarded-client-cert", "URI=root", None, 0),
                option("bad name", "x", None, 0),
            ],
            headers_to_remove: vec!["X-Away".into(), ":path".into(), "host".into()],
            response_headers_to_add: vec![option("set-cookie", "a=b", Some(true), 0)],
        })
    };
    assert_eq!(answer(7, Some(ok())), refused(403, &[], ""));
    let Verdict::Pass(changes) = answer(0, Some(ok())) else { panic!() };
    let mut headers =
        map(&[("x-user", "admin"), ("x-more", "0"), ("x-maybe", "own"), ("x-away", "x"), ("host", "cart")]);
    changes.request.iter().for_each(|edit| edit.apply(&mut headers));
    let expected = [("x-user", "bob"), ("x-more", "0"), ("x-more", "1"), ("x-maybe", "own"), ("host", "cart")];
    assert_eq!(headers, map(&expected));
    assert_eq!(changes.answer.len(), 1);
    assert_eq!(grpc::answer(Bytes::from_static(b"\xff\xff")), None);
}

#[test]
fn a_check_over_http_and_its_answer() {
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    let check = HttpCheck {
        path_prefix: "/check/".into(),
        request_headers: vec![StringMatch::Prefix("x-".into()), StringMatch::Exact("transfer-encoding".into())],
        additional_headers: vec![("x-by".into(), "waypoint".into())],
        upstream_on_allow: exact("x-user"),
        downstream_on_deny: exact("x-why"),
        downstream_on_allow: exact("set-cookie"),
    };
    let of = map(&[
        ("authorization", "t"),
        ("x-a", "1"),
        ("x-by", "forged"),
        ("cookie", "c"),
        ("transfer-encoding", "chunked"),
    ]);
    assert_eq!(over_http::headers(&check, &of), map(&[("authorization", "t"), ("x-a", "1"), ("x-by", "waypoint")]));
    let path = PathAndQuery::from_static("/a?b");
    assert_eq!(over_http::target(&check, &path).unwrap(), "/check/a?b");
    assert_eq!(over_http::target(&HttpCheck::default(), &path).unwrap(), "/a?b");
    let told = map(&[("x-user", "bob"), ("set-cookie", "a"), ("set-cookie", "b"), ("x-why", "w"), ("x-other", "o")]);
    let answer = |status: u16| {
        over_http::answer(&check, StatusCode::from_u16(status).unwrap(), &told, Bytes::from_static(b"no"))
    };
    let Some(Verdict::Pass(changes)) = answer(200) else { panic!() };
    let set = |name: &'static str, value: &'static str| {
        Edit::Set(HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    assert_eq!(changes.request, [set("x-user", "bob")]);
    assert_eq!(changes.answer[0], set("set-cookie", "a"));
    assert_eq!(changes.answer.len(), 2);
    let headers = map(&[("set-cookie", "a"), ("set-cookie", "b"), ("x-why", "w")]);
    let refused = Verdict::Refuse { status: StatusCode::FOUND, headers, body: Bytes::from_static(b"no") };
    assert_eq!(answer(302), Some(refused));
    // Only 200 lets pass.
    assert!(matches!(answer(204), Some(Verdict::Refuse { status: StatusCode::NO_CONTENT, .. })));
    assert_eq!(answer(500), None, "it has failed, and said nothing");
}
