//! Requests that are written so that two readers may read them differently, each with its verdict: over HTTP/1 and over HTTP/2. A policy
//! denies `/admin`; what the application sees besides is in the table.

use std::cell::RefCell;

use mesh_model::policy::http::{HttpMatch, PathPattern};
use mesh_model::policy::{Action, Clause, Match, Policy, Rule as PolicyRule, Scope, StringMatch};
use mesh_testkit::hbone::on_one_thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Method, path and body of each request that came whole to the application.
type Seen = Rc<RefCell<Vec<String>>>;

/// A waypoint before an application that nobody may ask for `/admin`.
async fn guarded() -> (World, Seen) {
    let seen = Seen::default();
    let sees = seen.clone();
    let application = application(move |request: Request<Incoming>| {
        let sees = sees.clone();
        async move {
            let (head, body) = request.into_parts();
            match body.collect().await {
                Ok(body) => {
                    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                    sees.borrow_mut().push(format!("{} {} {body}", head.method, head.uri));
                    Response::new(Full::from("ok"))
                }
                Err(_) => Response::builder().status(400).body(Full::default()).unwrap(),
            }
        }
    })
    .await;
    let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
    let paths = vec![PathPattern::Text(StringMatch::Prefix("/admin".into()))];
    let http = Some(Arc::new(HttpMatch { paths, ..HttpMatch::default() }));
    let clauses = vec![Clause { matches: vec![Match { http, ..Match::default() }] }];
    let policy = Policy {
        name: "no".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![PolicyRule { clauses }],
        dry_run: false,
    };
    let routes = routes("cart", Vec::new(), &["no"]);
    world.tables.apply_local(vec![Resource::Policy(Arc::new(policy)), Resource::Routes(Arc::new(routes))]);
    (world, seen)
}

/// Statuses of all that is answered to these bytes, until the other end closes.
/// `breaks_off`: the caller leaves after them, by closing its side; else [`LAST`] follows.
async fn answered(world: &World, bytes: &str, breaks_off: bool) -> Vec<u16> {
    let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
    // It may be closed before all is written.
    let _ = tunnel.write_all(bytes.as_bytes()).await;
    let _ = match breaks_off {
        true => tunnel.shutdown().await,
        false => tunnel.write_all(LAST.as_bytes()).await,
    };
    let mut got = Vec::new();
    let _ = timeout(PATIENCE, tunnel.read_to_end(&mut got)).await.expect("it is closed in the end");
    let text = String::from_utf8_lossy(&got);
    let statuses = text.match_indices("HTTP/1.1 ").map(|(at, word)| text[at + word.len()..][..3].parse().unwrap());
    statuses.collect()
}

const NEXT: &str = "GET /admin HTTP/1.1\r\nhost: cart\r\n\r\n";
/// Answered where the connection goes on, after everything before it.
const LAST: &str = "GET /last HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn over_http1_there_is_one_way_to_read_a_request() {
    on_one_thread(async {
        let (world, seen) = guarded().await;
        let line = |line: &str| format!("{line}\r\nhost: cart\r\n\r\n");
        let with = |headers: &str| format!("POST /a HTTP/1.1\r\nhost: cart\r\n{headers}\r\n\r\nhello{NEXT}");
        let chunks =
            |chunks: &str| format!("POST /a HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let hello = &["POST /a hello"][..];
        for (what, request, statuses, sees) in [
            // Where it ends.
            ("one after the other", line("GET /a HTTP/1.1") + NEXT, &[200, 403][..], &["GET /a "][..]),
            ("a length", with("content-length: 5"), &[200, 403], hello),
            ("the same length twice", with("content-length: 5\r\ncontent-length: 5"), &[200, 403], hello),
            ("two lengths", with("content-length: 5\r\ncontent-length: 6"), &[400], &[]),
            ("a list of lengths", with("content-length: 5, 6"), &[400], &[]),
            ("a signed length", with("content-length: +5"), &[400], &[]),
            ("a negative length", with("content-length: -5"), &[400], &[]),
            ("a hexadecimal length", with("content-length: 0x5"), &[400], &[]),
            ("no length", with("content-length:"), &[400], &[]),
            ("a length of too many digits", with("content-length: 99999999999999999999"), &[400], &[]),
            (
                "a length and chunks: chunks count, and what follows is not read",
                with("content-length: 40\r\ntransfer-encoding: chunked").replace("hello", "5\r\nhello\r\n0\r\n\r\n"),
                &[200],
                hello,
            ),
            (
                "chunks and a length",
                with("transfer-encoding: chunked\r\ncontent-length: 40").replace("hello", "5\r\nhello\r\n0\r\n\r\n"),
                &[200],
                hello,
            ),
            ("another coding", with("transfer-encoding: gzip"), &[400], &[]),
            ("a coding nobody knows", with("transfer-encoding: xchunked"), &[400], &[]),
            ("chunks, and then another coding", with("transfer-encoding: chunked, identity"), &[400], &[]),
            (
                "another coding, and then chunks",
                chunks("5\r\nhello\r\n0\r\n\r\n").replace(": chunked", ": gzip, chunked"),
                &[501],
                &[],
            ),
            (
                "the same in two lines",
                chunks("5\r\nhello\r\n0\r\n\r\n").replace(": chunked", ": gzip\r\ntransfer-encoding: chunked"),
                &[501],
                &[],
            ),
            ("chunks twice", chunks("5\r\nhello\r\n0\r\n\r\n").replace(": chunked", ": chunked, chunked"), &[501], &[]),
            (
                "chunks in HTTP/1.0",
                with("transfer-encoding: chunked").replace("POST /a HTTP/1.1", "POST /a HTTP/1.0"),
                &[400],
                &[],
            ),
            // How a line is written.
            ("a space before the colon", with("content-length : 5"), &[400], &[]),
            ("a folded line", with("content-length: 5\r\n x: y"), &[400], &[]),
            ("a line that begins with a space", with(" content-length: 5"), &[400], &[]),
            ("a carriage return in a value", with("x: a\rb\r\ncontent-length: 5"), &[400], &[]),
            ("a zero in a value", with("x: a\0b\r\ncontent-length: 5"), &[400], &[]),
            ("a name of no letters", with(": a\r\ncontent-length: 5"), &[400], &[]),
            ("a name that is none", with("x(y): a\r\ncontent-length: 5"), &[400], &[]),
            // Chunks.
            ("an extension", chunks("5;a=b\r\nhello\r\n0\r\n\r\n"), &[200], hello),
            ("zeros before the size", chunks("0005\r\nhello\r\n0\r\n\r\n"), &[200], hello),
            (
                "trailers are no headers",
                chunks("5\r\nhello\r\n0\r\ncontent-length: 9\r\nhost: b\r\n\r\n"),
                &[200],
                hello,
            ),
            ("a signed size", chunks("+5\r\nhello\r\n0\r\n\r\n"), &[], &[]),
            ("a size with a prefix", chunks("0x5\r\nhello\r\n0\r\n\r\n"), &[], &[]),
            ("a size beyond all", chunks("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), &[], &[]),
            ("more than its size", chunks("4\r\nhello\r\n0\r\n\r\n"), &[], &[]),
            ("a size without carriage return", chunks("5\nhello\r\n0\r\n\r\n"), &[], &[]),
            ("cut", chunks("5\r\nhel"), &[], &[]),
            // Who is asked, and for what.
            ("two hosts", "GET /a HTTP/1.1\r\nhost: cart\r\nhost: other\r\n\r\n".into(), &[400], &[]),
            ("a host with a user", "GET /a HTTP/1.1\r\nhost: user@cart\r\n\r\n".into(), &[400], &[]),
            ("the denied path", line("GET /admin HTTP/1.1"), &[403], &[]),
            ("encoded", line("GET /%61dmin HTTP/1.1"), &[403], &[]),
            ("by way of another", line("GET /a/../admin HTTP/1.1"), &[403], &[]),
            ("by way of another, encoded", line("GET /a/%2e%2E/admin HTTP/1.1"), &[403], &[]),
            ("two slashes", line("GET //admin HTTP/1.1"), &[403], &[]),
            ("an encoded slash", line("GET /a/..%2fadmin HTTP/1.1"), &[400], &[]),
            ("an encoded backslash", line("GET /a%5c..%5cadmin HTTP/1.1"), &[400], &[]),
            ("a parameter in it", line("GET /a/..;/admin HTTP/1.1"), &[400], &[]),
            ("an encoded zero", line("GET /a%00 HTTP/1.1"), &[400], &[]),
            ("an absolute form", line("GET http://cart/admin HTTP/1.1"), &[403], &[]),
            ("no path at all", line("GET admin HTTP/1.1"), &[400], &[]),
            ("a version that is none", line("GET /a HTTP/3.0"), &[400], &[]),
            ("no version", line("GET /a"), &[400], &[]),
            ("a space more", line("GET /a b HTTP/1.1"), &[400], &[]),
            ("a tunnel", line("CONNECT cart:80 HTTP/1.1"), &[400], &[]),
            // Something else than HTTP, which has not been agreed on.
            (
                "an upgrade that is refused, and the next request",
                format!("GET /a HTTP/1.1\r\nhost: cart\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n{NEXT}"),
                &[200, 403],
                &["GET /a "],
            ),
            (
                "an upgrade to HTTP/2",
                format!(
                    "GET /a HTTP/1.1\r\nhost: cart\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                     http2-settings: AAMAAABkAAQAAP__\r\n\r\n{NEXT}"
                ),
                &[200, 403],
                &["GET /a "],
            ),
        ] {
            let mut got = answered(&world, &request, statuses.is_empty()).await;
            let mut seen = seen.take();
            if seen.last().is_some_and(|last| last == "GET /last ") {
                seen.pop();
                assert_eq!(got.pop(), Some(200), "{what}");
            }
            // A body that breaks off when its head has passed already has an error for an answer, or the connection's end.
            let is_so = if statuses.is_empty() { got.iter().all(|status| *status >= 400) } else { got == statuses };
            assert!(is_so, "{what}: {got:?}, not {statuses:?}");
            assert_eq!(seen, sees, "{what}");
        }
        world.end().await;
    })
    .await;
}

/// What is answered to a request of these frames on stream 1: a status, or None where it is refused by a reset or the end of it all.
async fn answered_h2(world: &World, fields: &[(&str, &str)], data: Option<&str>) -> Option<u16> {
    let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut block = Vec::new();
    for (name, value) in fields {
        // Literal, without indexing, a new name, no Huffman code (RFC 7541, 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let ends = u8::from(data.is_none());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4 | ends, 1, &block));
    bytes.extend(data.map(|data| frame(0, 1, 1, data.as_bytes())).unwrap_or_default());
    let _ = tunnel.write_all(&bytes).await;
    let read = async {
        loop {
            let mut head = [0; 9];
            tunnel.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            tunnel.read_exact(&mut payload).await.ok()?;
            match (head[3], head[8]) {
                // The status comes first: of the static table, or a literal, whose Huffman code is looked up here.
                (1, 1) => {
                    return Some(match payload[..] {
                        [0x88, ..] => 200,
                        [0x8c, ..] => 400,
                        [0x48, 0x83, 0x68, 0x0c, ..] => 403,
                        _ => panic!("which status is {payload:x?}?"),
                    });
                }
                (3, 1) | (7, _) => return None,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer")
}

#[tokio::test]
async fn over_http2_there_is_one_way_to_read_a_request() {
    on_one_thread(async {
        let (world, seen) = guarded().await;
        let request = |path: &'static str, more: &[(&'static str, &'static str)]| {
            let own = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "cart")];
            own.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()
        };
        let (a, hello) = (|more: &[_]| request("/a", more), &["POST /a hello"][..]);
        for (what, fields, data, status, sees) in [
            ("a body", a(&[]), Some("hello"), Some(200), hello),
            ("its length", a(&[("content-length", "5")]), Some("hello"), Some(200), hello),
            ("more than its length", a(&[("content-length", "4")]), Some("hello"), None, &[][..]),
            ("less than its length", a(&[("content-length", "6")]), Some("hello"), None, &[]),
            ("a length, and nothing", a(&[("content-length", "6")]), None, None, &[]),
            ("a length that is none", a(&[("content-length", "+5")]), Some("hello"), None, &[]),
            ("two lengths", a(&[("content-length", "5"), ("content-length", "6")]), Some("hello"), None, &[]),
            ("chunks", a(&[("transfer-encoding", "chunked")]), Some("5\r\nhello\r\n0\r\n\r\n"), None, &[]),
            ("a header of a connection", a(&[("connection", "x")]), None, None, &[]),
            ("an upgrade", a(&[("upgrade", "websocket")]), None, None, &[]),
            ("another coding is taken", a(&[("te", "gzip")]), None, None, &[]),
            ("a name in capitals", a(&[("X-A", "b")]), None, None, &[]),
            ("a name with a colon", a(&[("x:a", "b")]), None, None, &[]),
            ("a name with a line's end", a(&[("x\r\nhost", "b")]), None, None, &[]),
            ("a value with a line's end", a(&[("x", "a\r\nhost: b")]), None, None, &[]),
            ("a value with a zero", a(&[("x", "a\0b")]), None, None, &[]),
            ("what comes first comes last", a(&[("x", "y"), (":path", "/b")]), None, None, &[]),
            ("two paths", a(&[(":path", "/b")]), None, None, &[]),
            ("what nobody knows", a(&[(":x", "y")]), None, None, &[]),
            ("another host beside", a(&[("host", "other")]), None, Some(400), &[]),
            ("no path", request("", &[]), None, None, &[]),
            ("a path with a space", request("/a b", &[]), None, None, &[]),
            ("a path with a line's end", request("/a HTTP/1.1\r\nhost: b\r\n\r\n", &[]), None, None, &[]),
            ("the denied path", request("/admin", &[]), None, Some(403), &[]),
            ("encoded", request("/%61dmin", &[]), None, Some(403), &[]),
            ("by way of another", request("/a/../admin", &[]), None, Some(403), &[]),
            ("two slashes", request("//admin", &[]), None, Some(403), &[]),
            ("an encoded slash", request("/a/..%2fadmin", &[]), None, Some(400), &[]),
            ("an encoded backslash", request("/a%5c..%5cadmin", &[]), None, Some(400), &[]),
            ("a parameter in it", request("/a/..;/admin", &[]), None, Some(400), &[]),
            ("an encoded zero", request("/a%00", &[]), None, Some(400), &[]),
        ] {
            assert_eq!(answered_h2(&world, &fields, data).await, status, "{what}");
            assert_eq!(seen.take(), sees, "{what}");
        }
        world.end().await;
    })
    .await;
}
