//! What is more than one request and one answer: streams, trailers, upgrades, and what is no HTTP.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use http::{HeaderMap, HeaderValue};
use hyper::body::Frame;
use mesh_testkit::hbone::on_one_thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;

/// A body that is sent as it is made.
pub(super) struct Pieces(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Pieces {
    fn new() -> (mpsc::UnboundedSender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// An application that echoes each piece as it comes, then trailers: a bidirectional gRPC stream.
async fn echo_http2() -> SocketAddr {
    mesh_testkit::tcp::listen(async |tcp| {
        let service = hyper::service::service_fn(async |request: Request<Incoming>| {
            let (pieces, body) = Pieces::new();
            spawn_local(async move {
                let mut asked = request.into_body();
                while let Some(Ok(frame)) = asked.frame().await {
                    if let Ok(data) = frame.into_data() {
                        let _ = pieces.send(Frame::data(data));
                    }
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                // More than others pass: a status with its details.
                trailers.insert("grpc-message", HeaderValue::from_str(&"m".repeat(20_000)).unwrap());
                let _ = pieces.send(Frame::trailers(trailers));
            });
            Ok::<_, std::convert::Infallible>(Response::new(body))
        });
        let builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
        let _ = builder.serve_connection(TokioIo::new(tcp), service).await;
    })
    .await
}

#[tokio::test]
async fn a_stream_goes_both_ways_and_its_trailers_follow() {
    on_one_thread(async {
        let application = echo_http2().await;
        let world = World::start(AppProtocol::Grpc, &[Endpoint::plain("cart-1", application)]);
        let mut web = world.http2("web").await;
        let (pieces, body) = Pieces::new();
        let request = Request::post("http://cart/shop.Cart/Watch").header("content-type", "application/grpc");
        let answer = web.send_request(request.header("te", "trailers").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        // Each piece comes back before the next is sent: nobody on the way collects them.
        for n in 0..5 {
            pieces.send(Frame::data(Bytes::from(format!("piece {n}")))).unwrap();
            let mut got = Vec::new();
            while got.len() < 7 {
                got.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(got, format!("piece {n}").into_bytes());
        }
        drop(pieces);
        let trailers = loop {
            if let Ok(trailers) = body.frame().await.unwrap().unwrap().into_trailers() {
                break trailers;
            }
        };
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["grpc-message"].len(), 20_000);
        world.end().await;
    })
    .await;
}

/// A call of two messages, the second of which is sent once the first has come back. The body says nothing of its length.
async fn call(web: &mut http2::SendRequest<Pieces>) -> (Vec<u8>, HeaderMap) {
    let (pieces, body) = Pieces::new();
    pieces.send(Frame::data(Bytes::from_static(b"piece 0"))).unwrap();
    let request = Request::post("http://cart/shop.Cart/Watch").header("content-type", "application/grpc");
    let answer = web.send_request(request.header("te", "trailers").body(body).unwrap()).await.unwrap();
    let (head, mut body) = answer.into_parts();
    if head.headers.contains_key("grpc-status") {
        return (Vec::new(), head.headers);
    }
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    pieces.send(Frame::data(Bytes::from_static(b", piece 1"))).unwrap();
    drop(pieces);
    let rest = body.collect().await.unwrap();
    let trailers = rest.trailers().cloned().unwrap_or_default();
    ([first, rest.to_bytes()].concat(), trailers)
}

/// Nothing follows trailers, and nobody asks for more: the answer is a whole one. Seen red while it was over only once somebody had:
/// CALLER_GONE.
#[tokio::test]
async fn an_answer_of_http1_has_ended_with_its_trailers() {
    on_one_thread(async {
        let application = mesh_testkit::tcp::listen(async |mut tcp| {
            const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n";
            let mut said = Vec::new();
            while tcp.read_buf(&mut said).await.is_ok_and(|read| read > 0) {
                if said.ends_with(b"\r\n\r\n") {
                    said.clear();
                    tcp.write_all(ANSWER).await.unwrap();
                }
            }
        })
        .await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let (mut one, mut two) = (world.http1("web").await, world.http2::<Full<Bytes>>("web").await);
        let request = |uri: &str| Request::get(uri).header("host", "cart").header("te", "trailers");
        let empty = || Full::new(Bytes::new());
        let answers = [
            ("/one", one.send_request(request("/one").body(empty()).unwrap()).await.unwrap()),
            ("/two", two.send_request(request("http://cart/two").body(empty()).unwrap()).await.unwrap()),
        ];
        for (path, answer) in answers {
            assert_eq!(answer.status(), 200, "{path}");
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().map(|trailers| &trailers["x-sum"]).unwrap(), "2", "{path}");
            assert_eq!(body.to_bytes(), "hi", "{path}");
            let line = world.logged(&format!("path=\"{path}\"")).await;
            assert!(line.contains("response_code=200 bytes_sent=2"), "{line}");
            assert!(!line.contains("reason="), "{line}");
        }
        world.end().await;
    })
    .await;
}

/// How an endpoint says that it does not take a call, on the stream of that number.
#[derive(Clone, Copy)]
enum Not {
    /// GOAWAY, NO_ERROR: streams up to this one were taken, and there will be no more.
    GoAway { last: u8 },
    /// RST_STREAM, for this reason.
    Reset { reason: u8 },
}

/// An endpoint that hears calls and their first messages, and then says so. Counts the calls.
async fn takes_none(not: Not) -> (SocketAddr, Rc<Cell<usize>>) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let heard = Rc::new(Cell::new(0));
    let counts = heard.clone();
    let at = mesh_testkit::tcp::listen(move |mut tcp| {
        let counts = counts.clone();
        async move {
            tcp.write_all(SETTINGS).await.unwrap();
            let (mut said, mut stream) = (Vec::new(), 1);
            // Until the other end closes its own.
            while tcp.read_buf(&mut said).await.is_ok_and(|read| read > 0) {
                if !said.windows(7).any(|bytes| bytes == b"piece 0") {
                    continue;
                }
                said.clear();
                counts.set(counts.get() + 1);
                match not {
                    Not::GoAway { last } => {
                        tcp.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0]).await.unwrap();
                        tcp.shutdown().await.unwrap();
                    }
                    Not::Reset { reason } => {
                        tcp.write_all(&[0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, reason]).await.unwrap();
                        stream += 2;
                    }
                }
            }
        }
    })
    .await;
    (at, heard)
}

const REFUSED_STREAM: Not = Not::Reset { reason: 7 };

/// As one that ends in order does, to calls that came a moment too late (RFC 9113, 8.7). Seen red while only bodies of a known length were
/// kept: grpc-status 14, UPSTREAM_RESET.
#[tokio::test]
async fn a_call_that_its_endpoint_has_not_taken_is_sent_to_another() {
    for not in [Not::GoAway { last: 0 }, REFUSED_STREAM] {
        on_one_thread(async {
            let ((leaves, heard), stays) = (takes_none(not).await, echo_http2().await);
            let endpoints = [Endpoint::plain("cart-1", leaves), Endpoint::plain("cart-2", stays)];
            let world = World::start(AppProtocol::Grpc, &endpoints);
            let mut web = world.http2("web").await;
            let mut calls = 0;
            while heard.get() < 3 {
                calls += 1;
                assert!(calls < 100, "it was asked {} times only", heard.get());
                let (text, trailers) = call(&mut web).await;
                let text = String::from_utf8(text).unwrap();
                assert_eq!((&*text, &trailers["grpc-status"]), ("piece 0, piece 1", &HeaderValue::from_static("0")));
            }
            world.end().await;
        })
        .await;
    }
}

/// What is not taken by anybody, or reset for another reason, is not asked for without end.
#[tokio::test]
async fn a_call_that_nobody_takes_fails_and_one_that_may_have_been_taken_is_not_sent_again() {
    for (what, not, tries) in [
        // A try may meet the connection that is just being closed, which hears nothing.
        ("it ends", Not::GoAway { last: 0 }, 2..=4),
        ("it is too much", REFUSED_STREAM, 2..=2),
        ("it is not wanted", Not::Reset { reason: 8 }, 1..=1),
        ("it ends, but had taken this one", Not::GoAway { last: 1 }, 1..=1),
    ] {
        on_one_thread(async {
            let (leaves, heard) = takes_none(not).await;
            let world = World::start(AppProtocol::Grpc, &[Endpoint::plain("cart-1", leaves)]);
            let (_, head) = call(&mut world.http2("web").await).await;
            assert_eq!(head["grpc-status"], "14", "{what}: {head:?}");
            assert!(tries.contains(&heard.get()), "{what}: {} tries", heard.get());
            world.end().await;
        })
        .await;
    }
}

/// What a route says to try again, also of a call whose messages are still coming.
#[tokio::test]
async fn a_call_is_tried_again_as_its_route_says() {
    on_one_thread(async {
        let (busy, asked) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let echo = echo_http2().await;
        let counts = busy.clone();
        let answers_busy = mesh_testkit::tcp::listen(move |tcp| {
            let counts = counts.clone();
            async move {
                let service = hyper::service::service_fn(move |_: Request<Incoming>| {
                    counts.set(counts.get() + 1);
                    let answer = Response::builder().header("grpc-status", "14").body(Full::<Bytes>::default());
                    async move { answer }
                });
                let builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
                let _ = builder.serve_connection(TokioIo::new(tcp), service).await;
            }
        })
        .await;
        let endpoints = [Endpoint::plain("cart-1", answers_busy), Endpoint::plain("cart-2", echo)];
        let mut world = World::start(AppProtocol::Grpc, &endpoints);
        let retry = mesh_model::route::Retry {
            grpc_codes: vec![14],
            attempts: 2,
            backoff: Some(Duration::from_millis(1)),
            ..Default::default()
        };
        let rules = vec![Rule { retry: Some(retry), ..super::routed::rule("/", "cart") }];
        world.tables.apply_local(vec![Resource::Routes(Arc::new(routes("cart", rules, &[])))]);
        let mut web = world.http2("web").await;
        while busy.get() < 3 {
            asked.set(asked.get() + 1);
            assert!(asked.get() < 100, "it was asked {} times only", busy.get());
            let (text, trailers) = call(&mut web).await;
            assert_eq!(
                (&text[..], &trailers["grpc-status"]),
                (&b"piece 0, piece 1"[..], &HeaderValue::from_static("0"))
            );
        }
        world.end().await;
    })
    .await;
}

/// Two requests at once share one connection to an endpoint that speaks HTTP/2.
#[tokio::test]
async fn http2_carries_many_requests_at_once() {
    on_one_thread(async {
        let application = echo_http2().await;
        let endpoint = Endpoint::hbone("cart-1", SocketAddr::new(MESHED, application.port()));
        let world = World::start(AppProtocol::Http2, &[endpoint]);
        let ztunnel = Ztunnel::start(&world.ca, application).await;
        let web = world.http2("web").await;
        let (first, body) = Pieces::new();
        let open = |body| {
            let mut web = web.clone();
            async move { web.send_request(Request::post("http://cart/").body(body).unwrap()).await.unwrap() }
        };
        let held = open(body).await;
        for _ in 0..10 {
            let (pieces, body) = Pieces::new();
            drop(pieces);
            assert_eq!(open(body).await.into_body().collect().await.unwrap().to_bytes(), "");
        }
        drop((held, first));
        assert_eq!(ztunnel.tunnels.get(), 1);
        world.end().await;
    })
    .await;
}

/// A gRPC caller who is not answered learns it in gRPC's words.
#[tokio::test]
async fn grpc_callers_are_answered_in_grpc() {
    on_one_thread(async {
        let world = World::start(AppProtocol::Grpc, &[]);
        let mut web = world.http2("web").await;
        let request = Request::post("http://cart/shop.Cart/Get").header("content-type", "application/grpc");
        let answer = web.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["grpc-message"], "NO_HEALTHY_UPSTREAM");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_websocket_is_asked_for_like_any_request_and_then_carried() {
    on_one_thread(async {
        let application = mesh_testkit::tcp::listen(async |mut tcp| {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                tcp.read_buf(&mut asked).await.unwrap();
            }
            let asked = String::from_utf8(asked).unwrap().to_lowercase();
            assert!(asked.contains("upgrade: websocket\r\n") && asked.contains("connection: upgrade\r\n"), "{asked}");
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst words";
            tcp.write_all(answer).await.unwrap();
            let mut bytes = [0; 5];
            tcp.read_exact(&mut bytes).await.unwrap();
            bytes.make_ascii_uppercase();
            tcp.write_all(&bytes).await.unwrap();
        })
        .await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
        let request = b"GET /ws HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        tunnel.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"first words") {
            assert!(tunnel.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        tunnel.write_all(b"hello").await.unwrap();
        let mut bytes = Vec::new();
        tunnel.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"HELLO");
        tunnel.shutdown().await.unwrap();
        let line = world.logged("response_code=101").await;
        assert!(line.contains("bytes_sent=16") && line.contains("bytes_recv=5"), "{line}");
        world.end().await;
    })
    .await;
}

/// An endpoint that changes to another protocol unasked is not followed: its bytes would be taken for answers.
#[tokio::test]
async fn nobody_is_upgraded_who_has_not_asked() {
    on_one_thread(async {
        let application = mesh_testkit::tcp::listen(async |mut tcp| {
            let mut asked = vec![0; 4096];
            let _ = tcp.read(&mut asked).await;
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
            let _ = tcp.read(&mut asked).await;
        })
        .await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let mut web = world.http1("web").await;
        let answer = web.send_request(Request::get("/").header("host", "cart").body(Full::default()).unwrap()).await;
        assert_eq!(text(answer.unwrap()).await, (502, "UPSTREAM_RESET\n".to_owned()));
        world.end().await;
    })
    .await;
}

/// What follows a request for an upgrade that is refused is a request like any other.
#[tokio::test]
async fn an_upgrade_that_is_refused_changes_nothing() {
    on_one_thread(async {
        let application =
            application(async |request: Request<Incoming>| Response::new(Full::from(request.uri().to_string()))).await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let mut web = world.http1("web").await;
        let request = Request::get("/ws").header("host", "cart");
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let answer = web.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(text(answer).await, (200, "/ws".to_owned()));
        web.ready().await.unwrap();
        let answer = web.send_request(Request::get("/next").header("host", "cart").body(Full::default()).unwrap());
        assert_eq!(text(answer.await.unwrap()).await, (200, "/next".to_owned()));
        world.end().await;
    })
    .await;
}

/// The server speaks first: nobody waits for the caller's first word.
#[tokio::test]
async fn declared_tcp_is_carried_and_not_looked_into() {
    on_one_thread(async {
        let application = mesh_testkit::tcp::listen(async |mut tcp| {
            tcp.write_all(b"220 ready").await.unwrap();
            let mut heard = Vec::new();
            tcp.read_to_end(&mut heard).await.unwrap();
            tcp.write_all(&heard).await.unwrap();
        })
        .await;
        let endpoint = Endpoint::hbone("mail-1", SocketAddr::new(MESHED, application.port()));
        let world = World::start(AppProtocol::Tcp, &[endpoint]);
        let _ztunnel = Ztunnel::start(&world.ca, application).await;
        let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
        let mut greeting = [0; 9];
        tunnel.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready");
        tunnel.write_all(b"QUIT").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut rest = Vec::new();
        tunnel.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"QUIT");
        let line = world.logged("connection complete").await;
        assert!(line.contains("bytes_sent=13") && line.contains("bytes_recv=4"), "{line}");
        world.end().await;
    })
    .await;
}
