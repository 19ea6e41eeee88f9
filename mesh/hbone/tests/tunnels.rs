//! Both ends of HBONE over real sockets and real TLS, on one thread as in a worker.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::Settings;
use mesh_hbone::carry::{self, Count};
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::{Key, Pool};
use mesh_hbone::server::{AcceptError, Connection};
use mesh_model::identity::SpiffeId;
use mesh_testkit::ca::TestCa;
use mesh_testkit::tcp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
}

struct Uncounted;

impl Count for Uncounted {
    fn forth(&self, _: usize) {}
    fn back(&self, _: usize) {}
}

async fn on_one_thread(test: impl Future<Output = ()>) {
    let thread = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(30), thread.run_until(test)).await.expect("the test hangs");
}

/// A server that carries every tunnel to a new connection of `application`, and counts connections.
struct Server {
    address: std::net::SocketAddr,
    connections: Rc<Cell<usize>>,
}

async fn serve(ca: Arc<TestCa>, who: &str, application: std::net::SocketAddr, settings: Settings) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let credentials = ca.credentials(&id(who));
    let connections = Rc::new(Cell::new(0));
    let counted = connections.clone();
    spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            counted.set(counted.get() + 1);
            let (config, settings) = (credentials.server_config(), settings.clone());
            spawn_local(async move {
                let Ok(mut connection) = Connection::accept(tcp, config, &settings).await else { return };
                while let Some(Ok(asked)) = connection.next().await {
                    if asked.authority.ends_with(":403") {
                        asked.refuse(StatusCode::UNAUTHORIZED, "POLICY_DENIED");
                        continue;
                    }
                    if asked.authority.ends_with(":999") {
                        // The peer goes away: open tunnels live on, new ones need another connection.
                        connection.go_away();
                    }
                    spawn_local(async move {
                        let tcp = TcpStream::connect(application).await.unwrap();
                        let tunnel = asked.accept("k8s.namespace.name=shop").unwrap();
                        let _ = carry::tcp_and_tunnel(tcp, tunnel, Rc::new(Uncounted)).await;
                    });
                }
            });
        }
    });
    Server { address, connections }
}

/// Answers the upper case of everything it read, once the caller has finished.
async fn shouting_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                let mut heard = Vec::new();
                if tcp.read_to_end(&mut heard).await.is_ok() {
                    heard.make_ascii_uppercase();
                    let _ = tcp.write_all(&heard).await;
                }
            });
        }
    });
    address
}

fn key(server: &Server, expected: &str) -> Key {
    Key {
        source: id("client"),
        source_ip: "127.0.0.1".parse().unwrap(),
        expected: vec![id(expected)],
        peer: server.address,
        workload: "server".into(),
    }
}

async fn open(
    pool: &Pool,
    ca: &TestCa,
    key: &Key,
    target: &str,
    settings: &Settings,
) -> Result<mesh_hbone::client::Opened, OpenError> {
    let request = connect::request(target, &Context::default()).unwrap();
    let credentials = ca.credentials(&key.source);
    let connect = || async {
        let tcp = TcpStream::connect(key.peer).await.unwrap();
        Client::handshake(tcp, credentials.client_config(&key.expected), &key.expected, settings).await
    };
    pool.open(key, request, connect).await.map(|(opened, _)| opened)
}

#[tokio::test]
async fn bytes_and_half_closes_pass_both_ways() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let opened = open(&pool, &ca, &key(&server, "server"), "10.0.0.1:80", &settings).await.unwrap();
        assert_eq!(opened.headers["baggage"], "k8s.namespace.name=shop");
        let (mut application, captured) = tcp::pair().await;
        spawn_local(async move { carry::tcp_and_tunnel(captured, opened.tunnel, Rc::new(Uncounted)).await.unwrap() });
        // More than every window and buffer on the way, so that flow control takes part.
        let said = vec![b'a'; 40 << 20];
        let (mut read, mut write) = application.split();
        let (answer, ()) = tokio::join!(
            async {
                let mut answer = Vec::new();
                read.read_to_end(&mut answer).await.unwrap();
                answer
            },
            async {
                write.write_all(&said).await.unwrap();
                // The server answers only after this: a half-close that got lost would hang the test.
                write.shutdown().await.unwrap();
            }
        );
        assert!(answer.len() == said.len() && answer.iter().all(|b| *b == b'A'));
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_somebody_else_gets_no_byte() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        let server = serve(ca.clone(), "imposter", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let refused = open(&pool, &ca, &key(&server, "server"), "10.0.0.1:80", &settings).await.err().unwrap();
        let said = refused.to_string();
        assert!(matches!(refused, OpenError::Tls { .. }), "{said}");
        assert!(
            said.contains("sa/server") && said.contains("sa/imposter"),
            "says who was expected and who came: {said}"
        );
    })
    .await;
}

/// Row I1.
#[tokio::test]
async fn a_caller_of_another_root_is_not_heard() {
    on_one_thread(async {
        let (ours, theirs) = (TestCa::new(), TestCa::new());
        let (dialled, accepted) = tcp::pair().await;
        let caller = theirs.credentials(&id("client"));
        let expected = [id("server")];
        let settings = Settings::default();
        let (client, server) = tokio::join!(
            Client::handshake(dialled, caller.client_config(&expected), &expected, &settings),
            Connection::accept(accepted, ours.credentials(&id("server")).server_config(), &settings),
        );
        assert!(client.is_err());
        assert!(matches!(server, Err(AcceptError::Tls(_))));
    })
    .await;
}

#[tokio::test]
async fn a_refusal_says_its_status_and_reason() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let error = open(&pool, &ca, &key(&server, "server"), "10.0.0.1:403", &settings).await.err().unwrap();
        assert_eq!(error.to_string(), "http status: 401 Unauthorized (POLICY_DENIED)");
    })
    .await;
}

#[tokio::test]
async fn tunnels_share_connections_up_to_the_smaller_limit() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        // Trap 20: the peer allows fewer streams than we would open.
        let settings = Settings { server_streams: 3, ..Settings::default() };
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let key = key(&server, "server");
        let mut tunnels = Vec::new();
        for _ in 0..7 {
            tunnels.push(open(&pool, &ca, &key, "10.0.0.1:80", &settings).await.unwrap());
        }
        assert_eq!((server.connections.get(), pool.connections()), (3, 3));
        // Ended tunnels give their places back.
        tunnels.clear();
        open(&pool, &ca, &key, "10.0.0.1:80", &settings).await.unwrap();
        assert_eq!(server.connections.get(), 3);
    })
    .await;
}

#[tokio::test]
async fn one_connection_is_made_for_a_burst() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let key = key(&server, "server");
        let burst = (0..50).map(|_| open(&pool, &ca, &key, "10.0.0.1:80", &settings));
        let opened = futures_util::future::join_all(burst).await;
        assert!(opened.iter().all(Result::is_ok));
        assert_eq!(server.connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_and_its_tunnels_live_on() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let key = key(&server, "server");
        let before = open(&pool, &ca, &key, "10.0.0.1:999", &settings).await.unwrap();
        for _ in 0..5 {
            open(&pool, &ca, &key, "10.0.0.1:80", &settings).await.expect("no new tunnel may fail");
        }
        assert_eq!(server.connections.get(), 2);
        let (mut application, captured) = tcp::pair().await;
        spawn_local(async move { carry::tcp_and_tunnel(captured, before.tunnel, Rc::new(Uncounted)).await.unwrap() });
        application.write_all(b"still here").await.unwrap();
        application.shutdown().await.unwrap();
        let mut answer = String::new();
        application.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "STILL HERE");
    })
    .await;
}

#[tokio::test]
async fn unused_connections_are_let_go() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings { unused_release: Duration::ZERO, ..Settings::default() };
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let key = key(&server, "server");
        let opened = open(&pool, &ca, &key, "10.0.0.1:80", &settings).await.unwrap();
        pool.sweep();
        assert_eq!(pool.connections(), 1, "it is in use");
        drop(opened);
        pool.sweep();
        assert_eq!(pool.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn connections_of_a_workload_that_is_gone_are_used_no_more_and_their_tunnels_live_on() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        let server = serve(ca.clone(), "server", shouting_server().await, settings.clone()).await;
        let pool = Pool::new(settings.clone());
        let stays = key(&server, "server");
        let goes = Key { workload: "gone".into(), ..stays.clone() };
        open(&pool, &ca, &stays, "10.0.0.1:80", &settings).await.unwrap();
        let before = open(&pool, &ca, &goes, "10.0.0.1:80", &settings).await.unwrap();
        assert_eq!((server.connections.get(), pool.connections()), (2, 2));
        pool.retain(|key| &*key.workload != "gone");
        assert_eq!(pool.connections(), 1);
        // Whoever has its name or its address next gets a connection of its own.
        open(&pool, &ca, &goes, "10.0.0.1:80", &settings).await.unwrap();
        open(&pool, &ca, &stays, "10.0.0.1:80", &settings).await.unwrap();
        assert_eq!(server.connections.get(), 3);
        let (mut application, captured) = tcp::pair().await;
        spawn_local(async move { carry::tcp_and_tunnel(captured, before.tunnel, Rc::new(Uncounted)).await.unwrap() });
        application.write_all(b"still here").await.unwrap();
        application.shutdown().await.unwrap();
        let mut answer = String::new();
        application.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "STILL HERE");
    })
    .await;
}

#[tokio::test]
async fn a_cut_is_not_taken_for_an_end() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings::default();
        // An application that says half of something and dies.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(ca.clone(), "server", address, settings.clone()).await;
        spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            tcp.read_exact(&mut byte).await.unwrap();
            tcp.write_all(b"half of").await.unwrap();
            tcp.read_exact(&mut byte).await.unwrap();
            #[allow(deprecated, reason = "a reset is what this test is about; it does not block with no linger time")]
            tcp.set_linger(Some(Duration::ZERO)).unwrap();
        });
        let pool = Pool::new(settings.clone());
        let opened = open(&pool, &ca, &key(&server, "server"), "10.0.0.1:80", &settings).await.unwrap();
        let (mut application, captured) = tcp::pair().await;
        spawn_local(async move { carry::tcp_and_tunnel(captured, opened.tunnel, Rc::new(Uncounted)).await });
        application.write_all(b"?").await.unwrap();
        let mut heard = [0; 7];
        application.read_exact(&mut heard).await.unwrap();
        application.write_all(b"?").await.unwrap();
        let error = application.read(&mut heard).await.expect_err("an end would hide that the rest is missing");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_gone_is_found_by_ping() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let settings = Settings {
            ping_interval: Duration::from_millis(20),
            ping_timeout: Duration::from_millis(100),
            ..Settings::default()
        };
        // The network between the two, until it is gone without a word: its sockets stay open.
        let (dialled, mut near) = tcp::pair().await;
        let (mut far, accepted) = tcp::pair().await;
        let (cut, is_cut) = tokio::sync::oneshot::channel::<()>();
        spawn_local(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = is_cut => std::future::pending().await,
            }
        });
        let (ours, theirs) = (ca.credentials(&id("client")), ca.credentials(&id("server")));
        let expected = [id("server")];
        let (client, server) = tokio::join!(
            Client::handshake(dialled, ours.client_config(&expected), &expected, &settings),
            Connection::accept(accepted, theirs.server_config(), &settings),
        );
        let (client, mut server) = (client.unwrap(), server.unwrap());
        // While it is there, both live much longer than a PING may take.
        tokio::time::sleep(3 * settings.ping_timeout).await;
        assert!(!client.is_closed());
        cut.send(()).unwrap();
        let error = server.next().await.expect("no end, a failure").err().expect("nobody asks for anything");
        assert_eq!(error.to_string(), "the peer does not answer PING");
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn carrying_that_is_given_up_resets_both_sides() {
    on_one_thread(async {
        let (mut client, captured) = tcp::pair().await;
        let (dialled, mut server) = tcp::pair().await;
        let carrying = spawn_local(async move { carry::tcp_and_tcp(captured, dialled, Rc::new(Uncounted)).await });
        client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).await.unwrap();
        carrying.abort();
        for end in [&mut client, &mut server] {
            let error = end.read(&mut byte).await.expect_err("an end would look like the application's own");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    })
    .await;
}
