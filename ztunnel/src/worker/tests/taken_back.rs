//! Connections to applications for tunnels that their callers take back, and the ports that these connections come from.

use std::process::Command as Program;

use mesh_model::policy::Policy;
use rustix::thread::UnshareFlags;

use super::*;

/// Runs a test on a thread of its own, in a new network namespace with a loopback and these settings below `net/ipv4`.
#[allow(unsafe_code, reason = "unshare may leave the threads of a process with different views; this one ends")]
#[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
pub(crate) fn in_a_namespace<F: Future<Output = ()>>(
    settings: &'static [(&str, &str)],
    test: impl FnOnce() -> F + Send + 'static,
) {
    let body = move || {
        // SAFETY: only this thread's network namespace changes; no file descriptor table is involved.
        let alone = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        let up =
            alone.is_ok() && Program::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|s| s.success());
        let set = |(name, value): &(&str, &str)| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).is_ok();
        if !up || !settings.iter().all(set) {
            return eprintln!("SKIPPED: this user may not make network namespaces, or there is no ip");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(on_one_thread(test()));
    };
    std::thread::spawn(body).join().unwrap();
}

/// A policy that lets everybody in.
fn everybody_enters() -> Resource {
    Resource::Policy(Arc::new(Policy {
        name: "nobody".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![],
        dry_run: false,
    }))
}

/// Asks for a tunnel and takes it back; resolves when the server has seen both.
async fn open_and_take_back(caller: &mut Client, authority: &str, meanwhile: impl Future<Output = ()>) {
    let request = connect::request(authority, &Context::default()).unwrap();
    let mut opening = Box::pin(caller.open(&request));
    tokio::select! {
        biased;
        opened = &mut opening => panic!("it was answered: {:?}", opened.err()),
        () = meanwhile => {}
    }
    drop(opening);
    // Frames are read in their order: what is answered to this is answered after that.
    refused(caller).await;
}

/// Asks for a tunnel to nobody, and waits for the answer.
async fn refused(caller: &mut Client) {
    let nobody = connect::request("192.0.2.9:1", &Context::default()).unwrap();
    let refused = caller.open(&nobody).await.err().expect("nobody's address").to_string();
    assert!(refused.contains("WRONG_DESTINATION"), "{refused}");
}

/// Callers that go before it is decided whether they may enter: when they may, nobody is dialled for them.
#[tokio::test]
async fn a_tunnel_that_is_taken_back_before_it_may_enter_dials_nobody() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let cart = ("cart", ztunnel.serve("cart").hbone);
        let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = application.local_addr().unwrap().to_string();
        // Until the policy has come nobody is let in.
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(closed(pod("cart"))))]);
        let ((mut caller, from), (mut other, _)) = (ztunnel.caller(cart).await, ztunnel.caller(cart).await);
        for _ in 0..20 {
            // The thread has looked for what has come between two answers to somebody else: the request has begun.
            let meanwhile = async {
                for _ in 0..3 {
                    refused(&mut other).await;
                }
            };
            open_and_take_back(&mut caller, &authority, meanwhile).await;
        }
        ztunnel.tables.apply_local(vec![everybody_enters(), Resource::Workload(Arc::new(closed(pod("cart"))))]);
        let (mut caller, _) = ztunnel.caller(cart).await;
        let opened = caller.open(&connect::request(&authority, &Context::default()).unwrap()).await.unwrap();
        let line = ztunnel.logged("CALLER_GONE").await;
        assert!(line.contains(&from.to_string()), "{line}");
        // On loopback a connection waits in the queue as soon as it is dialled.
        let application = application.into_std().unwrap();
        let queued = std::iter::from_fn(|| application.accept().ok()).count();
        assert_eq!(queued, 1, "the one that was not taken back");
        drop(opened);
    })
    .await;
}

/// Whether this thread's namespace has a socket that tries to connect to a port of 127.0.0.1.
pub(crate) fn connecting_to(port: u16) -> bool {
    let wanted = format!("0100007F:{port:04X}");
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|columns| {
        let (remote, state) = (columns[2], columns[3]);
        remote == wanted && state == "02"
    })
}

/// An application that answers nobody, and where it is: its queue is full as long as what is returned is kept.
pub(crate) async fn busy_application() -> (impl Sized, SocketAddr) {
    let application = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    application.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    application.listen(0).unwrap();
    let at = application.local_addr().unwrap().as_socket().unwrap();
    let queued = TcpStream::connect(at).await.unwrap();
    ((application, queued), at)
}

/// An application whose queue is full answers nobody: who no longer waits for it is no longer connected.
#[test]
fn a_tunnel_that_is_taken_back_while_its_application_is_dialled_ends_the_dial() {
    in_a_namespace(&[], async || {
        let mut ztunnel = Ztunnel::new();
        let cart = ("cart", ztunnel.serve("cart").hbone);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let (_application, at) = busy_application().await;
        let (mut caller, from) = ztunnel.caller(cart).await;
        let dialled = async {
            while !connecting_to(at.port()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        open_and_take_back(&mut caller, &at.to_string(), dialled).await;
        let line = ztunnel.logged("CALLER_GONE").await;
        assert!(line.contains(&from.to_string()), "{line}");
        assert!(!connecting_to(at.port()), "nobody waits for it");
        assert!(!ztunnel.log.lines().iter().any(|line| line.contains("APPLICATION_UNREACHABLE")));
    });
}

/// The same between two pods of this node: both ends say that the caller is gone, not that its peer refused it.
#[test]
fn a_connection_to_a_neighbour_that_is_reset_while_its_application_is_dialled_ends_the_dial() {
    in_a_namespace(&[], async || {
        let mut ztunnel = Ztunnel::new();
        // Served before who calls it, as commands are carried out in order.
        ztunnel.serve("cart");
        let client = ztunnel.serve("client").outbound;
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        silent.listen(0).unwrap();
        let at = silent.local_addr().unwrap().as_socket().unwrap();
        let _queued = TcpStream::connect(at).await.unwrap();
        // Its own address is nobody's here; with a PROXY header it is dialled on loopback.
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        let application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port: at.port() });
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("client"))),
            Resource::Service(Arc::new(service(CART, "127.0.0.2", ports(client, at.port())))),
            serving(CART, ports(client, at.port()), Workload { addresses, application_tunnel, ..pod("cart") }),
        ]);
        let tcp = TcpStream::connect(("127.0.0.2", client)).await.unwrap();
        while !connecting_to(at.port()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let from = tcp.local_addr().unwrap();
        tcp.set_zero_linger().unwrap();
        drop(tcp);
        for direction in ["inbound", "outbound"] {
            let line = ztunnel.logged(&format!("direction=\"{direction}\"")).await;
            assert!(line.contains("CALLER_GONE") && line.contains(&from.to_string()), "{line}");
        }
        assert!(!connecting_to(at.port()), "nobody waits for it");
    });
}

/// The same from the other end: an application that resets its connection before it is open.
#[test]
fn a_connection_that_is_reset_while_its_destination_is_dialled_ends_the_dial() {
    in_a_namespace(&[], async || {
        let mut ztunnel = Ztunnel::new();
        let client = ztunnel.serve("client");
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        silent.listen(0).unwrap();
        let at = silent.local_addr().unwrap().as_socket().unwrap();
        let _queued = TcpStream::connect(at).await.unwrap();
        let outside = Workload { addresses: vec![at.ip()], tunnel: Tunnel::None, ..pod("db") };
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("client"))),
            Resource::Service(Arc::new(service("db.shop", "127.0.0.2", ports(client.outbound, 0)))),
            serving("db.shop", ports(client.outbound, at.port()), outside),
        ]);
        let tcp = TcpStream::connect(("127.0.0.2", client.outbound)).await.unwrap();
        while !connecting_to(at.port()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let from = tcp.local_addr().unwrap();
        tcp.set_zero_linger().unwrap();
        drop(tcp);
        let line = ztunnel.logged("CALLER_GONE").await;
        assert!(line.contains(&from.to_string()) && line.contains("direction=\"outbound\""), "{line}");
        assert!(!connecting_to(at.port()), "nobody waits for it");
    });
}

/// An application sees where its caller really comes from, address and port: then nobody has to look for a port.
#[test]
fn an_application_sees_the_port_that_its_caller_has() {
    in_a_namespace(&[], async || {
        let mut ztunnel = Ztunnel::new();
        let cart = ("cart", ztunnel.serve("cart").hbone);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = application.local_addr().unwrap().to_string();
        let (mut caller, _) = ztunnel.caller_from("127.0.0.9", cart).await;
        let mut seen = async |client: &str| {
            let context = Context { client: Some(client.parse().unwrap()), ..Context::default() };
            let opened = caller.open(&connect::request(&authority, &context).unwrap()).await.unwrap();
            let (tcp, from) = application.accept().await.unwrap();
            assert_eq!(from.ip().to_string(), "127.0.0.9", "the address is the one that was proven");
            (from.port(), (opened, tcp))
        };
        let (port, first) = seen("127.0.0.9:40123").await;
        assert_eq!(port, 40_123);
        let (port, _second) = seen("127.0.0.9:40123").await;
        assert_ne!(port, 40_123, "it is taken");
        let (port, _third) = seen("127.0.0.9:80").await;
        assert_ne!(port, 80, "a port that is not for clients means something to those who see it");
        let (port, _fourth) = seen("127.0.0.8:40124").await;
        assert_ne!(port, 40_124, "somebody else's");
        drop(first);
    });
}

/// Who has used up the ports from which it can reach an application is told so, and is the only one who cannot reach it.
#[test]
fn a_caller_that_has_used_up_its_ports_leaves_others_theirs() {
    in_a_namespace(&[("ip_local_port_range", "40000 40063")], async || {
        let mut ztunnel = Ztunnel::new();
        let cart = ("cart", ztunnel.serve("cart").hbone);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let application = echo().await;
        let request = connect::request(&format!("127.0.0.1:{application}"), &Context::default()).unwrap();
        let (mut greedy, _) = ztunnel.caller_from("127.0.0.9", cart).await;
        let (mut modest, _) = ztunnel.caller_from("127.0.0.8", cart).await;
        let mut held = Vec::new();
        let refused = loop {
            match greedy.open(&request).await {
                Ok(opened) => held.push(opened),
                Err(refused) => break refused.to_string(),
            }
        };
        assert!(refused.contains("APPLICATION_UNREACHABLE"), "{refused}");
        // The others are those of listeners, and of what these connections came by.
        assert!((48..=64).contains(&held.len()), "{} of 64", held.len());
        let line = ztunnel.logged("APPLICATION_UNREACHABLE").await;
        assert!(line.contains("no local port is free") && line.contains("src.addr=127.0.0.9"), "{line}");
        let mut opened = modest.open(&request).await.unwrap();
        opened.tunnel.sender.send("x".into()).await.unwrap();
        assert_eq!(opened.tunnel.receiver.receive().await.unwrap().unwrap(), "X");
    });
}
