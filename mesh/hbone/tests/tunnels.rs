//! Both ends of HBONE over real sockets and real TLS, on one thread as in a worker.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::Settings;
use mesh_hbone::carry;
use mesh_hbone::client::{Client, OpenError, Opened};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::{Key, Pool};
use mesh_hbone::server::{AcceptError, Connection};
use mesh_model::reason::ReasonCode;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, Server, Uncounted, id, let_in, on_one_thread};
use mesh_testkit::tcp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

/// A CA, a server of its own with an application behind it, and a pool to ask it from.
struct World {
    ca: TestCa,
    settings: Settings,
    server: Server,
    pool: Pool,
    key: Key,
}

impl World {
    async fn new(settings: Settings) -> Self {
        Self::with("server", tcp::shouting().await, settings).await
    }

    /// With a server that proves to be `who`, in front of `application`.
    async fn with(who: &str, application: SocketAddr, settings: Settings) -> Self {
        let ca = TestCa::new();
        let server = hbone::serve(ca.credentials(&id(who)), settings.clone(), move |connection, asked| {
            if asked.authority.ends_with(":403") {
                return asked.refuse(StatusCode::UNAUTHORIZED, ReasonCode::PolicyDenied);
            }
            if asked.authority.ends_with(":999") {
                // The peer goes away: open tunnels live on, new ones need another connection.
                connection.go_away();
            }
            let_in(asked, application, "k8s.namespace.name=shop");
        })
        .await;
        let (pool, key) = (Pool::new(settings.clone()), hbone::key("client", "server", server.address));
        Self { ca, settings, server, pool, key }
    }

    async fn open(&self, target: &str) -> Result<Opened, OpenError> {
        self.open_with(&self.key, target).await
    }

    async fn open_with(&self, key: &Key, target: &str) -> Result<Opened, OpenError> {
        let request = connect::request(target, &Context::default()).unwrap();
        let credentials = self.ca.credentials(&key.source);
        let connect = || hbone::dial(key.peer, &credentials, &key.expected, &self.settings);
        self.pool.open(key, request, connect).await.map(|(opened, _)| opened)
    }

    /// How many connections the server has seen, and how many the pool holds.
    fn connections(&self) -> (usize, usize) {
        (self.server.connections.get(), self.pool.connections())
    }
}

/// An application at the near end of a tunnel.
async fn application(opened: Opened) -> TcpStream {
    let (near, captured) = tcp::pair().await;
    hbone::carry(captured, opened.tunnel);
    near
}

/// Bytes still pass a tunnel, to its end.
async fn still_carries(opened: Opened) {
    let mut near = application(opened).await;
    near.write_all(b"still here").await.unwrap();
    near.shutdown().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "STILL HERE");
}

#[tokio::test]
async fn bytes_and_half_closes_pass_both_ways() {
    on_one_thread(async {
        let world = World::new(Settings::default()).await;
        let opened = world.open("10.0.0.1:80").await.unwrap();
        assert_eq!(opened.headers["baggage"], "k8s.namespace.name=shop");
        let mut application = application(opened).await;
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
        let world = World::with("imposter", tcp::shouting().await, Settings::default()).await;
        let refused = world.open("10.0.0.1:80").await.err().unwrap();
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
        let world = World::new(Settings::default()).await;
        let error = world.open("10.0.0.1:403").await.err().unwrap();
        assert_eq!(error.to_string(), "http status: 401 Unauthorized (POLICY_DENIED)");
    })
    .await;
}

#[tokio::test]
async fn tunnels_share_connections_up_to_the_smaller_limit() {
    on_one_thread(async {
        // Trap 20: the peer allows fewer streams than we would open.
        let world = World::new(Settings { server_streams: 3, ..Settings::default() }).await;
        let mut tunnels = Vec::new();
        for _ in 0..7 {
            tunnels.push(world.open("10.0.0.1:80").await.unwrap());
        }
        assert_eq!(world.connections(), (3, 3));
        // Ended tunnels give their places back.
        tunnels.clear();
        world.open("10.0.0.1:80").await.unwrap();
        assert_eq!(world.server.connections.get(), 3);
    })
    .await;
}

#[tokio::test]
async fn one_connection_is_made_for_a_burst() {
    on_one_thread(async {
        let world = World::new(Settings::default()).await;
        let burst = (0..50).map(|_| world.open("10.0.0.1:80"));
        let opened = futures_util::future::join_all(burst).await;
        assert!(opened.iter().all(Result::is_ok));
        assert_eq!(world.server.connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_and_its_tunnels_live_on() {
    on_one_thread(async {
        let world = World::new(Settings::default()).await;
        let before = world.open("10.0.0.1:999").await.unwrap();
        for _ in 0..5 {
            world.open("10.0.0.1:80").await.expect("no new tunnel may fail");
        }
        assert_eq!(world.server.connections.get(), 2);
        still_carries(before).await;
    })
    .await;
}

#[tokio::test]
async fn unused_connections_are_let_go() {
    on_one_thread(async {
        let world = World::new(Settings { unused_release: Duration::ZERO, ..Settings::default() }).await;
        let opened = world.open("10.0.0.1:80").await.unwrap();
        world.pool.sweep();
        assert_eq!(world.pool.connections(), 1, "it is in use");
        drop(opened);
        world.pool.sweep();
        assert_eq!(world.pool.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn connections_of_a_workload_that_is_gone_are_used_no_more_and_their_tunnels_live_on() {
    on_one_thread(async {
        let world = World::new(Settings::default()).await;
        let goes = Key { workload: "gone".into(), ..world.key.clone() };
        world.open("10.0.0.1:80").await.unwrap();
        let before = world.open_with(&goes, "10.0.0.1:80").await.unwrap();
        assert_eq!(world.connections(), (2, 2));
        world.pool.retain(|key| &*key.workload != "gone");
        assert_eq!(world.pool.connections(), 1);
        // Whoever has its name or its address next gets a connection of its own.
        world.open_with(&goes, "10.0.0.1:80").await.unwrap();
        world.open("10.0.0.1:80").await.unwrap();
        assert_eq!(world.server.connections.get(), 3);
        still_carries(before).await;
    })
    .await;
}

/// Trap 19, and more: a connection is for one key, and every part of a key counts.
#[tokio::test]
async fn a_connection_is_for_one_key() {
    on_one_thread(async {
        let world = World::new(Settings::default()).await;
        let same = || world.key.clone();
        world.open("10.0.0.1:80").await.unwrap();
        for (part, key) in [
            ("who we are", Key { source: id("other"), ..same() }),
            ("where we call from", Key { source_ip: "127.0.0.2".parse().unwrap(), ..same() }),
            ("who the peer must be", Key { expected: vec![id("server"), id("other")], ..same() }),
            ("the peer's workload", Key { workload: "other".into(), ..same() }),
        ] {
            let before = world.server.connections.get();
            for _ in 0..2 {
                world.open_with(&key, "10.0.0.1:80").await.unwrap();
                assert_eq!(world.server.connections.get(), before + 1, "{part}");
            }
        }
        let credentials = world.ca.credentials(&id("server"));
        let other = hbone::serve(credentials, Settings::default(), |_, asked| drop(asked.accept(""))).await;
        world.open_with(&Key { peer: other.address, ..same() }, "10.0.0.1:80").await.unwrap();
        assert_eq!(other.connections.get(), 1, "the peer's address");
    })
    .await;
}

#[tokio::test]
async fn a_cut_is_not_taken_for_an_end() {
    on_one_thread(async {
        let world = World::with("server", tcp::breaking_off().await, Settings::default()).await;
        let opened = world.open("10.0.0.1:80").await.unwrap();
        let mut application = application(opened).await;
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
        let ca = TestCa::new();
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
