use super::*;
use crate::address::NetworkAddress;
use crate::policy::{Action, Scope};
use crate::route::{PortProtocol, Protocol};
use crate::service::Vip;
use crate::workload::{AppProtocol, PortMapping, Tunnel};

const CART: &str = "cart.shop.svc.cluster.local";
const CART_KEY: &str = "shop/cart.shop.svc.cluster.local";

fn key(name: &str) -> NamespacedName {
    NamespacedName::parse(name).unwrap()
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn pod(name: &str, address: &str) -> Workload {
    Workload {
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![ip(address)],
        tunnel: Tunnel::Hbone,
        ..Workload::empty(format!("Kubernetes//Pod/shop/{name}"))
    }
}

fn serving(services: &[&str], workload: Workload) -> Workload {
    let port = PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown };
    Workload { services: services.iter().map(|s| (key(s), vec![port])).collect(), ..workload }
}

fn vip(address: &str) -> Vip {
    let (address, prefix) = match address.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().unwrap())),
        None => (address, None),
    };
    Vip { address: NetworkAddress { network: "".into(), ip: ip(address) }, prefix }
}

fn service(name: &str, vips: &[&str]) -> Service {
    let key = key(name);
    Service { vips: vips.iter().map(|v| vip(v)).collect(), ..Service::empty(key.namespace, key.name) }
}

fn policy(name: &str, scope: Scope) -> Policy {
    let NamespacedName { namespace, name } = key(name);
    Policy { name, namespace, scope, action: Action::Allow, rules: Vec::new(), dry_run: false }
}

/// Shorter than three `Arc`s at every call.
trait Add<T> {
    fn add(&mut self, thing: T) -> Change;
}

impl Add<ServiceRoutes> for Tables {
    fn add(&mut self, thing: ServiceRoutes) -> Change {
        self.apply(Resource::Routes(thing.into()))
    }
}

impl Add<Workload> for Tables {
    fn add(&mut self, thing: Workload) -> Change {
        self.apply(Resource::Workload(thing.into()))
    }
}

impl Add<Service> for Tables {
    fn add(&mut self, thing: Service) -> Change {
        self.apply(Resource::Service(thing.into()))
    }
}

impl Add<Policy> for Tables {
    fn add(&mut self, thing: Policy) -> Change {
        self.apply(Resource::Policy(thing.into()))
    }
}

fn name_at(tables: &Tables, address: &str) -> Option<String> {
    tables.workload_by_address("", ip(address)).map(|w| w.name.to_string())
}

fn service_at(tables: &Tables, address: &str, namespace: &str) -> Option<String> {
    tables.service_by_address("", ip(address), namespace).map(|s| s.key().to_string())
}

fn endpoints(tables: &Tables, service: &str) -> Vec<String> {
    let mut names: Vec<_> = tables.endpoints(&key(service)).iter().map(|w| w.name.to_string()).collect();
    names.sort();
    names
}

fn empty(tables: &Tables) -> bool {
    // Compared as text, so that an index left behind anywhere shows.
    format!("{tables:?}") == format!("{:?}", Tables::default())
}

#[test]
fn a_resource_replaces_the_one_of_its_name_as_a_whole() {
    let mut tables = Tables::default();
    tables.add(serving(&["shop/a"], pod("p", "10.0.0.1")));
    tables.add(serving(&["shop/b"], pod("p", "10.0.0.2")));
    assert_eq!((name_at(&tables, "10.0.0.1"), name_at(&tables, "10.0.0.2")), (None, Some("p".into())));
    assert_eq!((endpoints(&tables, "shop/a"), endpoints(&tables, "shop/b")), (vec![], vec!["p".into()]));
    assert_eq!(tables.workloads().count(), 1);

    tables.add(service("shop/a", &["10.96.0.1", "10.97.0.0/16"]));
    tables.add(service("shop/a", &["10.96.0.2"]));
    assert_eq!(service_at(&tables, "10.96.0.1", "x"), None);
    assert_eq!(service_at(&tables, "10.97.0.1", "x"), None);
    assert_eq!(service_at(&tables, "10.96.0.2", "x"), Some("shop/a".into()));
    assert_eq!(tables.services().count(), 1);

    tables.add(policy("shop/p", Scope::Global));
    tables.add(policy("shop/p", Scope::Namespace));
    assert_eq!(tables.policies_covering(&Workload::empty("elsewhere")), Covering::default());
    assert_eq!(tables.policies_covering(&pod("p", "10.0.0.1")).policies.len(), 1);
    assert_eq!(tables.policies().count(), 1);
}

#[test]
fn removal_goes_by_name() {
    let mut tables = Tables::default();
    tables.add(serving(&["shop/a", "shop/b"], pod("p", "10.0.0.1")));
    tables.add(service("shop/a", &["10.96.0.1", "10.97.0.0/16"]));
    tables.add(policy("shop/g", Scope::Global));
    tables.add(policy("shop/n", Scope::Namespace));
    tables.add(policy("shop/s", Scope::WorkloadSelector));
    for (kind, name) in [
        (Kind::Address, "nobody"),
        (Kind::Address, "shop/nobody"),
        (Kind::Address, "shop/g"),
        (Kind::Address, ""),
        (Kind::Address, "/"),
        (Kind::Authorization, "shop/a"),
        (Kind::Authorization, "Kubernetes//Pod/shop/p"),
    ] {
        assert_eq!(tables.remove(kind, name), Change { policies: false }, "{name} is not known");
    }
    assert_eq!((tables.workloads().count(), tables.services().count(), tables.policies().count()), (1, 1, 3));

    tables.remove(Kind::Address, "Kubernetes//Pod/shop/p");
    assert_eq!(name_at(&tables, "10.0.0.1"), None);
    assert_eq!(endpoints(&tables, "shop/a"), Vec::<String>::new());
    tables.remove(Kind::Address, "shop/a");
    for name in ["shop/g", "shop/n", "shop/s"] {
        assert_eq!(tables.remove(Kind::Authorization, name), Change { policies: true }, "{name}");
    }
    assert!(empty(&tables), "{tables:?}");
}

/// Trap 39.
#[test]
fn a_name_is_a_workloads_before_it_is_a_services() {
    let mut tables = Tables::default();
    tables.add(Workload { addresses: vec![ip("10.0.0.1")], ..Workload::empty("shop/a") });
    tables.add(service("shop/a", &[]));
    tables.remove(Kind::Address, "shop/a");
    assert_eq!((tables.workloads().count(), tables.services().count()), (0, 1));
    tables.remove(Kind::Address, "shop/a");
    assert!(empty(&tables));
}

#[test]
fn a_services_name_is_removed_in_any_case() {
    let mut tables = Tables::default();
    tables.add(service("shop/api.example.com", &[]));
    tables.remove(Kind::Address, "shop/API.example.com");
    assert!(empty(&tables));
}

#[test]
fn workloads_may_come_before_their_services() {
    let mut tables = Tables::default();
    let cart = format!("shop/{CART}");
    tables.add(serving(&[&cart], pod("p", "10.0.0.1")));
    assert!(tables.service(&key(&cart)).is_none());
    tables.add(service(&cart, &["10.96.0.1"]));
    assert_eq!(endpoints(&tables, &cart), ["p"]);
    // And outlive them.
    tables.remove(Kind::Address, &cart);
    tables.add(service(&cart, &["10.96.0.1"]));
    assert_eq!(endpoints(&tables, &cart), ["p"]);
}

/// Trap 40: a pod is known by `//Pod/` in its uid.
#[test]
fn owners_of_one_address() {
    let named =
        |uid: &str, name: &str, tunnel| Workload { tunnel, ..Workload { uid: uid.into(), ..pod(name, "10.0.0.1") } };
    let ranked = [
        named("Kubernetes//Pod/shop/a", "pod with a tunnel", Tunnel::Hbone),
        named("Kubernetes//Pod/shop/b", "pod", Tunnel::None),
        named("Kubernetes/networking.istio.io/WorkloadEntry/shop/c", "entry with a tunnel", Tunnel::Hbone),
        named("Kubernetes/networking.istio.io/WorkloadEntry/shop/d", "entry", Tunnel::None),
    ];
    // Every order of arrival, by rotating and reversing.
    for start in 0..ranked.len() {
        for reverse in [false, true] {
            let mut order: Vec<_> = (0..ranked.len()).map(|i| (start + i) % ranked.len()).collect();
            if reverse {
                order.reverse();
            }
            let mut tables = Tables::default();
            for i in order {
                tables.add(ranked[i].clone());
            }
            for best in &ranked {
                assert_eq!(name_at(&tables, "10.0.0.1"), Some(best.name.to_string()));
                tables.remove(Kind::Address, &best.uid);
            }
            assert!(empty(&tables));
        }
    }
}

/// Trap 40: the group before `Pod` is empty. What is called so in another group ranks with everything else.
#[test]
fn a_pod_of_another_group_is_none() {
    let claims = |uid: &str, tunnel| Workload { uid: uid.into(), tunnel, ..pod(uid, "10.0.0.1") };
    let pods = claims("Kubernetes//Pod/shop/a", Tunnel::None);
    for other in ["Kubernetes/example.com/Pod/shop/b", "Kubernetes/Pod/shop/b", "Kubernetes//Pods/shop/b", "//pod/"] {
        let other = claims(other, Tunnel::Hbone);
        for order in [[&pods, &other], [&other, &pods]] {
            let mut tables = Tables::default();
            for workload in order {
                tables.add(workload.clone());
            }
            assert_eq!(name_at(&tables, "10.0.0.1"), Some(pods.name.to_string()), "and not {}", other.uid);
        }
    }
}

#[test]
fn a_pods_address_is_used_again() {
    // The old pod's removal comes after the new pod ...
    let mut tables = Tables::default();
    tables.add(pod("old", "10.0.0.1"));
    tables.add(pod("new", "10.0.0.1"));
    assert_eq!(name_at(&tables, "10.0.0.1"), Some("new".into()), "the newer pod is the one that answers");
    tables.remove(Kind::Address, "Kubernetes//Pod/shop/old");
    assert_eq!(name_at(&tables, "10.0.0.1"), Some("new".into()));
    // ... or before it.
    tables.remove(Kind::Address, "Kubernetes//Pod/shop/new");
    assert_eq!(name_at(&tables, "10.0.0.1"), None);
    tables.add(pod("newest", "10.0.0.1"));
    assert_eq!(name_at(&tables, "10.0.0.1"), Some("newest".into()));
    // The new pod goes first: the old one still owns its address.
    tables.add(pod("brief", "10.0.0.1"));
    tables.remove(Kind::Address, "Kubernetes//Pod/shop/brief");
    assert_eq!(name_at(&tables, "10.0.0.1"), Some("newest".into()));
}

#[test]
fn addresses_belong_to_networks_and_not_to_nodes() {
    let mut tables = Tables::default();
    tables.add(Workload { network: "far".into(), ..pod("remote", "10.0.0.1") });
    tables.add(Workload { host_network: true, ..pod("agent", "192.0.2.1") });
    assert_eq!(name_at(&tables, "10.0.0.1"), None);
    assert!(tables.workload_by_address("far", ip("10.0.0.1")).is_some());
    assert_eq!(name_at(&tables, "192.0.2.1"), None, "a node's address is nobody's (trap 34)");
    assert!(tables.workload("Kubernetes//Pod/shop/agent").is_some());
    tables.add(pod("agent", "192.0.2.1"));
    assert_eq!(name_at(&tables, "192.0.2.1"), Some("agent".into()), "it moved off the node's network");
    tables.remove(Kind::Address, "Kubernetes//Pod/shop/agent");
    tables.remove(Kind::Address, "Kubernetes//Pod/shop/remote");
    assert!(empty(&tables));
}

/// Trap 5: not by the pod's UID, nor by its address.
#[test]
fn pods_are_known_by_name_namespace_and_account() {
    let mut tables = Tables::default();
    tables.add(pod("p", "10.0.0.1"));
    assert!(tables.workload_of_pod("shop", "p", "default").is_some());
    for (namespace, name, account) in [("shop", "p", "other"), ("shop", "q", "default"), ("bank", "p", "default")] {
        assert_eq!(tables.workload_of_pod(namespace, name, account), None, "{namespace}/{name} {account}");
    }
    // Two of one name, as from two clusters, told apart by account.
    let twin = Workload { uid: "other//Pod/shop/p".into(), service_account: "other".into(), ..pod("p", "10.0.0.2") };
    tables.add(twin);
    assert_eq!(tables.workload_of_pod("shop", "p", "other").unwrap().addresses, [ip("10.0.0.2")]);
    tables.remove(Kind::Address, "other//Pod/shop/p");
    assert_eq!(tables.workload_of_pod("shop", "p", "other"), None);
    assert!(tables.workload_of_pod("shop", "p", "default").is_some());
}

/// A StatefulSet in two clusters: each has the same names, accounts and all.
#[test]
fn of_pods_of_two_clusters_with_one_name_ours_is_meant() {
    let of = |cluster: &str, address| Workload {
        uid: format!("{cluster}//Pod/shop/p").into(),
        cluster: cluster.into(),
        ..pod("p", address)
    };
    for order in [["west", "east"], ["east", "west"]] {
        let mut tables = Tables::of_cluster("west");
        for cluster in order {
            tables.add(of(cluster, if cluster == "west" { "10.0.0.1" } else { "10.0.0.2" }));
        }
        assert_eq!(tables.workload_of_pod("shop", "p", "default").unwrap().cluster, "west".into());
        tables.remove(Kind::Address, "west//Pod/shop/p");
        assert_eq!(tables.workload_of_pod("shop", "p", "default").unwrap().cluster, "east".into(), "there is no other");
    }
}

#[test]
fn which_service_an_address_is() {
    let canonical = |s: Service| Service { canonical: true, ..s };
    let private = |s: Service| Service { private: true, ..s };
    let at = "10.96.0.1";
    for (name, services, want) in [
        ("nobody's", vec![], None),
        ("another address", vec![service("a/x", &["10.96.0.2"])], None),
        ("the only one", vec![service("a/x", &[at])], Some("a/x")),
        ("the first of equals", vec![service("a/x", &[at]), service("b/x", &[at])], Some("a/x")),
        ("canonical before first", vec![service("a/x", &[at]), canonical(service("b/x", &[at]))], Some("b/x")),
        (
            "own namespace before canonical",
            vec![canonical(service("a/x", &[at])), service("me/x", &[at])],
            Some("me/x"),
        ),
        (
            "exact before a block of the own namespace",
            vec![service("me/x", &["10.96.0.0/16"]), service("a/x", &[at])],
            Some("a/x"),
        ),
        ("a block", vec![service("a/x", &["10.96.0.0/16"])], Some("a/x")),
        ("outside a block", vec![service("a/x", &["10.97.0.0/16"])], None),
        (
            "longer prefix first",
            vec![service("a/x", &["10.96.0.0/24"]), service("b/x", &["10.96.0.0/16"])],
            Some("a/x"),
        ),
        (
            "own wide block before a narrow foreign one",
            vec![service("me/x", &["10.0.0.0/8"]), service("a/x", &["10.96.0.0/24"])],
            Some("me/x"),
        ),
        (
            "longer prefix before canonical",
            vec![canonical(service("a/x", &["10.0.0.0/8"])), service("b/x", &["10.96.0.0/24"])],
            Some("b/x"),
        ),
        (
            "canonical of equal blocks",
            vec![canonical(service("a/x", &["10.96.0.0/24"])), service("b/x", &["10.96.0.0/24"])],
            Some("a/x"),
        ),
        ("private to another namespace", vec![private(service("a/x", &[at]))], None),
        ("private to the client's namespace", vec![private(service("me/x", &[at]))], Some("me/x")),
        (
            "a private one does not hide a public one",
            vec![private(canonical(service("a/x", &[at]))), service("b/x", &[at])],
            Some("b/x"),
        ),
        ("a private block of another namespace", vec![private(service("a/x", &["10.96.0.0/16"]))], None),
    ] {
        let mut tables = Tables::default();
        let names: Vec<_> = services.iter().map(|s| s.key().to_string()).collect();
        for service in services {
            tables.add(service);
        }
        assert_eq!(service_at(&tables, at, "me"), want.map(String::from), "{name}");
        for service in names {
            tables.remove(Kind::Address, &service);
        }
        assert!(empty(&tables), "{name}: {tables:?}");
    }
}

#[test]
fn blocks_of_both_families() {
    let mut tables = Tables::default();
    tables.add(service("a/four", &["0.0.0.0/0"]));
    tables.add(service("a/six", &["fd00::/16", "2001:db8::1"]));
    assert_eq!(service_at(&tables, "198.51.100.1", "me"), Some("a/four".into()));
    assert_eq!(service_at(&tables, "fd00::1", "me"), Some("a/six".into()));
    assert_eq!(service_at(&tables, "2001:db8::1", "me"), Some("a/six".into()));
    assert_eq!(service_at(&tables, "2001:db8::2", "me"), None);
}

#[test]
fn services_by_hostname() {
    let mut tables = Tables::default();
    tables.add(service("a/api.example.com", &[]));
    tables.add(Service { canonical: true, ..service("b/api.example.com", &[]) });
    tables.add(Service { private: true, ..service("c/api.example.com", &[]) });
    let found = |namespace| tables.service_by_hostname("api.example.com", namespace).map(|s| s.namespace.to_string());
    assert_eq!((found("a"), found("c"), found("d")), (Some("a".into()), Some("c".into()), Some("b".into())));
    assert_eq!(tables.service_by_hostname("www.example.com", "a"), None);
}

#[test]
fn endpoints_are_removed_from_anywhere_in_the_list() {
    let names = ["a", "b", "c", "d"];
    for first in names {
        for second in names.into_iter().filter(|n| *n != first) {
            let mut tables = Tables::default();
            for name in names {
                tables.add(serving(&["shop/s"], pod(name, "10.0.0.1")));
            }
            let mut left = names.to_vec();
            for gone in [first, second] {
                tables.remove(Kind::Address, &format!("Kubernetes//Pod/shop/{gone}"));
                left.retain(|n| *n != gone);
                assert_eq!(endpoints(&tables, "shop/s"), left, "{first} then {second}");
            }
            // One that was moved is still found when it changes.
            tables.add(pod(left[1], "10.0.0.1"));
            assert_eq!(endpoints(&tables, "shop/s"), [left[0]], "{first} then {second}");
        }
    }
}

#[test]
fn policies_that_cover_a_workload() {
    let mut tables = Tables::default();
    for (name, scope) in [
        ("root/everywhere", Scope::Global),
        ("shop/here", Scope::Namespace),
        ("bank/there", Scope::Namespace),
        ("shop/named", Scope::WorkloadSelector),
        ("root/named", Scope::WorkloadSelector),
        ("shop/unnamed", Scope::WorkloadSelector),
    ] {
        tables.add(policy(name, scope));
    }
    let covering = |names: &[&str]| {
        let workload =
            Workload { authorization_policies: names.iter().map(|n| key(n)).collect(), ..pod("p", "10.0.0.1") };
        let covering = tables.policies_covering(&workload);
        let names = covering.policies.iter().map(|p| p.key().to_string()).collect::<Vec<_>>();
        (names, covering.missing.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    for (name, named, policies, missing) in [
        ("none named", vec![], vec!["root/everywhere", "shop/here"], vec![]),
        ("one named", vec!["shop/named"], vec!["root/everywhere", "shop/here", "shop/named"], vec![]),
        ("of the root namespace", vec!["root/named"], vec!["root/everywhere", "shop/here", "root/named"], vec![]),
        ("not known yet (trap 38)", vec!["shop/late"], vec!["root/everywhere", "shop/here"], vec!["shop/late"]),
        ("covering anyway: once", vec!["shop/here"], vec!["root/everywhere", "shop/here"], vec![]),
        (
            "named twice: once",
            vec!["shop/named", "shop/named"],
            vec!["root/everywhere", "shop/here", "shop/named"],
            vec![],
        ),
    ] {
        assert_eq!(
            covering(&named),
            (policies.iter().map(ToString::to_string).collect(), missing.iter().map(ToString::to_string).collect()),
            "{name}"
        );
    }
}

#[test]
fn what_a_change_means_for_open_connections() {
    let mut tables = Tables::default();
    let named = |names: &[&str]| Workload {
        authorization_policies: names.iter().map(|n| key(n)).collect(),
        ..pod("p", "10.0.0.1")
    };
    assert!(!tables.add(named(&["shop/a"])).policies, "a new workload has no connections");
    assert!(!tables.add(named(&["shop/a"])).policies, "the same again");
    assert!(tables.add(named(&["shop/b"])).policies, "other policies");
    assert!(tables.add(named(&[])).policies, "fewer policies");
    assert!(!tables.add(Workload { healthy: false, ..named(&[]) }).policies, "health is no matter of policy");
    assert!(!tables.add(service("shop/s", &[])).policies, "nor are services");
    assert!(tables.add(policy("shop/a", Scope::Global)).policies);
    assert!(!tables.add(policy("shop/a", Scope::Global)).policies, "trap 37: the same again, as on each reconnect");
    assert!(tables.remove(Kind::Authorization, "shop/a").policies);
    let mut change = Change::default();
    change |= Change { policies: true };
    change |= Change::default();
    assert!(change.policies, "changes add up");
}

#[test]
fn routes_by_service() {
    let of = |ports: &[u16], policies: &[&str]| ServiceRoutes {
        service: key(CART_KEY),
        ports: ports.iter().map(|port| PortProtocol { port: *port, protocol: Protocol::Http }).collect(),
        rules: Vec::new(),
        policies: policies.iter().map(|name| key(name)).collect(),
        traffic: Vec::new(),
        tokens: Arc::default(),
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: [].into(),
    };
    let mut tables = Tables::default();
    assert!(!tables.add(of(&[80], &["shop/a"])).policies, "no request was judged by others before");
    let first = tables.routes(&key(CART_KEY)).unwrap().clone();
    assert!(!tables.add(of(&[80], &["shop/a"])).policies);
    assert!(Arc::ptr_eq(&first, tables.routes(&key(CART_KEY)).unwrap()), "the same stays what it is");
    assert!(!tables.add(of(&[81], &["shop/a"])).policies, "ports are no matter of policy");
    assert_eq!(tables.routes(&key(CART_KEY)).unwrap().ports[0].port, 81);
    assert!(tables.add(of(&[81], &["shop/b", "shop/a"])).policies, "other policies");
    assert_eq!((tables.all_routes().count(), tables.routes(&key("shop/other"))), (1, None));

    for (name, scope) in [
        ("shop/a", Scope::WorkloadSelector),
        ("shop/n", Scope::Namespace),
        ("root/g", Scope::Global),
        ("other/n", Scope::Namespace),
    ] {
        tables.add(policy(name, scope));
    }
    let covering = tables.policies_of_routes(tables.routes(&key(CART_KEY)).unwrap());
    let known: Vec<_> = covering.policies.iter().map(|p| p.key().to_string()).collect();
    assert_eq!(
        (known, covering.missing),
        (vec!["shop/a".into()], vec![key("shop/b")]),
        "those of scope are for ztunnels"
    );

    assert!(!tables.remove(Kind::Routes, "shop/other").policies);
    assert!(!tables.remove(Kind::Address, CART_KEY).policies, "of another kind");
    assert!(tables.routes(&key(CART_KEY)).is_some());
    assert!(tables.remove(Kind::Routes, CART_KEY).policies, "whatever was judged by them");
    assert_eq!(tables.all_routes().count(), 0);
}

/// What was made of a list of endpoints is made again when the list changes, and only then.
#[test]
fn a_list_of_endpoints_has_another_edition_after_each_change() {
    let (mut tables, list) = (Tables::default(), key("shop/s"));
    let mut editions = vec![None];
    for (what, healthy) in [("one", true), ("two", true), ("one", false)] {
        tables.add(serving(&["shop/s"], Workload { healthy, ..pod(what, "10.0.0.1") }));
        editions.push(tables.endpoints_edition(&list).cloned());
    }
    tables.remove(Kind::Address, &serving(&["shop/s"], pod("two", "10.0.0.1")).uid);
    editions.push(tables.endpoints_edition(&list).cloned());
    for (i, edition) in editions.iter().enumerate() {
        assert!(editions[..i].iter().all(|other| other != edition), "{i}");
    }
    tables.add(serving(&["shop/other"], pod("three", "10.0.0.1")));
    tables.add(service("shop/s", &["10.96.0.1"]));
    assert_eq!(tables.endpoints_edition(&list), editions.last().unwrap().as_ref(), "nothing of it has changed");
}
