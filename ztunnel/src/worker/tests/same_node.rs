//! Two pods of one node: nothing is encrypted between them, and both are proven all the same.

use super::*;

/// `client` and `cart`, both served here. `cart` is what a service stands for, as `changed` has it; where that is dialled.
async fn neighbours(ztunnel: &mut Ztunnel, changed: impl FnOnce(Workload) -> Workload) -> SocketAddr {
    // Served before who calls it, as commands are carried out in order.
    ztunnel.serve("cart");
    let port = ztunnel.serve("client").outbound;
    let app = application().await;
    // Its own address is nobody's here; with a PROXY header it is dialled on loopback.
    let cart = Workload {
        addresses: vec!["192.0.2.1".parse().unwrap()],
        application_tunnel: Some(ApplicationTunnel { proxy_protocol: true, port: app }),
        ..pod("cart")
    };
    ztunnel.tables.apply_local(vec![
        Resource::Workload(Arc::new(pod("client"))),
        Resource::Workload(Arc::new(cart.clone())),
        Resource::Service(Arc::new(service(CART, "127.0.0.2", ports(port, app)))),
        serving(CART, ports(port, app), changed(cart)),
    ]);
    SocketAddr::new("127.0.0.2".parse().unwrap(), port)
}

/// Trap 21: whoever is not whom the tables name is told nothing, also where no handshake would show it.
#[tokio::test]
async fn a_neighbour_that_is_somebody_else_gets_no_byte() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let elsewhere = |cart| Workload { uid: "z".into(), trust_domain: "elsewhere".into(), ..cart };
        let at = neighbours(&mut ztunnel, elsewhere).await;
        let mut tcp = TcpStream::connect(at).await.unwrap();
        tcp.write_all(b"secret").await.unwrap();
        let line = ztunnel.logged("direction=\"outbound\"").await;
        assert!(line.contains("TLS_FAILED") && line.contains("elsewhere/ns/shop/sa/cart, but the peer is"), "{line}");
        assert_eq!(tcp.read(&mut [0]).await.unwrap_or(0), 0);
    })
    .await;
}

/// Pods of a StatefulSet have the same names in every cluster, and so may nodes: bytes for the one never reach the other.
#[tokio::test]
async fn a_pod_of_another_cluster_with_a_neighbours_name_is_no_neighbour() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let elsewhere = |cart| Workload { uid: "z".into(), cluster: "east".into(), ..cart };
        let at = neighbours(&mut ztunnel, elsewhere).await;
        let mut tcp = TcpStream::connect(at).await.unwrap();
        tcp.write_all(b"secret").await.unwrap();
        let line = ztunnel.logged("direction=\"outbound\"").await;
        assert!(line.contains("192.0.2.1:15008") && !line.contains("connection opened"), "it is dialled: {line}");
    })
    .await;
}

/// The certificate authority has the say who is who, also where no certificate is shown to anybody.
#[tokio::test]
async fn a_neighbour_without_a_certificate_gets_no_byte_and_so_does_who_calls_without_one() {
    with_rights(async {
        for who in ["cart", "client"] {
            let mut ztunnel = Ztunnel::new();
            ztunnel.ca.refuse(id(who));
            let at = neighbours(&mut ztunnel, |cart| cart).await;
            assert_eq!(say(at, "secret").await, "", "{who}");
            let line = ztunnel.logged("NO_CERTIFICATE").await;
            assert!(line.contains("not for this one") && line.contains("direction=\"outbound\""), "{who}: {line}");
        }
    })
    .await;
}
