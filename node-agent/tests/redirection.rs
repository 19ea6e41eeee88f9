//! The redirection rules in real network namespaces: who ends up where.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{
    CLIENT_V4, FAMILIES, PATIENCE, POD_V4, Pair, accept, hang_up, is_dialled, original_destination, talk, wait,
};
use mesh_netlink::nftables::{Nftables, Rule, Transaction, Verdict};
use mesh_netlink::routing::{Family, LOOPBACK, MarkRule, Route};
use node_agent::redirect::rules::{PROBE_ADDRESS_V4, Table, ZTUNNEL_MARK};
use node_agent::redirect::{ProbePorts, Settings, apply};

fn main() {
    common::main(vec![
        ("inbound_is_captured_in_both_families", inbound_is_captured_in_both_families),
        ("outbound_is_captured_in_both_families", outbound_is_captured_in_both_families),
        ("what_passes_ztunnel_by", what_passes_ztunnel_by),
        ("an_application_is_not_taken_for_ztunnel", an_application_is_not_taken_for_ztunnel),
        ("probes_pass_ztunnel_by_to_their_ports", probes_pass_ztunnel_by_to_their_ports),
        ("ztunnel_speaks_with_a_foreign_address", ztunnel_speaks_with_a_foreign_address),
        ("ingress_mode_captures_only_outbound", ingress_mode_captures_only_outbound),
        ("machines_inside_the_pod_are_outbound", machines_inside_the_pod_are_outbound),
        ("dns_is_captured_when_asked", dns_is_captured_when_asked),
        ("applying_again_disturbs_nothing", applying_again_disturbs_nothing),
        ("a_pod_is_served_without_being_redirected", a_pod_is_served_without_being_redirected),
        ("removal_leaves_no_trace", removal_leaves_no_trace),
        ("what_is_missing_is_seen", what_is_missing_is_seen),
        ("without_ipv6_in_the_pod", without_ipv6_in_the_pod),
    ]);
}

fn settings() -> Settings {
    Settings {
        ipv6: true,
        inbound_capture: true,
        dns_capture: false,
        outbound_interfaces: Vec::new(),
        probe_ports: ProbePorts::Only(vec![8080]),
    }
}

fn captured(settings: &Settings) -> Pair {
    let pair = Pair::new();
    wait(apply::install(pair.pod.as_fd(), settings)).unwrap();
    pair
}

fn missing(pair: &Pair, settings: &Settings) -> Vec<String> {
    wait(apply::missing(pair.pod.as_fd(), settings)).unwrap()
}

fn inbound_is_captured_in_both_families() {
    let pair = captured(&settings());
    let ztunnel = pair.pod.listen_as_ztunnel(15006);
    // The application listens, and hears nothing.
    let app = pair.pod.listen("[::]:8080");
    for (client, pod) in FAMILIES {
        let wanted = SocketAddr::new(pod, 8080);
        let mut dialled = pair.client.dial(wanted).unwrap();
        let (mut accepted, peer) = accept(&ztunnel);
        assert_eq!(peer.ip(), client);
        assert_eq!(original_destination(&accepted), wanted);
        talk(&mut dialled, &mut accepted);
    }
    assert!(!is_dialled(&app));
}

fn outbound_is_captured_in_both_families() {
    let pair = captured(&settings());
    let ztunnel = pair.pod.listen_as_ztunnel(15001);
    let server = pair.client.listen("[::]:9000");
    for (client, _) in FAMILIES {
        let wanted = SocketAddr::new(client, 9000);
        let mut dialled = pair.pod.dial(wanted).unwrap();
        let (mut accepted, _) = accept(&ztunnel);
        assert_eq!(original_destination(&accepted), wanted);
        talk(&mut dialled, &mut accepted);
    }
    // An address nobody has is captured as well: a service's.
    let vip: SocketAddr = "10.96.0.1:80".parse().unwrap();
    let _dialled = pair.pod.dial(vip).unwrap();
    assert_eq!(original_destination(&accept(&ztunnel).0), vip);
    assert!(!is_dialled(&server));
}

fn what_passes_ztunnel_by() {
    let pair = captured(&settings());
    let outbound = pair.pod.listen_as_ztunnel(15001);
    let inbound = pair.pod.listen_as_ztunnel(15006);
    let hbone = pair.pod.listen_as_ztunnel(15008);
    let app = pair.pod.listen("[::]:8080");
    let server = pair.client.listen("[::]:9000");
    for (client, pod) in FAMILIES {
        // HBONE goes to its listener as it is.
        let dialled = pair.client.dial(SocketAddr::new(pod, 15008)).unwrap();
        assert_eq!(accept(&hbone).1, dialled.local_addr().unwrap());
        // ztunnel's own connections go out as they are.
        let mut dialled = pair.pod.dial_as_ztunnel(None, SocketAddr::new(client, 9000)).unwrap();
        let (mut accepted, peer) = accept(&server);
        assert_eq!(peer.ip(), pod);
        talk(&mut dialled, &mut accepted);
        // Inside the pod: over loopback, and to its own address.
        let loopback: IpAddr = if pod.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap();
        for address in [loopback, pod] {
            let mut dialled = pair.pod.dial(SocketAddr::new(address, 8080)).unwrap();
            talk(&mut dialled, &mut accept(&app).0);
        }
    }
    assert!(!is_dialled(&outbound) && !is_dialled(&inbound));
}

/// ztunnel dials a place where nobody answers. Then an application of the pod dials the same place from the same port, while
/// the kernel still remembers the first dial, and now somebody is there.
fn an_application_is_not_taken_for_ztunnel() {
    let pair = captured(&settings());
    let ztunnel = pair.pod.listen_as_ztunnel(15001);
    let place: SocketAddr = "192.0.2.1:9000".parse().unwrap();
    let dial = |mark: Option<u32>, patience: Duration| {
        pair.pod.run(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            if let Some(mark) = mark {
                socket.set_mark(mark)?;
            }
            socket.bind(&SocketAddr::new(POD_V4.into(), 40_001).into())?;
            socket.connect_timeout(&place.into(), patience)?;
            std::io::Result::Ok(TcpStream::from(socket))
        })
    };
    assert!(dial(Some(ZTUNNEL_MARK), Duration::from_millis(200)).is_err(), "nobody is there yet");
    pair.client.add_address(Ipv4Addr::new(192, 0, 2, 1));
    let server = pair.client.listen("0.0.0.0:9000");
    let mut dialled = dial(None, PATIENCE).unwrap();
    assert!(!is_dialled(&server), "the application's connection left the pod in the clear");
    let (mut accepted, _) = accept(&ztunnel);
    assert_eq!(original_destination(&accepted), place);
    talk(&mut dialled, &mut accepted);
    // ztunnel carries it on.
    let mut onward = pair.pod.dial_as_ztunnel(None, place).unwrap();
    talk(&mut onward, &mut accept(&server).0);
}

fn probes_pass_ztunnel_by_to_their_ports() {
    let other = Settings { probe_ports: ProbePorts::Only(vec![9000]), ..settings() };
    let any = Settings { probe_ports: ProbePorts::Any, ..settings() };
    for (settings, passes) in [(settings(), [true, false]), (other, [false, true]), (any, [true, true])] {
        let pair = captured(&settings);
        pair.client.add_address(PROBE_ADDRESS_V4);
        let inbound = pair.pod.listen_as_ztunnel(15006);
        for (port, passes) in [8080, 9000].into_iter().zip(passes) {
            let app = pair.pod.listen(&format!("0.0.0.0:{port}"));
            let mut probe = pair.client.run(|| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::new(PROBE_ADDRESS_V4.into(), 0).into()).unwrap();
                socket.connect_timeout(&SocketAddr::new(POD_V4.into(), port).into(), PATIENCE).unwrap();
                TcpStream::from(socket)
            });
            let (taken, left) = if passes { (&app, &inbound) } else { (&inbound, &app) };
            let (mut accepted, peer) = accept(taken);
            assert_eq!(peer.ip(), PROBE_ADDRESS_V4);
            talk(&mut probe, &mut accepted);
            assert!(!is_dialled(left), "{port} of {settings:?}");
        }
    }
}

fn ztunnel_speaks_with_a_foreign_address() {
    let pair = captured(&settings());
    let app = pair.pod.listen("[::]:8080");
    for (client, pod) in FAMILIES {
        let mut dialled = pair.pod.dial_as_ztunnel(Some(client), SocketAddr::new(pod, 8080)).unwrap();
        let (mut accepted, peer) = accept(&app);
        assert_eq!(peer.ip(), client, "the application sees the client, not ztunnel");
        talk(&mut dialled, &mut accepted);
        hang_up(&mut accepted, &mut dialled);
    }
}

fn ingress_mode_captures_only_outbound() {
    let pair = captured(&Settings { inbound_capture: false, ..settings() });
    let app = pair.pod.listen("[::]:8080");
    let outbound = pair.pod.listen_as_ztunnel(15001);
    for (client, pod) in FAMILIES {
        let mut dialled = pair.client.dial(SocketAddr::new(pod, 8080)).unwrap();
        talk(&mut dialled, &mut accept(&app).0);
        let _dialled = pair.pod.dial(SocketAddr::new(client, 9000)).unwrap();
        accept(&outbound);
    }
}

fn machines_inside_the_pod_are_outbound() {
    let pair = captured(&Settings { outbound_interfaces: vec!["eth0".to_owned()], ..settings() });
    let outbound = pair.pod.listen_as_ztunnel(15001);
    for (_, pod) in FAMILIES {
        let wanted = SocketAddr::new(pod, 8080);
        let _dialled = pair.client.dial(wanted).unwrap();
        assert_eq!(original_destination(&accept(&outbound).0), wanted);
    }
}

fn dns_is_captured_when_asked() {
    let pair = captured(&Settings { dns_capture: true, ..settings() });
    // The proxy listens on loopback. Its answers must reach the application, and its own queries the real server.
    let proxy = pair.pod.run(|| UdpSocket::bind("127.0.0.1:15053").unwrap());
    let server = pair.client.run(|| UdpSocket::bind(SocketAddr::new(CLIENT_V4.into(), 53)).unwrap());
    let app = pair.pod.run(|| udp_sharing("0.0.0.0:0".parse().unwrap(), false));
    for socket in [&proxy, &server, &app] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    app.connect(SocketAddr::new(CLIENT_V4.into(), 53)).unwrap();
    app.send(b"query").unwrap();
    let mut buffer = [0; 16];
    let (n, from) = proxy.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"query");

    // ztunnel's own query may leave from the very port of the application's: without a zone of its own it would be
    // taken for the same flow, and come back to ztunnel.
    let port = app.local_addr().unwrap().port();
    let same_port = pair.pod.run(|| udp_sharing(SocketAddr::new(POD_V4.into(), port), true));
    same_port.send_to(b"clash", SocketAddr::new(CLIENT_V4.into(), 53)).unwrap();
    let n = server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"clash");
    drop(same_port);

    let upstream = pair.pod.run(|| udp_sharing(SocketAddr::new(POD_V4.into(), 0), true));
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    upstream.send_to(b"forwarded", SocketAddr::new(CLIENT_V4.into(), 53)).unwrap();
    let (n, forwarder) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"forwarded");
    server.send_to(b"answer", forwarder).unwrap();
    let n = upstream.recv(&mut buffer).unwrap();
    proxy.send_to(&buffer[..n], from).unwrap();
    // A connected socket takes only what comes from the server it asked.
    let n = app.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"answer");
}

fn udp_sharing(address: SocketAddr, as_ztunnel: bool) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    if as_ztunnel {
        socket.set_mark(node_agent::redirect::rules::ZTUNNEL_MARK).unwrap();
    }
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.into()
}

/// The first half of joining, and of leaving: who knows already comes through ztunnel, who does not goes the old way, and
/// what is open lives through every step.
fn a_pod_is_served_without_being_redirected() {
    let pair = Pair::new();
    let (app, outside) = (pair.pod.listen("[::]:8080"), pair.client.listen("[::]:9000"));
    let ztunnel = [15001, 15006].map(|port| pair.pod.listen_as_ztunnel(port));
    let serve = || wait(apply::install_serving(pair.pod.as_fd(), &settings())).unwrap();
    let capture = || wait(apply::install(pair.pod.as_fd(), &settings())).unwrap();
    serve();
    let mut open = Vec::new();
    for (client, pod) in FAMILIES {
        // What ztunnel sends as the caller comes back to ztunnel.
        let spoofed = pair.pod.dial_as_ztunnel(Some(client), SocketAddr::new(pod, 8080)).unwrap();
        let (served, from) = accept(&app);
        assert_eq!(from.ip(), client);
        open.push((spoofed, served));
        let dialled = pair.client.dial(SocketAddr::new(pod, 8080)).unwrap();
        open.push((dialled, accept(&app).0));
        let dialled = pair.pod.dial(SocketAddr::new(client, 9000)).unwrap();
        open.push((dialled, accept(&outside).0));
    }
    let talk_all = |open: &mut Vec<_>| open.iter_mut().for_each(|(a, b)| talk(a, b));
    talk_all(&mut open);
    assert!(!ztunnel.iter().any(is_dialled));
    capture();
    talk_all(&mut open);
    let dialled = pair.client.dial(SocketAddr::new(POD_V4.into(), 8080)).unwrap();
    open.push((dialled, accept(&ztunnel[1]).0));
    let dialled = pair.pod.dial(SocketAddr::new(CLIENT_V4.into(), 9000)).unwrap();
    open.push((dialled, accept(&ztunnel[0]).0));
    serve();
    talk_all(&mut open);
    let _dialled = pair.client.dial(SocketAddr::new(POD_V4.into(), 8080)).unwrap();
    accept(&app);
}

fn applying_again_disturbs_nothing() {
    let pair = captured(&settings());
    let outbound = pair.pod.listen_as_ztunnel(15001);
    let app = pair.pod.listen("[::]:8080");
    for (client, pod) in FAMILIES {
        let mut dialled = pair.pod.dial(SocketAddr::new(client, 9000)).unwrap();
        let (mut accepted, _) = accept(&outbound);
        let mut spoofed = pair.pod.dial_as_ztunnel(Some(client), SocketAddr::new(pod, 8080)).unwrap();
        let (mut served, _) = accept(&app);
        for _ in 0..3 {
            wait(apply::install(pair.pod.as_fd(), &settings())).unwrap();
            assert_eq!(missing(&pair, &settings()), Vec::<String>::new());
            talk(&mut dialled, &mut accepted);
            talk(&mut spoofed, &mut served);
        }
        let _again = pair.pod.dial(SocketAddr::new(client, 9000)).unwrap();
        accept(&outbound);
    }
}

fn removal_leaves_no_trace() {
    let pair = Pair::new();
    // Nothing to remove is fine.
    wait(apply::remove(pair.pod.as_fd())).unwrap();
    let before = trace(&pair);
    for settings in [settings(), Settings { dns_capture: true, ..settings() }] {
        wait(apply::install(pair.pod.as_fd(), &settings)).unwrap();
        assert_ne!(trace(&pair), before);
        wait(apply::remove(pair.pod.as_fd())).unwrap();
        assert_eq!(trace(&pair), before);
    }
    let server = pair.client.listen("[::]:9000");
    let app = pair.pod.listen("[::]:8080");
    for (client, pod) in FAMILIES {
        let mut dialled = pair.pod.dial(SocketAddr::new(client, 9000)).unwrap();
        talk(&mut dialled, &mut accept(&server).0);
        let mut dialled = pair.client.dial(SocketAddr::new(pod, 8080)).unwrap();
        talk(&mut dialled, &mut accept(&app).0);
    }
}

/// Everything that rules change in a pod: tables, ip rules, routes.
fn trace(pair: &Pair) -> Vec<String> {
    let routing = pair.pod.routing();
    let tables = filter(pair).tables().unwrap();
    let mut trace: Vec<String> = tables.into_iter().map(|table| format!("table {table}")).collect();
    for family in [Family::V4, Family::V6] {
        trace.extend(routing.mark_rules(family).unwrap().iter().map(|rule| format!("{rule:?}")));
        trace.extend(routing.routes(family, 100).unwrap().iter().map(|route| format!("{route:?}")));
    }
    trace.sort();
    trace
}

fn filter(pair: &Pair) -> Nftables {
    Nftables::open_in(pair.pod.as_fd()).unwrap()
}

fn what_is_missing_is_seen() {
    let pair = captured(&settings());
    assert_eq!(missing(&pair, &settings()), Vec::<String>::new());
    let other = Settings { inbound_capture: false, ..settings() };
    assert!(!missing(&pair, &other).is_empty(), "other settings want other rules");
    // Someone flushes a chain, deletes a table, deletes the ip rule: each is seen and each is repaired.
    let change = |transaction: Transaction| filter(&pair).commit(transaction).unwrap();
    let break_it: [(&str, &dyn Fn()); 5] = [
        ("istio-output", &|| change(Transaction::new().flush_chain(Table::Nat.name(), "istio-output"))),
        (Table::Mangle.name(), &|| change(Transaction::new().remove_table(Table::Mangle.name()))),
        ("more than ours", &|| {
            let rule = Rule::new().counter().verdict(Verdict::Accept);
            change(Transaction::new().add_rule(Table::Raw.name(), "istio-output", &rule));
        }),
        ("ip rule", &|| {
            let rule = MarkRule { family: Family::V6, priority: 32764, mark: 0x111, mask: 0xfff, table: 100 };
            assert!(pair.pod.routing().remove_rule(&rule).unwrap());
        }),
        ("ip route", &|| {
            let local = Route::everything_local(Family::V4, LOOPBACK, 100);
            assert!(pair.pod.routing().remove_route(&local).unwrap());
        }),
    ];
    for (what, break_it) in break_it {
        break_it();
        let lines = missing(&pair, &settings());
        assert!(lines.iter().any(|line| line.contains(what)), "{what}: {lines:?}");
        wait(apply::install(pair.pod.as_fd(), &settings())).unwrap();
        assert_eq!(missing(&pair, &settings()), Vec::<String>::new());
    }
}

#[allow(clippy::print_stderr, reason = "a skipped case must be seen")]
fn without_ipv6_in_the_pod() {
    let pair = Pair::new();
    pair.pod.run(|| {
        let disable = |name: &str| std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        if let Err(error) = disable("lo").and_then(|()| disable("all")) {
            // /proc/sys may be read-only in a container; then this case cannot be made.
            eprintln!("SKIPPED: cannot disable IPv6: {error}");
        }
    });
    wait(apply::install(pair.pod.as_fd(), &settings())).unwrap();
    assert_eq!(missing(&pair, &settings()), Vec::<String>::new());
    let ztunnel = pair.pod.listen("0.0.0.0:15006");
    let wanted = SocketAddr::new(POD_V4.into(), 8080);
    let _dialled = pair.client.dial(wanted).unwrap();
    assert_eq!(original_destination(&accept(&ztunnel).0), wanted);
}
