use std::sync::Arc;

use mesh_model::workload::Workload;
use mesh_proto::discovery::Resource as WireResource;
use prost_types::Any;

use super::*;

fn node() -> Node {
    Node { id: "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local".into(), ..Node::default() }
}

fn workload(uid: &str) -> Resource {
    Resource::Workload(Arc::new(Workload::empty(uid)))
}

fn wire(resource: &Resource, version: &str) -> WireResource {
    let any = Any { type_url: resource.kind().type_url().into(), value: resource.encode().to_vec() };
    WireResource { name: resource.name(), version: version.into(), resource: Some(any), ..WireResource::default() }
}

fn broken(name: &str) -> WireResource {
    let any = Any { type_url: Kind::Address.type_url().into(), value: vec![0xff] };
    WireResource { name: name.into(), version: "bad".into(), resource: Some(any), ..WireResource::default() }
}

fn response(kind: Kind, resources: Vec<WireResource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: "n1".into(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn first_address_request(client: &Client) -> DeltaDiscoveryRequest {
    client.connected().into_iter().find(|r| r.type_url == Kind::Address.type_url()).unwrap()
}

#[test]
fn a_new_stream_asks_for_everything_of_its_kinds() {
    for kinds in [&Kind::ISTIO[..], &Kind::ALL] {
        let requests = Client::new(node(), kinds, false).connected();
        let urls: Vec<_> = requests.iter().map(|r| r.type_url.as_str()).collect();
        let wanted: Vec<_> = kinds.iter().map(|kind| kind.type_url()).collect();
        assert_eq!(urls, wanted);
        for request in requests {
            assert_eq!(request.node, Some(node()));
            assert!(request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty());
            assert!(request.initial_resource_versions.is_empty() && request.response_nonce.is_empty());
        }
    }
}

/// A control plane of Istio's has none of ours: who does not ask for them does not wait for them.
#[test]
fn what_was_not_asked_for_is_not_waited_for() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    client.receive(response(Kind::Authorization, Vec::new(), &[])).unwrap();
    client.receive(response(Kind::Address, Vec::new(), &[])).unwrap();
    assert!(client.ready());
    assert!(matches!(client.receive(response(Kind::Routes, Vec::new(), &[])), Err(Unusable::UnexpectedType(_))));
    let mut client = Client::new(node(), &Kind::ALL, false);
    client.receive(response(Kind::Authorization, Vec::new(), &[])).unwrap();
    client.receive(response(Kind::Address, Vec::new(), &[])).unwrap();
    assert!(!client.ready());
    client.receive(response(Kind::Routes, Vec::new(), &[])).unwrap();
    assert!(client.ready());
}

/// Trap 60: no change of subscription rides on it.
#[test]
fn an_acknowledgement_is_type_and_nonce_and_nothing_else() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    let received = client.receive(response(Kind::Address, vec![wire(&workload("a"), "1")], &[])).unwrap();
    assert_eq!(received.upserts, [workload("a")]);
    let expected = DeltaDiscoveryRequest {
        type_url: Kind::Address.type_url().into(),
        response_nonce: "n1".into(),
        ..DeltaDiscoveryRequest::default()
    };
    assert_eq!(received.answer, expected);
}

#[test]
fn only_the_bad_are_refused_and_each_with_its_reason() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    let mut other_type = wire(&workload("d"), "1");
    other_type.resource.as_mut().unwrap().type_url = Kind::Authorization.type_url().into();
    let nothing = WireResource { name: "e".into(), ..WireResource::default() };
    let resources = vec![wire(&workload("a"), "1"), broken("b"), wire(&workload("c"), "1"), other_type, nothing];
    let received = client.receive(response(Kind::Address, resources, &[])).unwrap();
    assert_eq!(received.upserts, [workload("a"), workload("c")]);
    let names: Vec<_> = received.rejected.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["b", "d", "e"]);
    assert_eq!(received.answer.response_nonce, "n1");
    let detail = received.answer.error_detail.unwrap();
    assert_eq!(detail.code, 0);
    let parts: Vec<_> = detail.message.split("; ").collect();
    assert_eq!(parts.len(), 3, "{}", detail.message);
    assert!(parts[0].starts_with("b: not a message of its type"), "{}", detail.message);
    assert!(parts[1].starts_with("d: of type"), "{}", detail.message);
    assert_eq!(parts[2], "e: the resource is missing");
}

#[test]
fn reasons_are_bounded() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    let many = (0..10_000).map(|n| broken(&n.to_string())).collect();
    let received = client.receive(response(Kind::Address, many, &[])).unwrap();
    let message = received.answer.error_detail.unwrap().message;
    assert!(message.len() < MAX_REASONS + 100);
    assert!(message.contains("; and ") && message.ends_with(" more"), "{}", &message[message.len() - 50..]);
}

/// Trap 35: what was refused is not declared.
#[test]
fn a_reconnect_declares_what_is_held_and_only_that() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    client.receive(response(Kind::Address, vec![wire(&workload("a"), "1"), wire(&workload("b"), "1")], &[])).unwrap();
    // b is refused in its new form: what is held is the old one.
    let mut new_b = broken("b");
    new_b.version = "2".into();
    client.receive(response(Kind::Address, vec![new_b, broken("c")], &["a", "never heard of"])).unwrap();
    let declared = first_address_request(&client).initial_resource_versions;
    assert_eq!(declared, BTreeMap::from([("b".into(), "1".into())]));
    let policies = client.connected().into_iter().find(|r| r.type_url == Kind::Authorization.type_url()).unwrap();
    assert!(policies.initial_resource_versions.is_empty());
}

#[test]
fn removals_are_of_what_is_held() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    client.receive(response(Kind::Address, vec![wire(&workload("a"), "1"), wire(&workload("b"), "1")], &[])).unwrap();
    assert_eq!(client.held(Kind::Address), 2);
    let received = client.receive(response(Kind::Address, Vec::new(), &["a", "x", "a"])).unwrap();
    assert_eq!(received.removals, ["a"]);
    // Both sent and removed: it is there.
    let received = client.receive(response(Kind::Address, vec![wire(&workload("b"), "2")], &["b"])).unwrap();
    assert_eq!((received.upserts.len(), received.removals.len()), (1, 0));
    assert_eq!(client.held(Kind::Address), 1);
}

#[test]
fn a_resource_under_another_name_is_removed_by_its_own() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    let mut renamed = wire(&workload("a"), "1");
    renamed.name = "A".into();
    client.receive(response(Kind::Address, vec![renamed], &[])).unwrap();
    assert!(first_address_request(&client).initial_resource_versions.contains_key("A"));
    assert_eq!(client.receive(response(Kind::Address, Vec::new(), &["A"])).unwrap().removals, ["a"]);
}

/// Trap 59, ztunnel's side.
#[test]
fn ready_when_each_kind_was_accepted_once_as_a_whole() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    client.receive(response(Kind::Authorization, Vec::new(), &[])).unwrap();
    assert!(!client.ready());
    client.receive(response(Kind::Address, vec![wire(&workload("a"), "1"), broken("b")], &[])).unwrap();
    assert!(!client.ready(), "a refused response does not count");
    client.receive(response(Kind::Address, Vec::new(), &[])).unwrap();
    assert!(client.ready());
    client.receive(response(Kind::Address, vec![broken("b")], &[])).unwrap();
    assert!(client.ready(), "once ready, always");
}

#[test]
fn types_never_asked_for_are_left_aside() {
    let mut client = Client::new(node(), &Kind::ISTIO, false);
    let other = DeltaDiscoveryResponse { type_url: "x".into(), ..DeltaDiscoveryResponse::default() };
    assert_eq!(client.receive(other), Err(Unusable::UnexpectedType("x".into())));
    assert!(matches!(client.receive_bytes(&[0xff]), Err(Unusable::Encoding(_))));
    let empty = response(Kind::Address, Vec::new(), &[]).encode_to_vec();
    assert!(client.receive_bytes(&empty).is_ok());
}

/// Trap 36.
#[test]
fn on_demand_begins_with_nothing_and_asks_key_by_key() {
    let mut client = Client::new(node(), &Kind::ISTIO, true);
    let first = first_address_request(&client);
    assert_eq!(first.resource_names_subscribe, ["*"]);
    assert_eq!(first.resource_names_unsubscribe, ["*"]);
    assert_eq!(client.connected().len(), 2, "policies stay wildcard");

    let asked = client.subscribe("/10.0.0.1").unwrap();
    assert_eq!(asked.resource_names_subscribe, ["/10.0.0.1"]);
    assert!(asked.response_nonce.is_empty() && asked.node.is_none());
    assert_eq!(client.subscribe("/10.0.0.1"), None, "asked for already");
    client.subscribe("shop/none").unwrap();

    let mut found = wire(&workload("a"), "1");
    found.aliases = vec!["/10.0.0.1".into()];
    let received = client.receive(response(Kind::Address, vec![found], &["shop/none"])).unwrap();
    assert_eq!(received.answered, ["/10.0.0.1", "shop/none"]);
    assert_eq!(received.absent, ["shop/none"]);
    assert!(received.removals.is_empty(), "what was never held is not removed");

    // A reconnect: not everything; what is held; then the keys, in a request of their own.
    let requests: Vec<_> = client.connected().into_iter().filter(|r| r.type_url == Kind::Address.type_url()).collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].initial_resource_versions, BTreeMap::from([("a".into(), "1".into())]));
    assert_eq!(requests[1].resource_names_subscribe, ["/10.0.0.1", "shop/none"]);
    assert!(requests[1].initial_resource_versions.is_empty());

    // What is given up is said in a request of its own too, and asked for anew when it is wanted again.
    let given_up = client.unsubscribe(vec!["shop/none".into(), "never/asked".into()]).unwrap().request;
    assert_eq!(given_up.resource_names_unsubscribe, ["shop/none"]);
    assert!(given_up.response_nonce.is_empty() && given_up.resource_names_subscribe.is_empty());
    assert_eq!(client.unsubscribe(vec!["shop/none".into()]), None);
    assert!(client.subscribe("shop/none").is_some());
}

#[test]
fn with_everything_subscribed_nothing_is_asked_for_again() {
    assert_eq!(Client::new(node(), &Kind::ISTIO, false).subscribe("/10.0.0.1"), None);
}

fn service(name: &str) -> Resource {
    Resource::Service(Arc::new(mesh_model::service::Service::empty("shop", name)))
}

fn serving(uid: &str, services: &[&str]) -> Resource {
    let keys = services.iter().map(|name| (mesh_model::address::NamespacedName::new("shop", *name), Vec::new()));
    Resource::Workload(Arc::new(Workload { services: keys.collect(), ..Workload::empty(uid) }))
}

fn with_alias(resource: &Resource, alias: &str) -> WireResource {
    WireResource { aliases: vec![alias.into()], ..wire(resource, "1") }
}

/// What the key alone brought goes with it, endpoints too; what another key brings stays.
#[test]
fn a_key_that_is_asked_for_no_longer_takes_with_it_what_it_brought() {
    let mut client = Client::new(node(), &Kind::ISTIO, true);
    for key in ["/10.96.0.1", "/10.96.0.2", "uid-of-ours"] {
        client.subscribe(key).unwrap();
    }
    let (cart, pay) = (with_alias(&service("cart"), "/10.96.0.1"), with_alias(&service("pay"), "/10.96.0.2"));
    let both = wire(&serving("both", &["cart", "pay"]), "1");
    // Before its service, as it may come.
    let of_cart = with_alias(&serving("cart-1", &["cart"]), "/10.0.0.1");
    let ours = wire(&workload("uid-of-ours"), "1");
    let unexplained = wire(&workload("unexplained"), "1");
    let all = vec![of_cart.clone(), cart.clone(), pay.clone(), both.clone(), ours, unexplained];
    let received = client.receive(response(Kind::Address, all, &[])).unwrap();
    assert_eq!(received.upserts.len(), 6);

    let Unsubscribed { request, mut removals } = client.unsubscribe(vec!["/10.96.0.1".into()]).unwrap();
    removals.sort();
    assert_eq!(
        (request.resource_names_unsubscribe, removals),
        (vec!["/10.96.0.1".to_owned()], vec!["cart-1".to_owned(), "shop/cart".to_owned()])
    );
    let declared = first_address_request(&client).initial_resource_versions;
    assert_eq!(declared.into_keys().collect::<Vec<_>>(), ["both", "shop/pay", "uid-of-ours", "unexplained"]);

    // What was under way is not taken in: nobody would keep it up to date. A new endpoint of it neither.
    let late = vec![cart.clone(), of_cart.clone(), wire(&serving("cart-2", &["cart"]), "1"), both.clone()];
    let received = client.receive(response(Kind::Address, late, &[])).unwrap();
    assert_eq!(received.upserts, [serving("both", &["cart", "pay"])]);
    assert_eq!(client.held(Kind::Address), 4);
    // Asked for again, it is.
    client.subscribe("/10.96.0.1").unwrap();
    let received = client.receive(response(Kind::Address, vec![of_cart, cart], &[])).unwrap();
    assert_eq!(received.answered, ["/10.96.0.1"]);
    assert_eq!((received.upserts.len(), client.held(Kind::Address)), (2, 6));
}
