use super::*;

/// A pod joins while another dials it in the clear. Once our tables say that it takes tunnels, and others may have been
/// told so, not a byte goes to it without one.
#[tokio::test]
async fn who_joins_while_it_is_dialled_hears_nothing_in_the_clear() {
    use socket2::{Domain, Socket, Type};
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let (client, _server) = (ztunnel.serve("client"), ztunnel.serve("cart"));
        // Its queue holds one, which is there already: the next waits until the kernel asks again.
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let app = TcpListener::from_std(socket.into()).unwrap();
        let at = app.local_addr().unwrap();
        let first = TcpStream::connect(at).await.unwrap();

        let cart = |tunnel| {
            let cart = Workload { addresses: vec![at.ip()], tunnel, ..pod("cart") };
            serving(CART, ports(client.outbound, at.port()), cart)
        };
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("client"))),
            Resource::Service(Arc::new(service(CART, "127.0.0.2", ports(client.outbound, 0)))),
            cart(Tunnel::None),
        ]);
        let said = spawn_local(say(SocketAddr::new("127.0.0.2".parse().unwrap(), client.outbound), "a secret"));
        assert!(!ztunnel.open(0, 1).await.outbound[0].tunnel, "it is dialled in the clear");
        ztunnel.tables.apply_local(vec![cart(Tunnel::Hbone)]);
        let heard = spawn_local(async move {
            let mut heard = Vec::new();
            for _ in 0..2 {
                let (mut tcp, _) = app.accept().await.unwrap();
                let mut words = String::new();
                let _ = tcp.read_to_string(&mut words).await;
                let _ = tcp.write_all(words.to_uppercase().as_bytes()).await;
                heard.push(words);
            }
            heard
        });
        drop(first);
        assert_eq!(heard.await.unwrap(), ["", ""], "the first; and the one in the clear, without a word");
        // A tunnel to loopback would come back to this ztunnel: that it is refused shows that it is one.
        assert_eq!(said.await.unwrap(), "");
        let line = ztunnel.logged("direction=\"outbound\"").await;
        assert!(line.contains("RECURSIVE_CALL"), "{line}");
    })
    .await;
}
