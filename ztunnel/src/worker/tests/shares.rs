//! What each source may hold of a pod, and what others notice of one that wants more: nothing.

use super::*;

impl Ztunnel {
    /// A connection of an identity, from an address.
    pub(super) async fn dial_as(
        &self,
        name: &str,
        from: &str,
        (pod, at): (&str, SocketAddr),
    ) -> Result<Client, OpenError> {
        let tcp = knock(from, at).await.unwrap();
        let expected = [id(pod)];
        let config = self.ca.credentials(&id(name)).client_config(&expected);
        Client::handshake(tcp, config, &expected, &Default::default()).await
    }
}

async fn knock(from: &str, at: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(at).await
}

async fn open(client: &mut Client, authority: &str) -> Result<mesh_hbone::client::Opened, OpenError> {
    client.open(&connect::request(authority, &Context::default()).unwrap()).await
}

/// Half-open TLS without a certificate, as much of it as the attacker likes.
#[tokio::test]
async fn half_open_tls_of_a_stranger() {
    with_rights(async {
        for settings in [[("ZTUNNEL_MAX_HANDSHAKES", "16")], [("ZTUNNEL_MAX_CONNECTIONS", "32")]] {
            let mut ztunnel = Ztunnel::with(&settings);
            let cart = ztunnel.serve("cart");
            let application = format!("127.0.0.1:{}", application().await);
            ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
            let mut open_ones = Vec::new();
            for round in 0..20 {
                for _ in 0..20 {
                    open_ones.extend(knock("127.0.0.9", cart.hbone).await);
                }
                let mut good = ztunnel.dial_as("good", "127.0.0.10", ("cart", cart.hbone)).await;
                let opened = open(good.as_mut().expect("a good caller is let in"), &application).await;
                assert!(opened.is_ok(), "round {round}: {:?}", opened.err());
            }
            // Its own are ended for its next ones, the oldest first.
            assert!(matches!(open_ones[0].read(&mut [0]).await, Ok(0) | Err(_)));
            let line = ztunnel.logged("ENDED_FOR_OTHERS").await;
            assert!(line.contains("127.0.0.9"), "{line}");
        }
    })
    .await;
}

/// A peer that opens connections and uses none of them.
#[tokio::test]
async fn connections_at_rest_of_one_peer() {
    with_rights(async {
        let mut ztunnel = Ztunnel::with(&[("ZTUNNEL_MAX_CONNECTIONS", "32")]);
        let cart = ztunnel.serve("cart");
        let application = format!("127.0.0.1:{}", application().await);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let at = ("cart", cart.hbone);
        // Used before all others, and at rest since.
        let mut modest = ztunnel.dial_as("modest", "127.0.0.9", at).await.unwrap();
        drop(open(&mut modest, &application).await.unwrap());
        let mut greedy = Vec::new();
        for _ in 0..40 {
            greedy.push(ztunnel.dial_as("greedy", "127.0.0.9", at).await.expect("the oldest gives way"));
        }
        let line = ztunnel.logged("ENDED_FOR_OTHERS").await;
        assert!(line.contains("127.0.0.9"), "{line}");
        while !greedy[..30].iter().all(Client::is_closed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!greedy[39].is_closed(), "the youngest stays");
        // One that is used is not at rest, and stays however old it is.
        let mut held = vec![open(&mut greedy[39], &application).await.unwrap()];
        for _ in 0..20 {
            greedy.push(ztunnel.dial_as("greedy", "127.0.0.9", at).await.expect("the oldest gives way"));
        }
        while !greedy[40..45].iter().all(Client::is_closed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!greedy[39].is_closed());
        for _ in 0..20 {
            let mut good = ztunnel.dial_as("good", "127.0.0.9", at).await.expect("a good caller is let in");
            held.push(open(&mut good, &application).await.expect("and served"));
            held.pop();
        }
        assert!(!modest.is_closed(), "who holds less than the newcomer's share loses nothing");
        assert!(open(&mut modest, &application).await.is_ok());
    })
    .await;
}

/// A peer that holds tunnels: it is told that its share is full, and others find room.
#[tokio::test]
async fn tunnels_of_one_peer() {
    with_rights(async {
        let mut ztunnel = Ztunnel::with(&[("ZTUNNEL_MAX_CONNECTIONS", "32")]);
        let cart = ztunnel.serve("cart");
        let application = format!("127.0.0.1:{}", application().await);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let at = ("cart", cart.hbone);
        let (mut greedy, mut held) = (ztunnel.dial_as("greedy", "127.0.0.9", at).await.unwrap(), Vec::new());
        let refused = loop {
            match open(&mut greedy, &application).await {
                Ok(opened) => held.push(opened),
                Err(refused) => break refused.to_string(),
            }
        };
        // A quarter of all, with the connection itself.
        assert_eq!((held.len(), refused.as_str()), (7, "http status: 503 Service Unavailable (SOURCE_OVERLOADED)"));
        let line = ztunnel.logged("SOURCE_OVERLOADED").await;
        assert!(line.contains("127.0.0.9") && line.contains("ZTUNNEL_MAX_CONNECTIONS"), "{line}");
        // From whatever address: the identity counts.
        let mut elsewhere = ztunnel.dial_as("greedy", "127.0.0.11", at).await;
        assert!(elsewhere.is_err() || open(elsewhere.as_mut().unwrap(), &application).await.is_err());
        for _ in 0..20 {
            let mut good = ztunnel.dial_as("good", "127.0.0.9", at).await.expect("a good caller is let in");
            assert!(open(&mut good, &application).await.is_ok(), "and served");
        }
        held.clear();
        while open(&mut greedy, &application).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
