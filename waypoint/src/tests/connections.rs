//! What is no HTTP, as TCPRoutes and TLSRoutes send it.

use std::collections::BTreeMap;

use mesh_model::policy::{Action, Clause, Match, Policy, Rule as PolicyRule, Scope, StringMatch};
use mesh_model::route::{BackendTarget, StreamBackend, StreamKind, StreamRule};
use mesh_testkit::hbone::on_one_thread;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// Says its name, and then what it hears.
async fn greets(name: &'static str) -> SocketAddr {
    mesh_testkit::tcp::listen(move |mut tcp| async move {
        // Who is cut off meanwhile hears nothing more.
        let _ = tcp.write_all(name.as_bytes()).await;
        let mut heard = Vec::new();
        let _ = tcp.read_to_end(&mut heard).await;
        let _ = tcp.write_all(&heard).await;
    })
    .await
}

fn rule(kind: StreamKind, hostnames: &[&str], backends: &[(&str, u32)]) -> Arc<StreamRule> {
    let backend = |(name, weight): &(&str, u32)| StreamBackend {
        target: match name.strip_prefix('!') {
            Some(why) => BackendTarget::Invalid(why.into()),
            None => BackendTarget::Service(key(name), 80),
        },
        weight: *weight,
    };
    Arc::new(StreamRule {
        kind,
        route: NamespacedName::new("shop", "split"),
        name: "rules[0]".into(),
        port: Some(80),
        callers: None,
        hostnames: hostnames.iter().map(|name| (*name).into()).collect(),
        backends: backends.iter().map(backend).collect(),
    })
}

fn follows(rules: &[Arc<StreamRule>]) -> Resource {
    Resource::Routes(Arc::new(ServiceRoutes { streams: rules.to_vec(), ..routes("cart", Vec::new(), &[]) }))
}

impl World {
    /// `cart` behind the waypoint, and the services `old` and `new` with an endpoint each.
    async fn with_backends(protocol: AppProtocol, old: SocketAddr, new: SocketAddr) -> Self {
        let mut world = Self::start(protocol, &[Endpoint::plain("cart-1", greets("cart ").await)]);
        let mut all = Vec::new();
        for (i, (name, at)) in [("old", old), ("new", new)].into_iter().enumerate() {
            let vip = Ipv4Addr::new(10, 1, 0, 2 + i as u8).into();
            all.push(Resource::Service(Arc::new(service(name, vip, AppProtocol::Tcp))));
            all.push(Endpoint::plain(&format!("{name}-1"), at).of(name));
        }
        world.tables.apply_local(all);
        world
    }

    /// What a connection to `cart` on which nothing is said comes to; empty where it is closed.
    async fn says(&self) -> String {
        let mut tunnel = self.tunnel("web", "10.1.0.1:80").await.unwrap();
        let _ = tunnel.shutdown().await;
        let mut all = Vec::new();
        let ended = tunnel.read_to_end(&mut all).await;
        assert!(ended.is_ok() || all.is_empty(), "{ended:?}");
        String::from_utf8(all).unwrap()
    }
}

#[tokio::test]
async fn a_tcp_route_splits_connections_by_weight() {
    on_one_thread(async {
        let mut world = World::with_backends(AppProtocol::Tcp, greets("old ").await, greets("new ").await).await;
        assert_eq!(world.says().await, "cart ", "without a route it goes to the service itself");
        world.tables.apply_local(vec![follows(&[rule(StreamKind::Tcp, &[], &[("old", 1), ("new", 1), ("!gone", 1)])])]);
        let mut counted = BTreeMap::<String, usize>::new();
        for _ in 0..90 {
            *counted.entry(world.says().await).or_default() += 1;
        }
        let of = |name: &str| counted.get(name).copied().unwrap_or_default();
        // By chance: each has 30 of 90, and fewer than 5 once in 10^10 times.
        assert!(["old ", "new ", ""].iter().all(|name| of(name) >= 5) && of("cart ") == 0, "{counted:?}");
        let line = world.logged("NO_BACKEND").await;
        assert!(line.contains("rules[0] of route shop/split") && line.contains("gone"), "{line}");
        for backends in [&[("old", 0)][..], &[]] {
            world.tables.apply_local(vec![follows(&[rule(StreamKind::Tcp, &[], backends)])]);
            assert_eq!(world.says().await, "", "nobody takes it");
        }
        world.end().await;
    })
    .await;
}

/// Nobody waits for the first word, and what begins like HTTP is carried.
#[tokio::test]
async fn where_nothing_is_declared_a_tcp_route_says_that_it_is_no_http() {
    on_one_thread(async {
        let mut world = World::with_backends(AppProtocol::Unknown, greets("old ").await, greets("new ").await).await;
        world.tables.apply_local(vec![follows(&[rule(StreamKind::Tcp, &[], &[("old", 1)])])]);
        let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
        let mut greeting = [0; 4];
        tunnel.read_exact(&mut greeting).await.unwrap();
        tunnel.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut rest = String::new();
        tunnel.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&greeting, &*rest), (b"old ", "GET / HTTP/1.1\r\n\r\n"));
        world.end().await;
    })
    .await;
}

/// Whoever may not dial a backend's service may not come there by a route, and is cut when that changes.
#[tokio::test]
async fn policies_of_the_backends_own_service_hold_for_the_caller() {
    on_one_thread(async {
        let mut world = World::with_backends(AppProtocol::Tcp, greets("old ").await, greets("new ").await).await;
        let who = StringMatch::Exact("cluster.local/ns/shop/sa/web".into());
        let clause = Clause { matches: vec![Match { principals: vec![who], ..Match::default() }] };
        let deny = Resource::Policy(Arc::new(Policy {
            name: "no-web".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Deny,
            rules: vec![PolicyRule { clauses: vec![clause] }],
            dry_run: false,
        }));
        let theirs = |policies: &[&str]| Resource::Routes(Arc::new(routes("old", Vec::new(), policies)));
        let rules = [rule(StreamKind::Tcp, &[], &[("old", 1)])];
        world.tables.apply_local(vec![follows(&rules), theirs(&[])]);
        let mut open = world.tunnel("web", "10.1.0.1:80").await.unwrap();
        let mut greeting = [0; 4];
        open.read_exact(&mut greeting).await.unwrap();
        world.tables.apply_local(vec![deny, theirs(&["no-web"])]);
        let cut = open.read_to_end(&mut Vec::new()).await;
        assert!(cut.is_err(), "{cut:?}");
        world.logged("POLICY_CHANGED").await;
        assert_eq!(world.says().await, "", "who is denied there is denied here");
        let line = world.logged("POLICY_DENIED").await;
        assert!(line.contains("shop/no-web"), "{line}");
        world.end().await;
    })
    .await;
}

/// Nor to another port of the service that was dialled, where policies name it.
#[tokio::test]
async fn policies_of_another_port_hold_for_the_caller() {
    on_one_thread(async {
        let mut world = World::with_backends(AppProtocol::Tcp, greets("old ").await, greets("new ").await).await;
        let one = Match { destination_ports: vec![81], ..Match::default() };
        let deny = Resource::Policy(Arc::new(Policy {
            name: "no-81".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Deny,
            rules: vec![PolicyRule { clauses: vec![Clause { matches: vec![one] }] }],
            dry_run: false,
        }));
        let mut cart = service("cart", VIP.into(), AppProtocol::Tcp);
        cart.ports.push(PortMapping { service_port: 81, target_port: 0, app_protocol: AppProtocol::Tcp });
        let target = BackendTarget::Service(key("cart"), 81);
        let rule = StreamRule {
            backends: vec![StreamBackend { target, weight: 1 }],
            ..(*rule(StreamKind::Tcp, &[], &[])).clone()
        };
        let streams = vec![Arc::new(rule)];
        world.tables.apply_local(vec![
            Resource::Service(Arc::new(cart)),
            deny,
            Resource::Routes(Arc::new(ServiceRoutes { streams, ..routes("cart", Vec::new(), &["no-81"]) })),
        ]);
        assert_eq!(world.says().await, "");
        let line = world.logged("POLICY_DENIED").await;
        assert!(line.contains("shop/no-81"), "{line}");
        world.end().await;
    })
    .await;
}

/// TLS of a client and a server of their own, through the waypoint, which has no key of theirs.
struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    fn new() -> Self {
        let names = ["a.example.com", "b.example.com", "c.example.org", "a.b.example.com"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Self {
            client: Arc::new(client.unwrap().with_root_certificates(roots).with_no_client_auth()),
            server: {
                let server = server.unwrap().with_no_client_auth();
                Arc::new(server.with_single_cert(vec![certificate], key.try_into().unwrap()).unwrap())
            },
        }
    }

    /// A server that ends TLS itself, and says its name and the name that it was asked for.
    async fn serves(&self, name: &'static str) -> SocketAddr {
        let acceptor = TlsAcceptor::from(self.server.clone());
        mesh_testkit::tcp::listen(move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let asked = tls.get_ref().1.server_name().unwrap_or_default().to_owned();
                let _ = tls.write_all(format!("{name} {asked}").as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        })
        .await
    }

    /// What the server says that a client comes to who asks for `name`, or for none; None where it is closed.
    async fn asks(&self, world: &World, name: &str, sni: bool) -> Option<String> {
        let mut client = (*self.client).clone();
        client.enable_sni = sni;
        let tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
        let connected = TlsConnector::from(Arc::new(client)).connect(name.to_owned().try_into().unwrap(), tunnel).await;
        let mut said = String::new();
        connected.ok()?.read_to_string(&mut said).await.unwrap();
        Some(said)
    }
}

#[tokio::test]
async fn tls_routes_pass_connections_through_by_the_name_that_is_asked_for() {
    on_one_thread(async {
        for protocol in [AppProtocol::Tls, AppProtocol::Unknown] {
            let tls = Tls::new();
            let mut world = World::with_backends(protocol, tls.serves("old").await, tls.serves("new").await).await;
            let names = |names: &[&str], backend| rule(StreamKind::Tls, names, &[(backend, 1)]);
            world.tables.apply_local(vec![follows(&[
                // Where there are names, it does not count.
                rule(StreamKind::Tcp, &[], &[("cart", 1)]),
                names(&["*.example.com"], "old"),
                names(&["b.example.com"], "new"),
                names(&["*.b.example.com"], "!gone"),
            ])]);
            for (name, expected) in [
                ("a.example.com", Some("old a.example.com")),
                ("b.example.com", Some("new b.example.com")),
                ("c.example.org", None),
                ("a.b.example.com", None),
            ] {
                assert_eq!(tls.asks(&world, name, true).await.as_deref(), expected, "{name}");
            }
            let line = world.logged("NO_ROUTE").await;
            assert!(
                line.contains("no TLSRoute of shop/cart.shop.svc.cluster.local is for the server name c.example.org"),
                "{line}"
            );
            world.logged("NO_BACKEND").await;
            assert_eq!(tls.asks(&world, "a.example.com", false).await, None, "without a name");
            world.logged("the ClientHello has no server name (SNI)").await;
            let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
            tunnel.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
            let told = tunnel.read_to_end(&mut Vec::new()).await;
            assert!(told.is_err(), "{told:?}");
            let line = world.logged("NO_CLIENT_HELLO").await;
            assert!(line.contains("has TLSRoutes: what came is no ClientHello"), "{line}");
            world.end().await;
        }
    })
    .await;
}
