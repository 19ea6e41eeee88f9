//! The peers that upstream's ztunnel and most of the world are made of, at both ends: the `h2` crate over `rustls`.

mod theirs;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use mesh_hbone::Settings;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect;
use mesh_hbone::stream::Receiver;
use mesh_identity::tls::{Credentials, TlsOptions, dial_name};
use mesh_model::reason::ReasonCode;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id, let_in, on_one_thread};
use mesh_testkit::tcp;
use theirs::{TLS12, TLS13, Versions, their_client, their_server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const MEGABYTES: usize = 24;

/// Byte `at` of what tunnel `number` carries: none is like its neighbours, a block or a record away.
fn byte(number: usize, at: usize) -> u8 {
    ((at.wrapping_mul(2_654_435_761) >> 7) ^ at ^ number) as u8
}

fn piece(number: usize, at: usize, length: usize) -> Bytes {
    (at..at + length).map(|at| byte(number, at)).collect()
}

fn check(number: usize, at: usize, bytes: &[u8]) {
    let wrong = bytes.iter().enumerate().find(|(i, b)| **b != byte(number, at + i));
    assert!(wrong.is_none(), "tunnel {number}: byte {} is not what was sent", at + wrong.unwrap().0);
}

/// TLS of theirs that changes its key after each `every` bytes.
struct Rekeyed {
    tls: tokio_rustls::TlsStream<TcpStream>,
    every: usize,
    written: usize,
}

impl Rekeyed {
    fn new(tls: impl Into<tokio_rustls::TlsStream<TcpStream>>, every: usize) -> Self {
        Self { tls: tls.into(), every, written: 0 }
    }
}

impl AsyncRead for Rekeyed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rekeyed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.tls).poll_write(cx, buf))?;
        self.written += written;
        if self.written >= self.every {
            self.written = 0;
            match &mut self.tls {
                tokio_rustls::TlsStream::Client(tls) => tls.get_mut().1.refresh_traffic_keys(),
                tokio_rustls::TlsStream::Server(tls) => tls.get_mut().1.refresh_traffic_keys(),
            }
            .map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Our server, which carries tunnels to an application that says again what it hears. The ports of authorities say what
/// else it does.
async fn our_server(credentials: Arc<Credentials>) -> SocketAddr {
    let application = tcp::echo().await;
    let server = hbone::serve(credentials, Settings::default(), move |connection, asked| {
        match asked.authority.rsplit(':').next() {
            Some("403") => return asked.refuse(StatusCode::UNAUTHORIZED, ReasonCode::PolicyDenied),
            // Lets go of the tunnel it has opened.
            Some("500") => return drop(asked.accept("")),
            Some("999") => connection.go_away(),
            _ => {}
        }
        let_in(asked, application, "k8s.namespace.name=shop");
    });
    server.await.address
}

fn request(port: u16, headers: usize) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri(format!("10.0.0.1:{port}")).body(()).unwrap();
    // Huffman code and, from the second request on, entries of the table.
    for number in 0..headers {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_static("k8s.namespace.name=shop,k8s.pod.name=orders-1"));
    }
    request
}

/// Sends all of a tunnel's bytes as fast as the peer takes them.
async fn send_theirs(mut send: h2::SendStream<Bytes>, number: usize, bytes: usize) {
    let mut at = 0;
    while at < bytes {
        send.reserve_capacity((bytes - at).min(100_000));
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.expect("open").expect("no error");
        let now = room.min(bytes - at);
        send.send_data(piece(number, at, now), false).unwrap();
        at += now;
    }
    send.send_data(Bytes::new(), true).unwrap();
}

async fn receive_theirs(mut body: h2::RecvStream, number: usize, bytes: usize) {
    let mut at = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        check(number, at, &data);
        at += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(at, bytes, "tunnel {number}");
}

/// How their end speaks.
struct Theirs {
    name: &'static str,
    tls: Versions,
    window: u32,
    rekey: usize,
}

const THEIRS: [Theirs; 4] = [
    Theirs { name: "large windows", tls: TLS13, window: 4 << 20, rekey: usize::MAX },
    Theirs { name: "small windows", tls: TLS13, window: 65_535, rekey: usize::MAX },
    Theirs { name: "new keys all the time", tls: TLS13, window: 1 << 20, rekey: 256 << 10 },
    Theirs { name: "TLS 1.2", tls: TLS12, window: 1 << 20, rekey: usize::MAX },
];

type TheirClient = h2::client::SendRequest<Bytes>;

async fn their_connection(server: SocketAddr, who: &Credentials, theirs: &Theirs) -> TheirClient {
    let tcp = TcpStream::connect(server).await.unwrap();
    let tls = TlsConnector::from(their_client(who, &theirs.tls)).connect(dial_name(), tcp).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(theirs.window)
        .initial_connection_window_size(theirs.window)
        .max_frame_size(16_384)
        .handshake(Rekeyed::new(tls, theirs.rekey))
        .await
        .unwrap();
    spawn_local(async move { drop(connection.await) });
    client
}

fn tls_options() -> TlsOptions {
    TlsOptions { tls12: true, ..TlsOptions::default() }
}

#[tokio::test]
async fn their_client_and_our_server() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = our_server(ca.credentials_with(&id("server"), &tls_options())).await;
        let who = ca.credentials(&id("client"));
        for theirs in &THEIRS {
            let client = their_connection(server, &who, theirs).await;
            const TUNNELS: usize = 8;
            let tunnels = (0..TUNNELS).map(|number| {
                let client = client.clone();
                async move {
                    let mut client = client.ready().await.unwrap();
                    let (response, send) = client.send_request(request(80, 20), false).unwrap();
                    let response = response.await.unwrap();
                    assert_eq!(response.status(), 200, "{}", theirs.name);
                    assert_eq!(response.headers()["baggage"], "k8s.namespace.name=shop");
                    let bytes = (MEGABYTES << 20) / TUNNELS;
                    tokio::join!(send_theirs(send, number, bytes), receive_theirs(response.into_body(), number, bytes));
                }
            });
            futures_util::future::join_all(tunnels).await;
        }
    })
    .await;
}

#[tokio::test]
async fn their_client_opens_many_tunnels_one_after_the_other() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = our_server(ca.credentials(&id("server"))).await;
        let client = their_connection(server, &ca.credentials(&id("client")), &THEIRS[0]).await;
        for number in 0..2_000 {
            let mut client = client.clone().ready().await.unwrap();
            let (response, send) = client.send_request(request(80, 5), false).unwrap();
            let body = response.await.unwrap().into_body();
            tokio::join!(send_theirs(send, number, 100), receive_theirs(body, number, 100));
        }
    })
    .await;
}

#[tokio::test]
async fn their_client_resets_is_refused_and_is_sent_away() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = our_server(ca.credentials(&id("server"))).await;
        let who = ca.credentials(&id("client"));
        let client = their_connection(server, &who, &THEIRS[0]).await;
        let open = async |port| {
            let mut client = client.clone().ready().await.unwrap();
            let (response, send) = client.send_request(request(port, 1), false).unwrap();
            (response.await.unwrap(), send)
        };
        // Refused: a status, the reason, and the end.
        let (refused, _send) = open(403).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["x-ambit-reason"]),
            (401, &"POLICY_DENIED".parse().unwrap())
        );
        assert!(refused.into_body().is_end_stream());
        // Broken off by us: an error, no end.
        let (broken, _send) = open(500).await;
        let error = broken.into_body().data().await.expect("no end").expect_err("a reset");
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
        // Broken off by them, in the middle of everything, again and again: the connection goes on.
        for number in 0..300 {
            let (opened, mut send) = open(80).await;
            send.reserve_capacity(1 << 20);
            send.send_data(piece(number, 0, 30_000), false).unwrap();
            send.send_reset(h2::Reason::CANCEL);
            drop(opened);
        }
        // Sent away: what is open goes on, what is new is not taken.
        let (other, other_send) = open(80).await;
        let (opened, send) = open(999).await;
        tokio::join!(
            send_theirs(send, 7, 1 << 20),
            receive_theirs(opened.into_body(), 7, 1 << 20),
            send_theirs(other_send, 8, 1 << 20),
            receive_theirs(other.into_body(), 8, 1 << 20)
        );
        let refused = match client.clone().ready().await {
            Ok(mut client) => client.send_request(request(80, 1), false).is_err(),
            Err(error) => error.is_go_away() || error.is_remote() || error.is_io(),
        };
        assert!(refused, "GOAWAY did not come");
    })
    .await;
}

/// Their server: says again what it hears; ports say what else it does.
async fn their_server_at(credentials: Arc<Credentials>, theirs: &'static Theirs) -> SocketAddr {
    let config = their_server(&credentials, &theirs.tls);
    tcp::listen(move |tcp| {
        let config = config.clone();
        async move {
            let tls = TlsAcceptor::from(config).accept(tcp).await.unwrap();
            let mut connection = h2::server::Builder::new()
                .initial_window_size(theirs.window)
                .initial_connection_window_size(theirs.window)
                .max_frame_size(16_384)
                .handshake::<_, Bytes>(Rekeyed::new(tls, theirs.rekey))
                .await
                .unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                if request.uri().port_u16() == Some(999) {
                    connection.graceful_shutdown();
                }
                spawn_local(their_answer(request, respond));
            }
        }
    })
    .await
}

async fn their_answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut response = Response::new(());
    for number in 0..20 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        response.headers_mut().insert(name, HeaderValue::from_static("k8s.namespace.name=shop"));
    }
    match request.uri().port_u16() {
        Some(403) => {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return drop(respond.send_response(response, true));
        }
        Some(500) => return respond.send_reset(h2::Reason::INTERNAL_ERROR),
        Some(507) => return respond.send_reset(h2::Reason::REFUSED_STREAM),
        _ => {}
    }
    let Ok(mut send) = respond.send_response(response, false) else { return };
    let mut body = request.into_body();
    while let Some(Ok(mut data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        while !data.is_empty() {
            send.reserve_capacity(data.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
            let now = data.split_to(room.min(data.len()));
            if send.send_data(now, false).is_err() {
                return;
            }
        }
    }
    let _ = send.send_data(Bytes::new(), true);
}

async fn our_client(server: SocketAddr, who: &Credentials) -> Client {
    hbone::dial(server, who, &[id("server")], &Settings::default()).await.unwrap()
}

fn our_request(port: u16) -> Request<()> {
    connect::request(&format!("10.0.0.1:{port}"), &connect::Context::default()).unwrap()
}

async fn receive_ours(receiver: &mut Receiver, number: usize, bytes: usize) {
    let mut at = 0;
    while let Some(data) = receiver.receive().await.unwrap() {
        receiver.taken(data.len());
        check(number, at, &data);
        at += data.len();
    }
    assert_eq!(at, bytes, "tunnel {number}");
}

#[tokio::test]
async fn our_client_and_their_server() {
    on_one_thread(async {
        let ca = TestCa::new();
        let who = ca.credentials_with(&id("client"), &tls_options());
        for theirs in &THEIRS {
            let server = their_server_at(ca.credentials(&id("server")), theirs).await;
            let client = our_client(server, &who).await;
            const TUNNELS: usize = 8;
            let tunnels = (0..TUNNELS).map(|number| {
                let mut client = client.clone();
                async move {
                    let mut opened = client.open(&our_request(80)).await.unwrap();
                    assert_eq!(opened.headers["x-19"], "k8s.namespace.name=shop", "{}", theirs.name);
                    let bytes = (MEGABYTES << 20) / TUNNELS;
                    let sending = async {
                        for at in (0..bytes).step_by(100_000) {
                            let now = (bytes - at).min(100_000);
                            opened.tunnel.sender.send(piece(number, at, now)).await.unwrap();
                        }
                        opened.tunnel.sender.finish().unwrap();
                    };
                    tokio::join!(sending, receive_ours(&mut opened.tunnel.receiver, number, bytes));
                }
            });
            futures_util::future::join_all(tunnels).await;
        }
    })
    .await;
}

/// From socket to socket, where bytes are written where they lie.
#[tokio::test]
async fn their_server_behind_sockets() {
    on_one_thread(async {
        let ca = TestCa::new();
        let who = ca.credentials(&id("client"));
        let server = their_server_at(ca.credentials(&id("server")), &THEIRS[1]).await;
        let mut client = our_client(server, &who).await;
        let opened = client.open(&our_request(80)).await.unwrap();
        let (mut application, captured) = tcp::pair().await;
        hbone::carry(captured, opened.tunnel);
        let (mut read, mut write) = application.split();
        let bytes = MEGABYTES << 20;
        let heard = async {
            let (mut buffer, mut at) = (vec![0; 1 << 16], 0);
            loop {
                let read = tokio::io::AsyncReadExt::read(&mut read, &mut buffer).await.unwrap();
                if read == 0 {
                    return at;
                }
                check(1, at, &buffer[..read]);
                at += read;
            }
        };
        let saying = async {
            for at in (0..bytes).step_by(1 << 20) {
                tokio::io::AsyncWriteExt::write_all(&mut write, &piece(1, at, 1 << 20)).await.unwrap();
            }
            tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
        };
        let (heard, ()) = tokio::join!(heard, saying);
        assert_eq!(heard, bytes);
    })
    .await;
}

#[tokio::test]
async fn their_server_resets_refuses_and_goes_away() {
    on_one_thread(async {
        let ca = TestCa::new();
        let who = ca.credentials(&id("client"));
        let server = their_server_at(ca.credentials(&id("server")), &THEIRS[0]).await;
        let mut client = our_client(server, &who).await;
        let refused = client.open(&our_request(403)).await.err().unwrap();
        assert!(matches!(refused, OpenError::Refused { status: StatusCode::UNAUTHORIZED, .. }), "{refused}");
        let reset = client.open(&our_request(500)).await.err().unwrap();
        assert!(matches!(reset, OpenError::Http2(_)), "{reset}");
        let unprocessed = client.open(&our_request(507)).await.err().unwrap();
        assert!(matches!(unprocessed, OpenError::Closed), "may be asked elsewhere: {unprocessed}");
        // Let go of at any time, the connection goes on.
        for number in 0..300 {
            let mut opened = client.open(&our_request(80)).await.unwrap();
            opened.tunnel.sender.send(piece(number, 0, 30_000)).await.unwrap();
        }
        let mut opened = client.open(&our_request(80)).await.unwrap();
        let last = client.open(&our_request(999)).await.unwrap();
        while client.has_room() && !client.is_closed() {
            tokio::task::yield_now().await;
        }
        // Sent away: what is open goes on.
        opened.tunnel.sender.send(piece(3, 0, 1 << 20)).await.unwrap();
        opened.tunnel.sender.finish().unwrap();
        receive_ours(&mut opened.tunnel.receiver, 3, 1 << 20).await;
        drop(last);
        assert!(matches!(client.open(&our_request(80)).await, Err(OpenError::Closed)));
    })
    .await;
}
