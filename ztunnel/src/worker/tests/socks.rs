use super::*;

/// Asks with curl, through a SOCKS proxy; a failure is curl's exit code, and what it said.
#[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
async fn curl(how: &str, proxy: SocketAddr, url: &str) -> Option<Result<String, (i32, String)>> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["-sS", "--max-time", "10", how, &proxy.to_string(), url]).env_clear();
    match command.output().await {
        Err(error) => {
            eprintln!("SKIPPED: curl cannot be run: {error}");
            None
        }
        Ok(output) if output.status.success() => Some(Ok(String::from_utf8(output.stdout).unwrap())),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Some(Err((output.status.code().unwrap_or(-1), said)))
        }
    }
}

/// Answers every HTTP request with `text`.
async fn web(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn_local(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                let mut heard = [0; 4096];
                let _ = tcp.read(&mut heard).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
                let _ = tcp.write_all(format!("{head}{text}").as_bytes()).await;
            });
        }
    });
    port
}

/// Contract 1.1: SOCKS, by the tables, by a real client: by name and by address, into a tunnel, and what it is told.
#[tokio::test]
async fn socks_clients_are_served_by_name_and_by_address() {
    with_rights(async {
        let mut ztunnel = Ztunnel::with(&[("UNSTABLE_ENABLE_SOCKS5", "true"), ("SAME_NODE_ENCRYPTION", "true")]);
        let (client, server) = (ztunnel.serve("client"), ztunnel.serve("cart"));
        let app = web("from the cart").await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let here = Workload { addresses: vec!["127.0.0.7".parse().unwrap()], ..pod("client") };
        // Behind a gateway of another network: a tunnel to a port that a test can choose.
        let far = NetworkAddress { network: "far".into(), ip: "127.0.0.1".parse().unwrap() };
        let at = gateway(&ztunnel.ca, server.hbone).await;
        let gateway = GatewayAddress { destination: GatewayDestination::Address(far), hbone_mtls_port: at.port() };
        let subject_alt_names = vec![id("cart").to_string().into()];
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(here)),
            Resource::Service(Arc::new(Service { subject_alt_names, ..service(CART, "127.0.0.2", ports(80, 0)) })),
            serving(CART, ports(80, app), Workload { capacity: 0, ..pod("cart") }),
            serving(
                CART,
                ports(80, app),
                Workload { network: "far".into(), network_gateway: Some(gateway.into()), ..pod("cart-far") },
            ),
            Resource::Workload(Arc::new(Workload {
                network: "far".into(),
                tunnel: Tunnel::None,
                addresses: vec!["127.0.0.1".parse().unwrap()],
                ..pod("gw")
            })),
        ]);
        let (proxy, named, resolved) = (client.socks, "--socks5-hostname", "--socks5");
        // Exit code 97: what the proxy answered. Its number is RFC 1928's.
        for (how, url, want) in [
            (named, "http://cart/".to_owned(), Ok("from the cart")),
            (named, format!("http://{CART}/"), Ok("from the cart")),
            (resolved, "http://127.0.0.2/".to_owned(), Ok("from the cart")),
            (resolved, format!("http://127.0.0.1:{app}/"), Ok("from the cart")),
            (named, "http://nobody.example/".to_owned(), Err("(4)")),
            (resolved, format!("http://127.0.0.1:{nobody}/"), Err("(1)")),
            (resolved, "http://127.0.0.1:15080/".to_owned(), Err("(1)")),
            (resolved, "http://127.0.0.2:81/".to_owned(), Err("(1)")),
        ] {
            let Some(got) = curl(how, proxy, &url).await else { return };
            match (got, want) {
                (Ok(text), Ok(want)) => assert_eq!(text, want, "{url}"),
                (Err((97, said)), Err(code)) => assert!(said.contains(code), "{url}: {said}"),
                (got, want) => panic!("{url}: {got:?}, not {want:?}"),
            }
        }
        let line = ztunnel.logged("dst.hbone_addr").await;
        assert!(line.contains("sa/client"), "the tunnel proves the pod: {line}");
        for code in ["HOSTNAME_UNRESOLVED", "CONNECT_FAILED", "RECURSIVE_CALL", "UNKNOWN_SERVICE_PORT"] {
            ztunnel.logged(code).await;
        }
    })
    .await;
}

/// What is no CONNECT without authentication is refused, and bytes behind a request are the other end's.
#[tokio::test]
async fn socks_is_spoken_as_far_as_it_is() {
    with_rights(async {
        let mut ztunnel = Ztunnel::with(&[("UNSTABLE_ENABLE_SOCKS5", "true")]);
        let client = ztunnel.serve("client");
        let here = Workload { addresses: vec!["127.0.0.7".parse().unwrap()], ..pod("client") };
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(here))]);
        let [high, low] = application().await.to_be_bytes();
        let all_at_once = [&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low][..], b"early"].concat();
        let opened = [&[5, 0][..], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"EARLY"].concat();
        for (said, answered) in [
            (&all_at_once[..], &opened[..]),
            (&[5, 1, 2], &[5, 0xff]),
            (&[5, 1, 0, 5, 2, 0, 1], &[5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]),
            (&[5, 1, 0, 5, 1, 0, 9], &[5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
            (&[5, 1, 0, 5, 1], &[5, 0]),
            (b"G", b""),
        ] {
            let mut tcp = TcpStream::connect(client.socks).await.unwrap();
            tcp.write_all(said).await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut heard = Vec::new();
            tcp.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, answered, "{said:?}");
        }
        assert!(ztunnel.logged("BAD_REQUEST").await.contains("SOCKS"));
    })
    .await;
}
