//! Both tunnels over real sockets, with real TLS at each of the three ends: our side, the gateway, whoever is behind it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::carry::{self, Count};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::server::Connection;
use mesh_testkit::ca::TestCa;
use mesh_testkit::tcp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::*;

const ASKED: &str = "cart.shop.svc.cluster.local:80";

fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
}

struct Uncounted;

impl Count for Uncounted {
    fn forth(&self, _: usize) {}
    fn back(&self, _: usize) {}
}

/// What one end was asked, and on how many connections.
#[derive(Default)]
struct Seen {
    connections: usize,
    /// Caller, authority, and the network that was named.
    tunnels: Vec<(String, String, Option<String>)>,
}

/// An HBONE server that proves to be `who` and carries each tunnel to a connection of `to`; to nobody, it refuses.
async fn serve(ca: &Arc<TestCa>, who: &str, to: Result<SocketAddr, StatusCode>) -> (SocketAddr, Rc<RefCell<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let credentials = ca.credentials(&id(who));
    let seen: Rc<RefCell<Seen>> = Rc::default();
    let told = seen.clone();
    spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            told.borrow_mut().connections += 1;
            let (config, told) = (credentials.server_config(), told.clone());
            spawn_local(async move {
                let Ok(mut connection) = Connection::accept(tcp, config, &Settings::default()).await else { return };
                while let Some(Ok(asked)) = connection.next().await {
                    let network = asked.headers.get("x-forwarded-network").map(|v| v.to_str().unwrap().to_owned());
                    let caller = connection.peer.service_account().to_string();
                    told.borrow_mut().tunnels.push((caller, asked.authority.clone(), network));
                    match to {
                        Err(status) => asked.refuse(status, "POLICY_DENIED"),
                        Ok(to) => {
                            spawn_local(async move {
                                let tcp = TcpStream::connect(to).await.unwrap();
                                let _ = carry::tcp_and_tunnel(tcp, asked.accept("").unwrap(), Rc::new(Uncounted)).await;
                            });
                        }
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Answers the upper case of all it read, once the caller has finished; at a question mark it dies instead.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                let mut heard = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = tcp.read(&mut piece).await {
                    heard.extend_from_slice(&piece[..n]);
                    if heard.ends_with(b"?") {
                        tcp.write_all(b"half of").await.unwrap();
                        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
                        return;
                    }
                }
                heard.make_ascii_uppercase();
                let _ = tcp.write_all(&heard).await;
            });
        }
    });
    address
}

/// Our side: a pool, and the gateway at `gateway`, which must be `shop/gw`.
struct Caller {
    ca: Arc<TestCa>,
    pool: Pool,
    key: Key,
}

impl Caller {
    fn new(ca: &Arc<TestCa>, gateway: SocketAddr) -> Self {
        let key = Key {
            source: id("client"),
            source_ip: "127.0.0.1".parse().unwrap(),
            expected: vec![id("gw")],
            peer: gateway,
            workload: "gw".into(),
        };
        Self { ca: ca.clone(), pool: Pool::new(Settings::default()), key }
    }

    async fn open(&self, expected: &[SpiffeId]) -> Result<(Opened, Option<SpiffeId>), AcrossError> {
        let request = |network| connect::request(ASKED, &Context { network, ..Context::default() }).unwrap();
        let requests = Requests { outer: request(None), inner: request(Some("here")) };
        let credentials = self.ca.credentials(&self.key.source);
        let settings = Settings::default();
        let connect = || async {
            let tcp = TcpStream::connect(self.key.peer).await.unwrap();
            let expected = &self.key.expected;
            super::Client::handshake(tcp, credentials.client_config(expected), expected, &settings).await
        };
        open(&self.pool, &self.key, expected, requests, &credentials, &settings, connect).await
    }
}

async fn on_one_thread(test: impl Future<Output = ()>) {
    let thread = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(30), thread.run_until(test)).await.expect("the test hangs");
}

#[tokio::test]
async fn bytes_cross_and_only_the_outer_connection_is_shared() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let (far, behind) = serve(&ca, "cart-far", Ok(application().await)).await;
        let (gateway, before) = serve(&ca, "gw", Ok(far)).await;
        let client = Caller::new(&ca, gateway);
        for _ in 0..2 {
            let (opened, peer) = client.open(&[id("cart"), id("cart-far")]).await.unwrap();
            assert_eq!(peer, Some(id("cart-far")), "who answered");
            let (mut application, captured) = tcp::pair().await;
            spawn_local(
                async move { carry::tcp_and_tunnel(captured, opened.tunnel, Rc::new(Uncounted)).await.unwrap() },
            );
            // More than the windows of both connections, so that both flow controls take part.
            let said = vec![b'a'; 20 << 20];
            let (mut read, mut write) = application.split();
            let mut answer = Vec::new();
            let (heard, ()) = tokio::join!(read.read_to_end(&mut answer), async {
                write.write_all(&said).await.unwrap();
                write.shutdown().await.unwrap();
            });
            heard.unwrap();
            assert!(answer.len() == said.len() && answer.iter().all(|b| *b == b'A'));
        }
        let tunnel = |network: Option<&str>| ("client".to_owned(), ASKED.to_owned(), network.map(str::to_owned));
        let (before, behind) = (before.borrow(), behind.borrow());
        assert_eq!((before.connections, behind.connections), (1, 2), "trap 21: the inner connection is not pooled");
        assert_eq!(before.tunnels, vec![tunnel(None); 2], "4.7: the outer CONNECT; trap 15: no network on it");
        assert_eq!(behind.tunnels, vec![tunnel(Some("here")); 2], "4.7: the inner CONNECT; trap 15: our network on it");
    })
    .await;
}

#[tokio::test]
async fn each_end_has_to_prove_itself() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let application = application().await;
        for (name, gateway_is, far_is, error) in [
            ("the gateway is somebody else", "imposter", "cart", "network gateway "),
            // Trap 21: not the gateway's own identity, nor the workload's, only those that the service names.
            ("trap 21: the far end is none of the service's names", "gw", "other", "behind network gateway "),
            ("trap 21: the gateway cannot answer for the service", "gw", "gw", "behind network gateway "),
        ] {
            let (far, behind) = serve(&ca, far_is, Ok(application)).await;
            let (gateway, _) = serve(&ca, gateway_is, Ok(far)).await;
            let refused = Caller::new(&ca, gateway).open(&[id("cart")]).await.err().expect(name);
            assert!(matches!(refused.error, OpenError::Tls { .. }), "{name}: {refused}");
            assert!(refused.to_string().starts_with(&format!("{error}{gateway}: ")), "{name}: {refused}");
            assert!(behind.borrow().tunnels.is_empty(), "{name}: nothing was asked for");
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_say_at_which_end() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let (far, _) = serve(&ca, "cart", Err(StatusCode::UNAUTHORIZED)).await;
        for (to, error) in [
            (Err(StatusCode::SERVICE_UNAVAILABLE), "network gateway {}: http status: 503 Service Unavailable"),
            (Ok(far), "behind network gateway {}: http status: 401 Unauthorized"),
        ] {
            let (gateway, _) = serve(&ca, "gw", to).await;
            let refused = Caller::new(&ca, gateway).open(&[id("cart")]).await.err().unwrap();
            assert!(refused.to_string().starts_with(&error.replace("{}", &gateway.to_string())), "{refused}");
        }
        // A gateway that lets us through to somebody who hangs up at once.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = listener.local_addr().unwrap();
        spawn_local(async move { while listener.accept().await.is_ok() {} });
        let (gateway, _) = serve(&ca, "gw", Ok(nobody)).await;
        let refused = Caller::new(&ca, gateway).open(&[id("cart")]).await.err().unwrap();
        assert!(refused.to_string().starts_with("behind network gateway"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn a_cut_behind_the_gateway_is_not_taken_for_an_end() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let (far, _) = serve(&ca, "cart", Ok(application().await)).await;
        let (gateway, _) = serve(&ca, "gw", Ok(far)).await;
        let (opened, _) = Caller::new(&ca, gateway).open(&[id("cart")]).await.unwrap();
        let (mut application, captured) = tcp::pair().await;
        spawn_local(async move { carry::tcp_and_tunnel(captured, opened.tunnel, Rc::new(Uncounted)).await });
        application.write_all(b"?").await.unwrap();
        let mut heard = Vec::new();
        let error = application.read_to_end(&mut heard).await.expect_err("an end would hide that the rest is missing");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    })
    .await;
}
