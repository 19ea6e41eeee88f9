//! Both tunnels over real sockets, with real TLS at each of the three ends: our side, the gateway, whoever is behind it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::StatusCode;
use mesh_hbone::connect::{self, Context};
use mesh_model::reason::ReasonCode;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id, let_in, on_one_thread};
use mesh_testkit::tcp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const ASKED: &str = "cart.shop.svc.cluster.local:80";

/// What one end was asked, and on how many connections.
struct Seen {
    connections: Rc<Cell<usize>>,
    tunnels: Rc<RefCell<Vec<Tunnel>>>,
}

/// Caller, authority, and the network that was named.
type Tunnel = (String, String, Option<String>);

/// An HBONE server that proves to be `who` and carries each tunnel to a connection of `to`; to nobody, it refuses.
async fn serve(ca: &TestCa, who: &str, to: Result<SocketAddr, StatusCode>) -> (SocketAddr, Seen) {
    let tunnels: Rc<RefCell<Vec<Tunnel>>> = Rc::default();
    let told = tunnels.clone();
    let server = hbone::serve(ca.credentials(&id(who)), Settings::default(), move |connection, asked| {
        let network = asked.headers.get("x-forwarded-network").map(|v| v.to_str().unwrap().to_owned());
        let caller = connection.peer.service_account().to_string();
        told.borrow_mut().push((caller, asked.authority.clone(), network));
        match to {
            Err(status) => asked.refuse(status, ReasonCode::PolicyDenied),
            Ok(to) => let_in(asked, to, ""),
        }
    })
    .await;
    (server.address, Seen { connections: server.connections, tunnels })
}

/// Our side: a pool, and the gateway at `gateway`, which must be `shop/gw`.
struct Caller {
    ca: Arc<TestCa>,
    pool: Pool,
    key: Key,
}

impl Caller {
    fn new(ca: &Arc<TestCa>, gateway: SocketAddr) -> Self {
        Self { ca: ca.clone(), pool: Pool::new(Settings::default()), key: hbone::key("client", "gw", gateway) }
    }

    async fn open(&self, expected: &[SpiffeId]) -> Result<(Opened, Option<SpiffeId>), AcrossError> {
        let request = |network| connect::request(ASKED, &Context { network, ..Context::default() }).unwrap();
        let requests = Requests { outer: request(None), inner: request(Some("here")) };
        let credentials = self.ca.credentials(&self.key.source);
        let settings = Settings::default();
        let connect = || hbone::dial(self.key.peer, &credentials, &self.key.expected, &settings);
        open(&self.pool, &self.key, expected, requests, credentials.clone(), &settings, connect).await
    }
}

#[tokio::test]
async fn bytes_cross_and_only_the_outer_connection_is_shared() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let (far, behind) = serve(&ca, "cart-far", Ok(tcp::shouting().await)).await;
        let (gateway, before) = serve(&ca, "gw", Ok(far)).await;
        let client = Caller::new(&ca, gateway);
        for _ in 0..2 {
            let (opened, peer) = client.open(&[id("cart"), id("cart-far")]).await.unwrap();
            assert_eq!(peer, Some(id("cart-far")), "who answered");
            let (mut application, captured) = tcp::pair().await;
            hbone::carry(captured, opened.tunnel);
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
        assert_eq!(
            (before.connections.get(), behind.connections.get()),
            (1, 2),
            "trap 21: the inner connection is not pooled"
        );
        assert_eq!(
            *before.tunnels.borrow(),
            vec![tunnel(None); 2],
            "4.7: the outer CONNECT; trap 15: no network on it"
        );
        assert_eq!(
            *behind.tunnels.borrow(),
            vec![tunnel(Some("here")); 2],
            "4.7: the inner CONNECT; trap 15: our network on it"
        );
    })
    .await;
}

#[tokio::test]
async fn each_end_has_to_prove_itself() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let application = tcp::shouting().await;
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
            assert!(behind.tunnels.borrow().is_empty(), "{name}: nothing was asked for");
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
        let nobody = tcp::listen(async |_| {}).await;
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
        let (far, _) = serve(&ca, "cart", Ok(tcp::breaking_off().await)).await;
        let (gateway, _) = serve(&ca, "gw", Ok(far)).await;
        let (opened, _) = Caller::new(&ca, gateway).open(&[id("cart")]).await.unwrap();
        let (mut application, captured) = tcp::pair().await;
        hbone::carry(captured, opened.tunnel);
        application.write_all(b"?").await.unwrap();
        let mut heard = [0; 7];
        application.read_exact(&mut heard).await.unwrap();
        application.write_all(b"?").await.unwrap();
        let error = application.read(&mut heard).await.expect_err("an end would hide that the rest is missing");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    })
    .await;
}
