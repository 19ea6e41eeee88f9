//! What becomes of connections when the world changes under them: pods go, addresses change hands, certificates are
//! taken back.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use mesh_hbone::client::Opened;
use mesh_hbone::server::Connection;
use mesh_identity::revocation::Revocations;
use mesh_identity::tls::TlsOptions;
use mesh_model::resource::Kind;
use mesh_runtime::metrics::TextFormat;

use super::*;

/// An address of loopback that only this process uses, with port 15008 free.
fn own_address() -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 15, high, low).into()
}

/// An HBONE server that proves to be `who` at `address`, says again what it hears, and counts its connections.
async fn peer(ca: &TestCa, who: &str, address: IpAddr) -> Rc<Cell<usize>> {
    let listener = TcpListener::bind((address, mesh_model::destination::HBONE_PORT)).await.unwrap();
    let credentials = ca.credentials(&id(who));
    let connections = Rc::new(Cell::new(0));
    let counted = connections.clone();
    spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (config, counted) = (credentials.server_config(), counted.clone());
            spawn_local(async move {
                let Ok(mut connection) = Connection::accept(tcp, config, &Default::default()).await else { return };
                counted.set(counted.get() + 1);
                while let Some(Ok(asked)) = connection.next().await {
                    spawn_local(async move {
                        let mut tunnel = asked.accept("").unwrap();
                        while let Ok(Some(heard)) = tunnel.receiver.receive().await {
                            tunnel.receiver.taken(heard.len());
                            tunnel.sender.send(heard).await.unwrap();
                        }
                    });
                }
            });
        }
    });
    connections
}

/// What comes back of a word on an open connection.
async fn again(tcp: &mut TcpStream, word: &str) -> std::io::Result<String> {
    tcp.write_all(word.as_bytes()).await?;
    let mut heard = vec![0; word.len()];
    tcp.read_exact(&mut heard).await?;
    Ok(String::from_utf8(heard).unwrap())
}

async fn through(opened: &mut Opened, word: &'static str) -> String {
    opened.tunnel.sender.send(word.into()).await.unwrap();
    let heard = opened.tunnel.receiver.receive().await.unwrap().expect("no end");
    opened.tunnel.receiver.taken(heard.len());
    String::from_utf8(heard.to_vec()).unwrap()
}

/// 4.6: the control plane tells of the pod no more. Its callers are sent away, what is open goes on, and ends when the
/// node agent takes the pod back.
#[tokio::test]
async fn a_pod_that_terminates_sends_its_callers_away_and_open_tunnels_go_on() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let cart = ("cart", ztunnel.serve("cart").hbone);
        let pay = ("pay", ztunnel.serve("pay").hbone);
        let application = format!("127.0.0.1:{}", echo().await);
        ztunnel.tables.apply_local(["cart", "pay"].map(|name| Resource::Workload(Arc::new(pod(name)))).to_vec());
        let ask = || connect::request(&application, &Context::default()).unwrap();
        let (mut caller, from) = ztunnel.caller(cart).await;
        let (mut bystander, _) = ztunnel.caller(pay).await;
        let mut opened = caller.open(&ask()).await.unwrap();
        let mut others = bystander.open(&ask()).await.unwrap();
        assert_eq!(through(&mut opened, "before").await, "BEFORE");

        ztunnel.tables.apply(Kind::Address, Vec::new(), vec!["cart".into()]).await;
        while !caller.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(caller.open(&ask()).await, Err(OpenError::Closed)), "a pool opens another connection then");
        assert_eq!(through(&mut opened, "after").await, "AFTER");
        // One that is new finds a pod that nobody knows.
        let tcp = TcpStream::connect(cart.1).await.unwrap();
        let line = ztunnel.logged(&tcp.local_addr().unwrap().to_string()).await;
        assert!(line.contains("UNKNOWN_WORKLOAD"), "{line}");

        ztunnel.worker.commands.send(Command::Stop("cart".into())).ok().unwrap();
        let cut = opened.tunnel.receiver.receive().await;
        assert!(cut.is_err(), "a cut, not an end: {cut:?}");
        let line = ztunnel.logged("POD_GONE").await;
        assert!(line.contains(&from.to_string()) && line.contains("direction=\"inbound\""), "{line}");
        assert!(!bystander.is_closed() && through(&mut others, "still").await == "STILL", "another pod's callers");
    })
    .await;
}

/// An address changes hands, and a connection to who had it is kept for reuse: nobody who means the new pod is taken
/// to the old one, not even where both are of one service account.
#[tokio::test]
async fn a_reused_address_is_no_way_to_the_pod_that_had_it() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let client = ztunnel.serve("client");
        let address = own_address();
        let connections = peer(&ztunnel.ca, "cart", address).await;
        let at = |uid: &str, account: &str| {
            let workload = Workload { addresses: vec![address], service_account: account.into(), ..pod(uid) };
            Resource::Workload(Arc::new(workload))
        };
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("client"))), at("cart-1", "cart")]);
        let dial = || TcpStream::connect((address, client.outbound));
        let mut open = dial().await.unwrap();
        assert_eq!(again(&mut open, "first").await.unwrap(), "first");
        assert_eq!(again(&mut dial().await.unwrap(), "second").await.unwrap(), "second");
        assert_eq!(connections.get(), 1, "kept for reuse");

        // Another pod of the same account: proven anew.
        ztunnel.tables.apply(Kind::Address, vec![at("cart-2", "cart")], vec!["cart-1".into()]).await;
        assert_eq!(again(&mut dial().await.unwrap(), "third").await.unwrap(), "third");
        assert_eq!(connections.get(), 2, "not on the connection to the pod that is gone");
        assert_eq!(again(&mut open, "still").await.unwrap(), "still", "what is open goes on");

        // A pod of another account, while the old one still answers there: not a byte.
        ztunnel.tables.apply(Kind::Address, vec![at("pay-1", "pay")], vec!["cart-2".into()]).await;
        let mut wrong = dial().await.unwrap();
        assert!(again(&mut wrong, "secret").await.is_err());
        let line = ztunnel.logged("TLS_FAILED").await;
        assert!(
            line.contains("sa/pay") && line.contains("the peer is spiffe://cluster.local/ns/shop/sa/cart"),
            "{line}"
        );
        assert_eq!(connections.get(), 2);
    })
    .await;
}

/// Contract 4.1, "CRL": who serves us is taken back while a connection is open. Each end of both tunnels counts.
#[tokio::test]
async fn a_server_that_is_revoked_later_is_cut_and_the_log_says_so() {
    with_rights(async {
        for revoked in ["gw", "cart"] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("crl.pem");
            let revocations = Revocations::of_file(&file);
            let tls = TlsOptions { revocations: revocations.clone(), ..TlsOptions::default() };
            let mut ztunnel = Ztunnel::with_options(&[], StoreOptions { tls, ..StoreOptions::default() });
            let ca = ztunnel.ca.clone();
            let revoke = |serials: &[&str]| {
                std::fs::write(&file, ca.revoke(serials)).unwrap();
                revocations.reload().unwrap();
            };
            revoke(&[]);
            let (client, server) = (ztunnel.serve("client"), ztunnel.serve("cart"));
            let (app, port) = (echo().await, client.outbound);
            let gw = ca.credentials(&id("gw"));
            let at = gateway_of(gw.clone(), server.hbone).await;
            ztunnel.tables.apply_local(two_networks(at, port, app));
            let vip = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
            let mut tcp = TcpStream::connect(vip).await.unwrap();
            tcp.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            tcp.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"HELLO");

            let credentials = if revoked == "gw" { gw } else { ztunnel.certificates.get(&id("cart")).await.unwrap() };
            revoke(&[credentials.certificate().serial()]);
            let error = tcp.read(&mut heard).await.expect_err("an end would look like the application's own");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{revoked}");
            let line = ztunnel.logged("CERT_REVOKED").await;
            assert!(
                line.contains("direction=\"outbound\"") && line.contains("server's certificate"),
                "{revoked}: {line}"
            );
            // Nothing is left that a new connection could use.
            assert_eq!(say(vip, "again").await, "", "{revoked}");
            let cut = "istio_crl_policy_rejections_total{reporter=\"source\"} ";
            let counted = |text: &str| text.lines().find_map(|l| l.strip_prefix(cut)?.parse::<u64>().ok());
            while counted(&ztunnel.metrics.encode(TextFormat::Prometheus).unwrap()) != Some(2) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
}
