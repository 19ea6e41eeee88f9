//! Pods that are no longer served: what is open to them ends with them, and says why.

use super::taken_back::{busy_application, connecting_to, in_a_namespace};
use super::*;

/// A tunnel ends with its pod from the start, not only once it carries bytes: nobody dials for a pod that is gone.
#[test]
fn a_tunnel_whose_application_is_being_dialled_ends_with_its_pod() {
    in_a_namespace(&[], async || {
        let mut ztunnel = Ztunnel::new();
        let cart = ("cart", ztunnel.serve("cart").hbone);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let (_application, at) = busy_application().await;
        let (mut caller, from) = ztunnel.caller(cart).await;
        let request = connect::request(&at.to_string(), &Context::default()).unwrap();
        let dialled = async {
            while !connecting_to(at.port()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ztunnel.worker.commands.send(Command::Stop("cart".into())).ok().unwrap();
        };
        let (opened, ()) = tokio::join!(caller.open(&request), dialled);
        assert!(opened.is_err());
        let line = ztunnel.logged("direction=\"inbound\"").await;
        assert!(line.contains("POD_GONE") && line.contains(&from.to_string()), "{line}");
        assert!(!connecting_to(at.port()), "nobody waits for it");
    });
}

/// Between two pods of this node the connection is a task of the pod that opened it, and ends with the other one too.
#[tokio::test]
async fn a_connection_to_a_neighbour_ends_with_the_neighbour() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        // Served before who calls it, as commands are carried out in order.
        ztunnel.serve("cart");
        let client = ztunnel.serve("client").outbound;
        let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = application.local_addr().unwrap();
        // Its own address is nobody's here; with a PROXY header it is dialled on loopback.
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        let application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port: at.port() });
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("client"))),
            Resource::Service(Arc::new(service(CART, "127.0.0.2", ports(client, at.port())))),
            serving(CART, ports(client, at.port()), Workload { addresses, application_tunnel, ..pod("cart") }),
        ]);
        let mut tcp = TcpStream::connect(("127.0.0.2", client)).await.unwrap();
        let (mut server, _) = application.accept().await.unwrap();
        tcp.write_all(b"hello").await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"hello") {
            assert_ne!(server.read_buf(&mut heard).await.unwrap(), 0);
        }
        ztunnel.worker.commands.send(Command::Stop("cart".into())).ok().unwrap();
        for (direction, code) in [("inbound", "POD_GONE"), ("outbound", "TUNNEL_RESET")] {
            let line = ztunnel.logged(code).await;
            assert!(line.contains(&format!("direction=\"{direction}\"")), "{line}");
        }
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{rest:?}");
    })
    .await;
}
