//! Applications that stop reading, and callers that leave meanwhile. Over real sockets and real TLS.

mod raw;
mod theirs;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use mesh_hbone::Settings;
use mesh_hbone::client::{OpenError, Opened};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::Pool;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, Server, carry, id, on_one_thread};
use mesh_testkit::tcp;
use raw::*;
use theirs::{TLS13, their_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{spawn_local, yield_now};
use tokio_rustls::TlsConnector;

/// An application that says `hello` and reads nothing; its connections.
async fn mute() -> (SocketAddr, Rc<RefCell<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
    let kept = connections.clone();
    spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tcp.write_all(b"hello").await.unwrap();
            kept.borrow_mut().push(tcp);
        }
    });
    (address, connections)
}

/// A server whose tunnels to port 80 end at an application that shouts, and to port 81 at one that reads nothing.
async fn serve(ca: &TestCa, settings: Settings) -> (Server, Rc<RefCell<Vec<TcpStream>>>) {
    let (shouting, (mute, connections)) = (tcp::shouting().await, mute().await);
    let server = hbone::serve(ca.credentials(&id("server")), settings, move |_, asked| {
        let to = if asked.authority.ends_with(":81") { mute } else { shouting };
        spawn_local(async move {
            let tcp = TcpStream::connect(to).await.unwrap();
            // On its own the kernel takes up to 4 MiB, all of a tunnel's window, if it remembers fast connections to this address.
            socket2::SockRef::from(&tcp).set_send_buffer_size(256 << 10).unwrap();
            carry(tcp, asked.accept("").unwrap());
        });
    });
    (server.await, connections)
}

async fn open(ca: &TestCa, pool: &Pool, server: SocketAddr, target: &str) -> Result<Opened, OpenError> {
    let key = hbone::key("client", "server", server);
    let request = connect::request(target, &Context::default()).unwrap();
    let (credentials, settings) = (ca.credentials(&key.source), Settings::default());
    let connect = || hbone::dial(server, &credentials, &key.expected, &settings);
    pool.open(&key, request, connect).await.map(|(opened, _)| opened)
}

/// Sends until nothing more is taken for a while.
async fn fill(opened: &mut Opened) {
    let piece = Bytes::from(vec![b'x'; 256 << 10]);
    while tokio::time::timeout(Duration::from_millis(300), opened.tunnel.sender.send(piece.clone())).await.is_ok() {}
}

async fn echoes(mut opened: Opened) {
    let said = vec![b'a'; 300_000];
    let (mut sender, mut receiver) = (opened.tunnel.sender, opened.tunnel.receiver);
    let sending = async {
        sender.send(Bytes::from(said.clone())).await.unwrap();
        sender.finish().unwrap();
    };
    let receiving = async {
        let mut heard = 0;
        while let Some(bytes) = receiver.receive().await.unwrap() {
            receiver.taken(bytes.len());
            heard += bytes.len();
        }
        heard
    };
    let ((), heard) = tokio::join!(sending, receiving);
    assert_eq!(heard, said.len());
    opened.headers.clear();
}

/// Whatever some tunnels of a pod wait for, its others, old and new, carry.
#[tokio::test]
async fn applications_that_do_not_read_hold_up_nobody_else() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (server, _connections) = serve(&ca, Settings::default()).await;
        let pool = Pool::new(Settings::default());
        let before = open(&ca, &pool, server.address, "10.0.0.1:80").await.unwrap();
        let mut stuck = Vec::new();
        for _ in 0..8 {
            stuck.push(open(&ca, &pool, server.address, "10.0.0.1:81").await.unwrap());
        }
        futures_util::future::join_all(stuck.iter_mut().map(fill)).await;
        for _ in 0..5 {
            echoes(open(&ca, &pool, server.address, "10.0.0.1:80").await.unwrap()).await;
        }
        assert_eq!(server.connections.get(), 2, "one whose window is used up, and one for the rest");
        echoes(before).await;
    })
    .await;
}

/// The same with a client that is not ours and has one connection for all.
#[tokio::test]
async fn a_client_of_theirs_with_one_connection_goes_on_as_well() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (server, _connections) = serve(&ca, Settings::default()).await;
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let config = their_client(&ca.credentials(&id("client")), &TLS13);
        let tls = TlsConnector::from(config).connect(mesh_identity::tls::dial_name(), tcp).await.unwrap();
        let (client, connection) = h2::client::handshake(tls).await.unwrap();
        spawn_local(connection);
        let ask = async |to: &str| {
            let mut client = client.clone().ready().await.unwrap();
            let request = Request::builder().method(Method::CONNECT).uri(to).body(()).unwrap();
            let (answer, body) = client.send_request(request, false).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            (answer.into_body(), body)
        };
        let good = ask("10.0.0.1:80").await;
        let mut stuck = Vec::new();
        for _ in 0..8 {
            let (answer, mut body) = ask("10.0.0.1:81").await;
            body.reserve_capacity(16 << 20);
            stuck.push((answer, body));
        }
        // Each sends what it is let send, until none is let send anything.
        let mut quiet = 0;
        while quiet < 30 {
            let mut sent = false;
            for (_, body) in &mut stuck {
                let room = body.capacity();
                if room > 0 {
                    body.send_data(vec![b'x'; room].into(), false).unwrap();
                    body.reserve_capacity(16 << 20);
                    sent = true;
                }
            }
            quiet = if sent { 0 } else { quiet + 1 };
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (mut answer, mut body) in [good, ask("10.0.0.1:80").await] {
            let said = vec![b'a'; 300_000];
            body.send_data(said.into(), true).unwrap();
            let mut heard = 0;
            while let Some(bytes) = answer.data().await {
                let bytes = bytes.unwrap();
                heard += bytes.len();
                answer.flow_control().release_capacity(bytes.len()).unwrap();
            }
            assert_eq!(heard, 300_000);
        }
    })
    .await;
}

/// Resolves when the application's connection has been reset, without anything of it being read.
async fn is_reset(connections: &Rc<RefCell<Vec<TcpStream>>>) {
    let taken = std::mem::take(&mut *connections.borrow_mut());
    for tcp in taken {
        tcp.ready(Interest::ERROR).await.unwrap();
        let error = tcp.take_error().unwrap().expect("an error");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn bytes_that_nobody_reads_end_with_their_caller() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (server, connections) = serve(&ca, Settings::default()).await;
        // Its stream is reset.
        let pool = Pool::new(Settings::default());
        let mut opened = open(&ca, &pool, server.address, "10.0.0.1:81").await.unwrap();
        fill(&mut opened).await;
        drop(opened);
        is_reset(&connections).await;
        // Its connection is gone.
        let who = ca.credentials(&id("client"));
        let mut tls = dial(server.address, &who, &id("server")).await.unwrap();
        let to_mute = b"\x02\x07CONNECT\x01\x0b10.0.0.1:81";
        say(&mut tls, &[greeting(), frame(HEADERS, END_HEADERS, 1, to_mute)].concat()).await;
        for _ in 0..260 {
            say(&mut tls, &frame(DATA, 0, 1, &[b'x'; 16_000])).await;
        }
        while connections.borrow().is_empty() {
            yield_now().await;
        }
        drop(tls);
        is_reset(&connections).await;
    })
    .await;
}

/// A caller that has said all and left is still heard by an application that takes its time, but not for ever.
#[tokio::test]
async fn what_a_caller_has_left_waits_for_an_application_that_goes_on_reading() {
    on_one_thread(async {
        let ca = TestCa::new();
        let left_timeout = Duration::from_millis(500);
        for reads in [true, false] {
            let limit = if reads { Settings::default().left_timeout } else { left_timeout };
            let (server, connections) = serve(&ca, Settings { left_timeout: limit, ..Settings::default() }).await;
            let who = ca.credentials(&id("client"));
            let mut tls = dial(server.address, &who, &id("server")).await.unwrap();
            let to_mute = b"\x02\x07CONNECT\x01\x0b10.0.0.1:81";
            say(&mut tls, &[greeting(), frame(HEADERS, END_HEADERS, 1, to_mute)].concat()).await;
            for _ in 0..259 {
                say(&mut tls, &frame(DATA, 0, 1, &[b'x'; 16_000])).await;
            }
            say(&mut tls, &frame(DATA, END_STREAM, 1, b"end")).await;
            while connections.borrow().is_empty() {
                yield_now().await;
            }
            // It hears the server, so that it does not leave before everything has been read.
            tls.shutdown().await.unwrap();
            drain(&mut tls).await;
            drop(tls);
            if !reads {
                is_reset(&connections).await;
                continue;
            }
            let mut application = connections.borrow_mut().pop().unwrap();
            let mut heard = Vec::new();
            application.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard.len(), 259 * 16_000 + 3);
            assert!(heard.ends_with(b"end"));
        }
    })
    .await;
}

/// Between two sockets: who breaks off is not waited for, though the other side takes nothing.
#[tokio::test]
async fn a_plain_connection_ends_with_who_breaks_it_off() {
    on_one_thread(async {
        let (mut caller, near) = tcp::pair().await;
        let (far, application) = tcp::pair().await;
        let carried = spawn_local(mesh_hbone::carry::tcp_and_tcp(near, far, Rc::new(hbone::Uncounted)));
        let piece = vec![b'x'; 256 << 10];
        while tokio::time::timeout(Duration::from_millis(300), caller.write_all(&piece)).await.is_ok() {}
        socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO)).unwrap();
        drop(caller);
        assert!(carried.await.unwrap().is_err());
        application.ready(Interest::ERROR).await.unwrap();
    })
    .await;
}

/// The same with a tunnel whose peer takes nothing.
#[tokio::test]
async fn a_tunnel_ends_with_the_application_that_breaks_it_off() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (server, connections) = serve(&ca, Settings::default()).await;
        let pool = Pool::new(Settings::default());
        let opened = open(&ca, &pool, server.address, "10.0.0.1:81").await.unwrap();
        let (mut caller, captured) = tcp::pair().await;
        hbone::carry(captured, opened.tunnel);
        let piece = vec![b'x'; 256 << 10];
        while tokio::time::timeout(Duration::from_millis(300), caller.write_all(&piece)).await.is_ok() {}
        socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO)).unwrap();
        drop(caller);
        is_reset(&connections).await;
    })
    .await;
}

/// A peer that is there and does not answer.
#[tokio::test]
async fn opening_a_tunnel_takes_no_longer_than_it_may() {
    on_one_thread(async {
        let ca = TestCa::new();
        let kept = RefCell::new(Vec::new());
        let server = hbone::serve(ca.credentials(&id("server")), Settings::default(), move |_, asked| {
            kept.borrow_mut().push(asked);
        });
        let server = server.await;
        // The handshake is part of it.
        let settings = Settings { open_timeout: Duration::from_secs(5), ..Settings::default() };
        let pool = Pool::new(settings);
        let error = open(&ca, &pool, server.address, "10.0.0.1:80").await.err().unwrap();
        assert_eq!(error.to_string(), "no answer to the request for a tunnel within 5 s");
        assert_eq!(pool.connections(), 1, "it is as good as before");
    })
    .await;
}

/// A server whose limit is 0 and that answers nothing costs one connection, and each caller is told why.
#[tokio::test]
async fn a_server_that_takes_no_tunnels_costs_one_connection() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = ca.credentials(&id("server"));
        let (accepted, heard, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (begin, hear, end) = (accepted.clone(), heard.clone(), ended.clone());
        let peer = tcp::listen(move |tcp| {
            let (server, begin, hear, end) = (server.clone(), begin.clone(), hear.clone(), end.clone());
            async move {
                let mut tls = answer(tcp, &server).await.unwrap();
                begin.set(begin.get() + 1);
                say(&mut tls, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])).await;
                tls.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
                until_frame(&mut tls, SETTINGS, ACK).await;
                hear.set(true);
                drain(&mut tls).await;
                end.set(end.get() + 1);
            }
        })
        .await;
        // The handshake is part of it.
        let pool = Pool::new(Settings { open_timeout: Duration::from_secs(5), ..Settings::default() });
        let first = async { open(&ca, &pool, peer, "10.0.0.1:80").await.err().unwrap() };
        let others = async {
            while !heard.get() {
                yield_now().await;
            }
            let all = (0..50).map(|_| open(&ca, &pool, peer, "10.0.0.1:80"));
            futures_util::future::join_all(all).await
        };
        let (first, others) = tokio::join!(first, others);
        assert!(matches!(first, OpenError::NoTunnels), "{first}");
        assert!(others.iter().all(|other| matches!(other, Err(OpenError::NoTunnels))));
        assert_eq!(accepted.get(), 1);
        pool.sweep();
        assert_eq!(pool.connections(), 0, "it is of no use");
        while ended.get() == 0 {
            yield_now().await;
        }
    })
    .await;
}

/// A tunnel that moved much has ended, and the peer's word that more may be sent is still under way: its connection is as
/// good as before.
#[tokio::test]
async fn a_connection_that_waits_for_its_window_is_kept() {
    on_one_thread(async {
        let ca = TestCa::new();
        let server = ca.credentials(&id("server"));
        let peer = tcp::listen(move |tcp| {
            let server = server.clone();
            async move {
                let mut tls = answer(tcp, &server).await.unwrap();
                say(&mut tls, &frame(SETTINGS, 0, 0, &[])).await;
                tls.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
                until_frame(&mut tls, HEADERS, END_HEADERS).await;
                say(&mut tls, &frame(HEADERS, END_HEADERS, 1, OK)).await;
                drain(&mut tls).await;
            }
        })
        .await;
        let pool = Pool::new(Settings::default());
        let mut opened = open(&ca, &pool, peer, "10.0.0.1:80").await.unwrap();
        // More than half of what a peer takes that has said nothing about it.
        opened.tunnel.sender.send(Bytes::from(vec![b'x'; 40_000])).await.unwrap();
        drop(opened);
        pool.sweep();
        assert_eq!(pool.connections(), 1, "it is not used, and will have room");
        let _other = open(&ca, &pool, peer, "10.0.0.1:80").await.unwrap();
        assert_eq!(pool.connections(), 2, "a tunnel does not wait for that room");
    })
    .await;
}
