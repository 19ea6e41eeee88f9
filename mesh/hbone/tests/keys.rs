//! A key seals only so many records (RFC 8446 5.5). TLS 1.3 changes it; TLS 1.2 cannot, so its connection is left for
//! another in good time. Against peers that are not ours, with a limit that a test reaches.

mod theirs;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use mesh_hbone::Settings;
use mesh_hbone::client::{Client, Opened};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::{Key, Pool};
use mesh_hbone::server::Connection;
use mesh_hbone::stream::TunnelError;
use mesh_identity::tls::{Credentials, TlsOptions, dial_name};
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::id;
use theirs::{TLS12, TLS13, Versions, their_client, their_server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Records under one key, in these tests.
const LIMIT: u64 = 200;

async fn on_one_thread(test: impl Future<Output = ()>) {
    let thread = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(30), thread.run_until(test)).await.expect("the test hangs");
}

fn settings() -> Settings {
    Settings { records_per_key: LIMIT, ..Settings::default() }
}

fn both_versions() -> TlsOptions {
    TlsOptions { tls12: true, ..TlsOptions::default() }
}

/// A connection, and all that its peer has sent.
struct Tapped(TcpStream, Rc<RefCell<Vec<u8>>>);

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Cx<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1.borrow_mut().extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Cx<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The lengths of the encrypted records in what was sent.
fn sealed_lengths(mut sent: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Some((header, rest)) = sent.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] == 23 {
            lengths.push(length);
        }
        sent = &rest[length.min(rest.len())..];
    }
    lengths
}

/// Their server, which says again what it hears.
struct Echo {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    /// What it was sent, as it was on the wire.
    sent: Rc<RefCell<Vec<u8>>>,
}

async fn echo(credentials: Arc<Credentials>, versions: &Versions) -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = their_server(&credentials, versions);
    let connections = Rc::new(Cell::new(0));
    let counted = connections.clone();
    let sent: Rc<RefCell<Vec<u8>>> = Rc::default();
    let tapped = sent.clone();
    spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let tcp = Tapped(tcp, tapped.clone());
            counted.set(counted.get() + 1);
            let config = config.clone();
            spawn_local(async move {
                let tls = TlsAcceptor::from(config).accept(tcp).await.unwrap();
                let mut connection = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    spawn_local(async move {
                        let mut send = respond.send_response(Response::new(()), false).unwrap();
                        let mut body = request.into_body();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            if send.send_data(data, false).is_err() {
                                return;
                            }
                        }
                        let _ = send.send_data(Bytes::new(), true);
                    });
                }
            });
        }
    });
    Echo { address, connections, sent }
}

/// Our client and its pool.
struct Caller {
    credentials: Arc<Credentials>,
    pool: Pool,
    key: Key,
}

impl Caller {
    fn new(ca: &TestCa, peer: SocketAddr) -> Self {
        let key = Key {
            source: id("client"),
            source_ip: "127.0.0.1".parse().unwrap(),
            expected: vec![id("server")],
            peer,
            workload: "server".into(),
        };
        Self { credentials: ca.credentials_with(&id("client"), &both_versions()), pool: Pool::new(settings()), key }
    }

    async fn open(&self) -> Opened {
        let connect = || async {
            let tcp = TcpStream::connect(self.key.peer).await.unwrap();
            let config = self.credentials.client_config(&self.key.expected);
            Client::handshake(tcp, config, &self.key.expected, &settings()).await
        };
        let request = connect::request("10.0.0.1:80", &Context::default()).unwrap();
        self.pool.open(&self.key, request, connect).await.unwrap().0
    }
}

/// One record there and one back.
async fn ask(opened: &mut Opened, word: u8) -> Result<(), TunnelError> {
    opened.tunnel.sender.send(Bytes::copy_from_slice(&[word])).await?;
    let heard = opened.tunnel.receiver.receive().await?.expect("no end");
    opened.tunnel.receiver.taken(heard.len());
    assert_eq!(heard[..], [word]);
    Ok(())
}

/// Far more records than one key may seal, and their end opens every one. A KeyUpdate is the only record so short that
/// is no alert: 5 bytes, one for the type, 16 for the tag.
#[tokio::test]
async fn tls_1_3_changes_its_key_as_often_as_it_must() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = echo(ca.credentials(&id("server")), &TLS13).await;
        let caller = Caller::new(&ca, server.address);
        let mut opened = caller.open().await;
        for n in 0..10 * LIMIT {
            ask(&mut opened, n as u8).await.unwrap();
        }
        caller.open().await;
        assert_eq!(server.connections.get(), 1, "it is as good as new");
        let lengths = sealed_lengths(&server.sent.borrow());
        let mut under_one_key = lengths.split(|length| *length == 22).map(<[usize]>::len);
        assert!(under_one_key.clone().count() >= 10, "{:?}", under_one_key.collect::<Vec<_>>());
        assert!(under_one_key.all(|records| (records as u64) < LIMIT + 30), "no key sealed much more than it may");
    })
    .await;
}

#[tokio::test]
async fn tls_1_2_is_left_by_our_client_before_its_key_is_worn() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = echo(ca.credentials(&id("server")), &TLS12).await;
        let caller = Caller::new(&ca, server.address);
        let mut opened = caller.open().await;
        for n in 0..LIMIT / 4 {
            ask(&mut opened, n as u8).await.unwrap();
        }
        caller.open().await;
        assert_eq!(server.connections.get(), 1, "not yet");
        for n in 0..LIMIT / 4 {
            ask(&mut opened, n as u8).await.unwrap();
        }
        let mut next = caller.open().await;
        assert_eq!(server.connections.get(), 2, "new tunnels are opened on another connection");
        // What was open goes on, and has as much time again.
        for n in 0..LIMIT / 4 {
            ask(&mut opened, n as u8).await.unwrap();
        }
        opened.tunnel.sender.finish().unwrap();
        assert_eq!(opened.tunnel.receiver.receive().await, Ok(None), "the end, not a cut");
        // And no more than that: a tunnel that does not end by itself is cut.
        let sealed = async {
            for n in 0..2 * LIMIT {
                ask(&mut next, n as u8).await?;
            }
            Ok(())
        };
        assert_eq!(sealed.await, Err(TunnelError::Lost));
        ask(&mut caller.open().await, 1).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn tls_1_2_callers_are_sent_away_before_our_servers_key_is_worn() {
    on_one_thread(async {
        let ca = TestCa::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let config = ca.credentials_with(&id("server"), &both_versions()).server_config();
        spawn_local(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = Connection::accept(tcp, config, &settings()).await.unwrap();
            while let Some(Ok(asked)) = connection.next().await {
                spawn_local(async move {
                    let mut tunnel = asked.accept("").unwrap();
                    while let Ok(Some(heard)) = tunnel.receiver.receive().await {
                        tunnel.receiver.taken(heard.len());
                        tunnel.sender.send(heard).await.unwrap();
                    }
                    let _ = tunnel.sender.finish();
                });
            }
        });
        let tcp = TcpStream::connect(server).await.unwrap();
        let tls = TlsConnector::from(their_client(&ca.credentials(&id("client")), &TLS12));
        let (mut client, connection) =
            h2::client::handshake(tls.connect(dial_name(), tcp).await.unwrap()).await.unwrap();
        let ended = spawn_local(connection);
        let request = || Request::builder().method(Method::CONNECT).uri("10.0.0.1:80").body(()).unwrap();
        let (response, mut send) = client.send_request(request(), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut asked = 0;
        let mut talk = async |times: u64| {
            for _ in 0..times {
                asked += 1;
                send.send_data(Bytes::from_static(b"?"), false).unwrap();
                let heard = body.data().await.expect("no end").unwrap_or_else(|e| panic!("after {asked}: {e}"));
                body.flow_control().release_capacity(heard.len()).unwrap();
                assert_eq!(heard, "?");
            }
        };
        talk(LIMIT / 4).await;
        client = client.ready().await.expect("it takes more");
        talk(LIMIT / 4 + 10).await;
        // GOAWAY has come: nothing new is asked here. What is open goes on to its end.
        let refused = match client.clone().ready().await {
            Ok(mut client) => match client.send_request(request(), false) {
                Ok((response, _)) => response.await.is_err(),
                Err(_) => true,
            },
            Err(_) => true,
        };
        assert!(refused, "GOAWAY did not come");
        talk(LIMIT / 4 - 20).await;
        send.send_data(Bytes::new(), true).unwrap();
        while let Some(rest) = body.data().await {
            assert_eq!(rest.expect("the end, not a cut"), "");
        }
        drop((client, send, body));
        ended.await.unwrap().expect("the connection ends in good order");
    })
    .await;
}
