use mesh_model::address::NamespacedName;
use mesh_model::policy::Policy;
use mesh_model::resource::Resource as Published_;
use mesh_model::workload::Workload;
use mesh_proto::discovery::{DeltaDiscoveryResponse, Node, Status};
use prost::Message;

use super::*;
use crate::audience::Audience;
use crate::published::{LOOKS, Publisher};

const ADDRESS: Kind = Kind::Address;
const POLICY: Kind = Kind::Authorization;

/// Name, and what makes one form of it differ from another.
fn workload(uid: &str, name: &str) -> Published_ {
    workload_at(uid, name, &[], &[])
}

fn workload_at(uid: &str, name: &str, ips: &[&str], services: &[&str]) -> Published_ {
    let services = services.iter().map(|s| (NamespacedName::new("shop", *s), Vec::new())).collect();
    let addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    Published_::Workload(Arc::new(Workload { name: name.into(), addresses, services, ..Workload::empty(uid) }))
}

fn service(hostname: &str) -> Published_ {
    let wire = mesh_proto::workload::Service {
        name: hostname.into(),
        namespace: "shop".into(),
        hostname: hostname.into(),
        ..Default::default()
    };
    Published_::Service(Arc::new(wire.try_into().unwrap()))
}

fn service_at(hostname: &str, ip: &str) -> Published_ {
    let std::net::IpAddr::V4(ip) = ip.parse().unwrap() else { panic!("of the fourth version") };
    let vip = mesh_proto::workload::NetworkAddress {
        address: bytes::Bytes::copy_from_slice(&ip.octets()),
        ..Default::default()
    };
    let wire = mesh_proto::workload::Service {
        name: hostname.into(),
        namespace: "shop".into(),
        hostname: hostname.into(),
        addresses: vec![vip],
        ..Default::default()
    };
    Published_::Service(Arc::new(wire.try_into().unwrap()))
}

fn policy(name: &str) -> Published_ {
    let wire = mesh_proto::policy::Authorization { name: name.into(), namespace: "shop".into(), ..Default::default() };
    Published_::Policy(Arc::new(Policy::try_from(wire).unwrap()))
}

/// One subscriber and what is published to it.
struct Stage {
    publisher: Publisher,
    subscriber: Subscriber,
}

/// Names sent, names removed.
type Said = (Vec<String>, Vec<String>);

impl Stage {
    fn new(resources: Vec<Published_>) -> Self {
        let mut publisher = Publisher::new();
        publisher.publish(resources);
        Self { publisher, subscriber: Subscriber::default() }
    }

    fn publish(&mut self, resources: Vec<Published_>) {
        self.publisher.publish(resources);
    }

    fn respond(&mut self) -> Option<DeltaDiscoveryResponse> {
        let published = self.publisher.subscribe().borrow().clone();
        self.subscriber.respond(&published).map(on_wire)
    }

    /// The next response of this kind, which is then acknowledged.
    fn says(&mut self, kind: Kind) -> Option<Said> {
        let response = self.respond()?;
        assert_eq!(response.type_url, kind.type_url());
        assert!(!response.nonce.is_empty());
        self.ask(ack(kind, &response.nonce));
        Some((response.resources.into_iter().map(|r| r.name).collect(), response.removed_resources))
    }

    fn ask(&mut self, request: DeltaDiscoveryRequest) -> Meaning {
        self.subscriber.request(request).unwrap()
    }
}

/// As it is read at the other end.
fn on_wire(response: Response) -> DeltaDiscoveryResponse {
    let bytes = response.into_chunks().unwrap().fold(Vec::new(), |bytes, piece| [&bytes[..], &piece].concat());
    let (prefix, message) = bytes.split_at(5);
    assert_eq!(prefix, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
    let decoded = DeltaDiscoveryResponse::decode(message).unwrap();
    // What is cut out of entries is what prost writes of the whole: what is said of all first, then the resources.
    let head = DeltaDiscoveryResponse { resources: Vec::new(), ..decoded.clone() };
    let resources = DeltaDiscoveryResponse { resources: decoded.resources.clone(), ..Default::default() };
    assert_eq!(message, [head.encode_to_vec(), resources.encode_to_vec()].concat());
    decoded
}

fn request(kind: Kind) -> DeltaDiscoveryRequest {
    let node = Node { id: "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local".into(), ..Node::default() };
    DeltaDiscoveryRequest { node: Some(node), type_url: kind.type_url().into(), ..Default::default() }
}

fn ack(kind: Kind, nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.type_url().into(), response_nonce: nonce.into(), ..Default::default() }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn subscribe(keys: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_subscribe: texts(keys), ..ack(ADDRESS, "") }
}

fn on_demand() -> DeltaDiscoveryRequest {
    let everything = texts(&["*"]);
    DeltaDiscoveryRequest {
        resource_names_subscribe: everything.clone(),
        resource_names_unsubscribe: everything,
        ..request(ADDRESS)
    }
}

fn said(sent: &[&str], removed: &[&str]) -> Option<Said> {
    Some((texts(sent), texts(removed)))
}

/// Trap 59, the control plane's side.
#[test]
fn the_first_request_of_each_kind_is_answered_even_with_nothing() {
    let mut stage = Stage::new(vec![]);
    assert_eq!(stage.ask(request(POLICY)), Meaning::Subscribed(POLICY));
    assert_eq!(stage.says(POLICY), said(&[], &[]));
    assert_eq!(stage.respond(), None);
    stage.ask(request(ADDRESS));
    assert_eq!(stage.says(ADDRESS), said(&[], &[]));
    assert_eq!(stage.respond(), None);
}

#[test]
fn nothing_is_said_before_anything_is_published() {
    let mut stage = Stage { publisher: Publisher::new(), subscriber: Subscriber::default() };
    let mut declares = request(ADDRESS);
    declares.initial_resource_versions.insert("a".into(), "1".into());
    stage.ask(declares);
    assert_eq!(stage.respond(), None, "a restarted control plane must not remove everything");
    stage.publish(vec![workload("a", "x")]);
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
}

#[test]
fn only_changes_are_sent() {
    let mut stage = Stage::new(vec![workload("a", "x"), workload("b", "x")]);
    stage.ask(request(ADDRESS));
    assert_eq!(stage.says(ADDRESS), said(&["a", "b"], &[]));
    stage.publish(vec![workload("a", "x"), workload("b", "y"), workload("c", "x")]);
    assert_eq!(stage.says(ADDRESS), said(&["b", "c"], &[]));
    stage.publish(vec![workload("b", "y")]);
    assert_eq!(stage.says(ADDRESS), said(&[], &["a", "c"]));
    stage.publish(vec![workload("b", "y"), policy("p")]);
    assert_eq!(stage.respond(), None, "policies were not asked for");
}

#[test]
fn a_reconnect_is_told_only_what_differs_from_what_it_declares() {
    let mut stage = Stage::new(vec![workload("a", "x"), workload("b", "x"), workload("c", "x")]);
    stage.ask(request(ADDRESS));
    let response = stage.respond().unwrap();
    let held: BTreeMap<_, _> = response.resources.into_iter().map(|r| (r.name, r.version)).collect();

    stage.subscriber = Subscriber::default();
    stage.ask(DeltaDiscoveryRequest { initial_resource_versions: held.clone(), ..request(ADDRESS) });
    assert_eq!(stage.says(ADDRESS), said(&[], &[]), "nothing again");

    stage.subscriber = Subscriber::default();
    let mut other = held;
    other.insert("b".into(), "old".into());
    other.insert("gone".into(), "1".into());
    other.remove("c");
    // A nonce of an earlier stream means nothing on this one.
    let again =
        DeltaDiscoveryRequest { initial_resource_versions: other, response_nonce: "77".into(), ..request(ADDRESS) };
    assert_eq!(stage.ask(again), Meaning::Subscribed(ADDRESS));
    assert_eq!(stage.says(ADDRESS), said(&["b", "c"], &["gone"]));
}

#[test]
fn one_response_at_a_time_and_then_the_newest() {
    let mut stage = Stage::new(vec![workload("a", "1")]);
    stage.ask(request(ADDRESS));
    let first = stage.respond().unwrap();
    for n in 2..10 {
        stage.publish(vec![workload("a", &n.to_string()), workload(&format!("short-lived-{n}"), "x")]);
        assert_eq!(stage.respond(), None, "the first is not answered yet");
    }
    stage.publish(vec![workload("a", "10")]);
    assert_eq!(stage.ask(ack(ADDRESS, &first.nonce)), Meaning::Accepted(ADDRESS));
    let second = stage.respond().unwrap();
    let names: Vec<_> = second.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    assert!(second.removed_resources.is_empty(), "what it never had is not removed");
    assert_ne!(first.nonce, second.nonce);
}

#[test]
fn what_went_back_to_what_it_was_is_not_sent() {
    let mut stage = Stage::new(vec![workload("a", "1")]);
    stage.ask(request(ADDRESS));
    stage.says(ADDRESS).unwrap();
    stage.publish(vec![workload("a", "2")]);
    stage.publish(vec![workload("a", "1")]);
    assert_eq!(stage.respond(), None);
}

/// Trap 60.
#[test]
fn a_stale_answer_is_dropped_as_a_whole() {
    let mut stage = Stage::new(vec![workload_at("a", "x", &["10.0.0.1"], &[])]);
    stage.ask(on_demand());
    let first = stage.respond().unwrap();
    let change = DeltaDiscoveryRequest { response_nonce: "older".into(), ..subscribe(&["a"]) };
    assert_eq!(stage.ask(change), Meaning::Stale(ADDRESS));
    assert_eq!(stage.respond(), None, "still waiting for the answer, and nothing was subscribed");
    stage.ask(ack(ADDRESS, &first.nonce));
    assert_eq!(stage.respond(), None);
    assert_eq!(stage.ask(subscribe(&["a"])), Meaning::Subscribed(ADDRESS));
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
    assert_eq!(stage.ask(ack(ADDRESS, &first.nonce)), Meaning::Stale(ADDRESS));
}

#[test]
fn a_refusal_is_reported_and_not_answered_by_the_same_again() {
    let mut stage = Stage::new(vec![workload("a", "1"), workload("b", "1")]);
    stage.ask(request(ADDRESS));
    let first = stage.respond().unwrap();
    let refused = DeltaDiscoveryRequest {
        error_detail: Some(Status { message: "a: bad".into(), ..Status::default() }),
        ..ack(ADDRESS, &first.nonce)
    };
    assert_eq!(stage.ask(refused), Meaning::Rejected(ADDRESS, "a: bad".into()));
    assert_eq!(stage.respond(), None);
    stage.publish(vec![workload("a", "2"), workload("b", "1")]);
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
}

/// Trap 35: what was refused is not declared, so it comes again, as often as it takes; what was accepted does not.
#[test]
fn what_was_refused_comes_again_after_a_reconnect() {
    use crate::delta::Client;
    let mut stage = Stage::new(vec![workload("a", "1"), workload("b", "1")]);
    let mut client = Client::new(request(ADDRESS).node.unwrap(), &Kind::ISTIO, false);
    // A stream, on which the client cannot read what is in `broken`: what comes on it.
    let stream = |stage: &mut Stage, client: &mut Client, broken: &[&str]| {
        stage.subscriber = Subscriber::default();
        for first in client.connected() {
            stage.ask(first);
        }
        let mut came = Vec::new();
        while let Some(mut response) = stage.respond() {
            for resource in &mut response.resources {
                came.push(resource.name.clone());
                if broken.contains(&resource.name.as_str()) {
                    resource.resource.as_mut().unwrap().value = vec![0xff];
                }
            }
            let answer = client.receive(response).unwrap().answer;
            stage.ask(answer);
        }
        came
    };
    assert_eq!(stream(&mut stage, &mut client, &[]), ["a", "b"]);
    // One that is held in its old form, and one that is not held at all.
    stage.publish(vec![workload("a", "1"), workload("b", "2"), workload("c", "1")]);
    assert_eq!(stream(&mut stage, &mut client, &["b", "c"]), ["b", "c"]);
    assert_eq!(stream(&mut stage, &mut client, &["c"]), ["b", "c"]);
    assert_eq!(stream(&mut stage, &mut client, &[]), ["c"]);
    assert_eq!(stream(&mut stage, &mut client, &[]), [""; 0]);
    assert_eq!(client.held(ADDRESS), 3);
}

/// Trap 38.
#[test]
fn policies_go_before_workloads() {
    let mut stage = Stage::new(vec![workload("a", "1"), policy("p")]);
    stage.ask(request(ADDRESS));
    stage.ask(request(POLICY));
    let policies = stage.respond().unwrap();
    assert_eq!(policies.type_url, POLICY.type_url());
    let workloads = stage.respond().unwrap();
    assert_eq!(workloads.type_url, ADDRESS.type_url(), "sent is enough: the stream keeps the order");
    stage.ask(ack(ADDRESS, &workloads.nonce));

    // The policy that covers the new workload cannot be sent yet: the workload waits for it.
    stage.publish(vec![workload("a", "1"), workload("b", "1"), policy("p"), policy("q")]);
    assert_eq!(stage.respond(), None);
    stage.ask(ack(POLICY, &policies.nonce));
    assert_eq!(stage.says(POLICY), said(&["shop/q"], &[]));
    assert_eq!(stage.says(ADDRESS), said(&["b"], &[]));
}

#[test]
fn on_demand_gets_what_it_asks_for_with_dependants() {
    let cart = workload_at("cart-1", "x", &["10.0.0.1"], &["cart"]);
    let other = workload_at("other", "x", &["10.0.0.9"], &[]);
    let mut stage = Stage::new(vec![cart.clone(), other.clone(), service("cart")]);
    stage.ask(on_demand());
    assert_eq!(stage.says(ADDRESS), said(&[], &[]), "not everything, and nothing yet");

    stage.ask(subscribe(&["shop/cart"]));
    let response = stage.respond().unwrap();
    let sent: Vec<_> = response.resources.iter().map(|r| (r.name.as_str(), r.aliases.join(","))).collect();
    assert_eq!(sent, [("cart-1", "/10.0.0.1".into()), ("shop/cart", String::new())]);
    stage.ask(ack(ADDRESS, &response.nonce));

    // Unknown: it hears so, and is told when it comes.
    stage.ask(subscribe(&["/10.0.0.2"]));
    assert_eq!(stage.says(ADDRESS), said(&[], &["/10.0.0.2"]));
    // By another name what is known is said again: somebody waits for this key.
    stage.ask(subscribe(&["/10.0.0.1"]));
    assert_eq!(stage.says(ADDRESS), said(&["cart-1"], &[]));

    let second = workload_at("cart-2", "x", &["10.0.0.2"], &["cart"]);
    let changed = workload_at("other", "y", &["10.0.0.9"], &[]);
    stage.publish(vec![cart, second, changed, service("cart")]);
    assert_eq!(stage.says(ADDRESS), said(&["cart-2"], &[]), "nothing of what it did not ask for");
    stage.publish(vec![other, service("cart")]);
    assert_eq!(stage.says(ADDRESS), said(&[], &["cart-1", "cart-2"]));
    assert_eq!(stage.respond(), None);
}

#[test]
fn a_reconnect_on_demand_declares_and_asks_again() {
    let mut stage = Stage::new(vec![workload("a", "x"), workload("b", "x")]);
    let mut first = on_demand();
    first.initial_resource_versions = BTreeMap::from([("a".into(), "old".into()), ("gone".into(), "1".into())]);
    stage.ask(first);
    assert_eq!(stage.says(ADDRESS), said(&["a"], &["gone"]), "what is declared is kept up to date");
    stage.publish(vec![workload("a", "y"), workload("b", "y")]);
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
}

#[test]
fn subscriptions_change() {
    let mut stage = Stage::new(vec![workload("a", "x"), workload("b", "x")]);
    stage.ask(on_demand());
    stage.says(ADDRESS).unwrap();
    stage.ask(subscribe(&["a"]));
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
    // To everything: what it has is not sent again.
    stage.ask(subscribe(&["*"]));
    assert_eq!(stage.says(ADDRESS), said(&["b"], &[]));
    // And back: only what keys stand for is kept up to date.
    let back = DeltaDiscoveryRequest { resource_names_unsubscribe: texts(&["*"]), ..ack(ADDRESS, "") };
    stage.ask(back);
    stage.publish(vec![workload("a", "y"), workload("b", "y")]);
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
    // And nothing more.
    let nothing = DeltaDiscoveryRequest { resource_names_unsubscribe: texts(&["a"]), ..ack(ADDRESS, "") };
    stage.ask(nothing);
    stage.publish(vec![workload("a", "z"), workload("b", "z")]);
    assert_eq!(stage.respond(), None);
}

#[test]
fn names_alone_mean_not_everything() {
    let mut stage = Stage::new(vec![workload("a", "x"), workload("b", "x")]);
    stage.ask(DeltaDiscoveryRequest { resource_names_subscribe: texts(&["a"]), ..request(ADDRESS) });
    assert_eq!(stage.says(ADDRESS), said(&["a"], &[]));
}

#[test]
fn strangers_and_gluttons_are_turned_away() {
    for id in ["", "ztunnel", "ztunnel~1.1.1.1~z.ns", "a~b~c~d~e"] {
        let mut request = request(ADDRESS);
        request.node.as_mut().unwrap().id = id.into();
        assert_eq!(Subscriber::default().request(request), Err(Violation::Node(id.into())));
    }
    let nobody = DeltaDiscoveryRequest { node: None, ..request(ADDRESS) };
    assert!(matches!(Subscriber::default().request(nobody), Err(Violation::Node(_))));

    let mut subscriber = Subscriber::default();
    let long = "x".repeat(MAX_NAME + 1);
    let glutton = DeltaDiscoveryRequest { resource_names_subscribe: vec![long], ..request(ADDRESS) };
    assert_eq!(subscriber.request(glutton), Err(Violation::LongName(MAX_NAME + 1)));

    let other = DeltaDiscoveryRequest { type_url: "type.googleapis.com/x".into(), ..request(ADDRESS) };
    assert_eq!(subscriber.request(other), Ok(Meaning::UnknownType("type.googleapis.com/x".into())));
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("/10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect()
}

/// How many names were looked up meanwhile.
fn looks(what: impl FnOnce()) -> usize {
    let before = LOOKS.get();
    what();
    LOOKS.get() - before
}

/// 100,000 names that mean nothing, in one request: each is looked up once or twice, and no response is work for long.
#[test]
fn many_unknown_names_are_answered_in_parts() {
    let mut stage = Stage::new(vec![workload("a", "x")]);
    stage.ask(on_demand());
    stage.says(ADDRESS).unwrap();
    let keys = numbered(0, 100_000);
    let asked = DeltaDiscoveryRequest { resource_names_subscribe: keys.clone(), ..ack(ADDRESS, "") };
    stage.ask(asked);
    let mut answered = Vec::new();
    let looked = looks(|| {
        while let Some((sent, absent)) = stage.says(ADDRESS) {
            assert!(sent.is_empty() && (1..=PART).contains(&absent.len()), "{}", absent.len());
            answered.extend(absent);
        }
    });
    assert!(looked <= 2 * keys.len(), "{looked} looks");
    answered.sort();
    let mut keys = keys;
    keys.sort();
    assert!(answered == keys, "each once");
    // One more costs as much as one, and a publication as much as it changes.
    stage.ask(subscribe(&["a"]));
    let looked = looks(|| assert_eq!(stage.says(ADDRESS), said(&["a"], &[])));
    assert!(looked <= 4, "{looked} looks");
    stage.publish(vec![workload("a", "y"), workload("b", "y")]);
    let looked = looks(|| assert_eq!(stage.says(ADDRESS), said(&["a"], &[])));
    assert!(looked <= 6, "{looked} looks");
}

#[test]
fn many_names_are_given_up_at_once() {
    let many = 10_000;
    let workloads = (0..many).map(|n| workload_at(&format!("w{n}"), "x", &[&numbered(n, n + 1)[0][1..]], &[]));
    let mut stage = Stage::new(workloads.collect());
    stage.ask(on_demand());
    stage.says(ADDRESS).unwrap();
    let keys = numbered(0, many);
    stage.ask(DeltaDiscoveryRequest { resource_names_subscribe: keys.clone(), ..ack(ADDRESS, "") });
    let mut sent = 0;
    while let Some((part, _)) = stage.says(ADDRESS) {
        sent += part.len();
    }
    assert_eq!(sent, many);
    let mut gone = keys;
    let kept = gone.pop().unwrap();
    let looked = looks(|| {
        stage.ask(DeltaDiscoveryRequest { resource_names_unsubscribe: gone, ..ack(ADDRESS, "") });
    });
    assert!(looked <= 3 * many, "{looked} looks");
    assert_eq!(stage.subscriber.cost(), kept.len() + "w9999".len() + 2 * NAME_COST, "one key, and what it brought");
    stage.publish(vec![]);
    assert_eq!(stage.says(ADDRESS), said(&[], &["w9999"]));
}

#[test]
fn what_is_declared_is_kept_only_until_it_was_compared() {
    let mut stage = Stage::new(vec![workload("a", "x")]);
    let mut first = request(ADDRESS);
    let mut node = first.node.take().unwrap();
    let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) };
    node.metadata = Some(prost_types::Struct {
        fields: [("NAMESPACE".to_owned(), text("ns")), ("LABELS".to_owned(), text(&"x".repeat(10_000)))].into(),
    });
    first.node = Some(node);
    first.initial_resource_versions = numbered(0, 1000).into_iter().map(|name| (name, "1".to_owned())).collect();
    stage.ask(first);
    assert!(stage.subscriber.cost() > 1000 * NAME_COST);
    assert_eq!(stage.subscriber.namespace(), Some("ns"), "all that is kept of a node");
    assert_eq!(stage.says(ADDRESS).unwrap().1.len(), 1000);
    assert_eq!(stage.subscriber.cost(), 0);
}

/// Whatever happens, and however seldom a subscriber is looked after: what its keys mean it has, as it is now, and what
/// it is not known to have it is not thought to have.
#[test]
fn a_subscriber_has_what_its_keys_mean() {
    let mut random = 7_u64;
    let mut below = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let services = ["shop/s0", "shop/s1", "shop/s2"];
    let keys: Vec<String> = (0..6).map(|n| format!("w{n}")).chain(numbered(0, 6)).chain(texts(&services)).collect();
    let mut stage = Stage::new(vec![]);
    stage.ask(on_demand());
    stage.says(ADDRESS).unwrap();
    let mut held: BTreeMap<String, String> = BTreeMap::new();
    for step in 0..3000 {
        match below(4) {
            0 => {
                let mut resources = Vec::new();
                for n in 0..6 {
                    let ip = numbered(below(6) as usize, 6)[0][1..].to_owned();
                    let member = format!("s{}", below(4));
                    if below(3) > 0 {
                        resources.push(workload_at(&format!("w{n}"), &below(2).to_string(), &[&ip], &[&member]));
                    }
                }
                for n in 0..3 {
                    if below(3) > 0 {
                        resources.push(service_at(&format!("s{n}"), &numbered(below(6) as usize, 6)[0][1..]));
                    }
                }
                stage.publish(resources);
            }
            1 => {
                let key = &keys[below(keys.len() as u64) as usize];
                stage.ask(subscribe(&[key]));
            }
            2 => {
                let key = keys[below(keys.len() as u64) as usize].clone();
                stage.ask(DeltaDiscoveryRequest { resource_names_unsubscribe: vec![key], ..ack(ADDRESS, "") });
            }
            _ => {
                while let Some(response) = stage.respond() {
                    stage.ask(ack(ADDRESS, &response.nonce));
                    let sent: Vec<_> = response.resources.iter().map(|r| r.name.clone()).collect();
                    held.retain(|name, _| !response.removed_resources.contains(name) || sent.contains(name));
                    held.extend(response.resources.into_iter().map(|r| (r.name, r.version)));
                }
                let now = stage.publisher.subscribe().borrow().of(ADDRESS).unwrap().clone();
                let watch = &stage.subscriber.watches[&ADDRESS];
                let Has::Names(names) = &watch.has else { panic!("on demand") };
                for (name, version) in names {
                    assert_eq!(held.get(&**name).cloned(), version.map(|v| v.to_string()), "step {step}: {name}");
                    assert_eq!(Some(now.entries()[name].version), *version, "step {step}: {name}");
                }
                for (name, _) in watch.keys.iter().flat_map(|key| now.resolve(key)) {
                    assert!(names.contains_key(name), "step {step}: {name} of {:?}", watch.keys);
                }
                let bytes: usize = watch.keys.iter().chain(names.keys()).map(|name| name.len()).sum();
                assert_eq!(watch.bytes, bytes, "step {step}");
            }
        }
    }
}

#[test]
fn the_two_ends_agree() {
    use crate::delta::Client;
    let mut stage = Stage::new(vec![workload("a", "x"), workload("b", "x"), policy("p")]);
    let mut client = Client::new(request(ADDRESS).node.unwrap(), &Kind::ISTIO, false);
    let talk = |stage: &mut Stage, client: &mut Client| {
        let mut messages = 0;
        while let Some(response) = stage.respond() {
            messages += response.resources.len() + response.removed_resources.len();
            let answer = client.receive(response).unwrap().answer;
            stage.ask(answer);
        }
        messages
    };
    for first in client.connected() {
        stage.ask(first);
    }
    assert_eq!(talk(&mut stage, &mut client), 3);
    assert!(client.ready());
    stage.subscriber = Subscriber::default();
    for first in client.connected() {
        stage.ask(first);
    }
    assert_eq!(talk(&mut stage, &mut client), 0, "a reconnect sends nothing again");
    stage.publish(vec![workload("a", "y")]);
    assert_eq!(talk(&mut stage, &mut client), 3);
    assert_eq!((client.held(ADDRESS), client.held(POLICY)), (1, 0));
}

/// What a control plane goes by when it says that everybody knows.
#[test]
fn what_is_held_is_what_was_answered() {
    let mut stage = Stage::new(vec![workload("a", "1"), policy("p")]);
    let latest = |stage: &Stage| stage.publisher.subscribe().borrow().of(ADDRESS).unwrap().generation();
    stage.ask(request(ADDRESS));
    stage.ask(request(POLICY));
    stage.says(POLICY).unwrap();
    let first = stage.respond().unwrap();
    assert_eq!(stage.subscriber.held(ADDRESS), 0, "sent is not held");
    stage.publish(vec![workload("a", "2"), policy("p")]);
    assert!(stage.respond().is_none());
    stage.ask(ack(ADDRESS, &first.nonce));
    let held = stage.subscriber.held(ADDRESS);
    assert!(held > 0 && held < latest(&stage), "an answer to an older form");
    stage.says(ADDRESS).unwrap();
    let held = stage.subscriber.held(ADDRESS);
    assert_eq!(held, latest(&stage));

    // What is refused is not held; what comes after it may be.
    stage.publish(vec![workload("a", "3"), policy("p")]);
    let nonce = stage.respond().unwrap().nonce;
    let error_detail = Some(Status { message: "a: bad".into(), ..Status::default() });
    stage.ask(DeltaDiscoveryRequest { error_detail, ..ack(ADDRESS, &nonce) });
    assert!(stage.respond().is_none());
    assert_eq!(stage.subscriber.held(ADDRESS), held);
    stage.publish(vec![workload("a", "4"), policy("p")]);
    stage.says(ADDRESS).unwrap();
    assert_eq!(stage.subscriber.held(ADDRESS), latest(&stage));

    // What is not its business does not hold anybody up.
    let mut stage = Stage::new(vec![workload("a", "1"), workload("b", "1")]);
    stage.ask(DeltaDiscoveryRequest { resource_names_subscribe: vec!["a".into()], ..request(ADDRESS) });
    stage.says(ADDRESS).unwrap();
    stage.publish(vec![workload("a", "1"), workload("b", "2")]);
    assert!(stage.respond().is_none());
    assert_eq!(stage.subscriber.held(ADDRESS), latest(&stage));
}

/// What is for one waypoint is told to its proxies, whole or on demand, and taken back where it was told and is not for them
/// any more.
#[test]
fn what_is_for_a_waypoint_is_told_to_nobody_else() {
    let waypoint = || Audience::Waypoint(NamespacedName::new("shop", "way"));
    let node = |kind: &str| {
        let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) };
        let labels = prost_types::Struct { fields: [(mesh_model::labels::GATEWAY_NAME.into(), text("way"))].into() };
        let labels = prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(labels)) };
        let metadata = prost_types::Struct { fields: [("LABELS".into(), labels)].into() };
        Some(Node { id: format!("{kind}~1.1.1.1~w.shop~shop.svc.cluster.local"), metadata: Some(metadata) })
    };
    let everything = |kind| DeltaDiscoveryRequest { node: node(kind), ..request(POLICY) };
    let by_name = |kind| DeltaDiscoveryRequest { resource_names_subscribe: vec!["shop/p".into()], ..everything(kind) };
    // (who, by what request; then what it is told of a policy that is for the waypoint, for everyone, for the waypoint)
    let (has, none) = (said(&["shop/p"], &[]), said(&[], &["shop/p"]));
    for (first, told) in [
        (everything("waypoint"), [has.clone(), None, None]),
        (everything("ztunnel"), [said(&[], &[]), has.clone(), none.clone()]),
        (by_name("waypoint"), [has.clone(), None, None]),
        (by_name("ztunnel"), [none.clone(), has, none]),
    ] {
        let what = format!("{first:?}");
        let mut stage = Stage::new(Vec::new());
        let audiences = [waypoint(), Audience::Everyone, waypoint()];
        let mut first = Some(first);
        for (audience, told) in audiences.into_iter().zip(told) {
            stage.publisher.update([(policy("p"), audience)], []);
            if let Some(first) = first.take() {
                stage.ask(first);
            }
            assert_eq!(stage.says(POLICY), told, "{what}");
        }
    }
}

#[test]
fn a_large_response_is_made_piece_by_piece() {
    let resources = (0..2000).map(|n| workload(&format!("w{n:04}"), &"x".repeat(100))).collect();
    let mut stage = Stage::new(resources);
    stage.ask(request(ADDRESS));
    let published = stage.publisher.subscribe().borrow().clone();
    let pieces: Vec<usize> =
        stage.subscriber.respond(&published).unwrap().into_chunks().unwrap().map(|piece| piece.len()).collect();
    let (last, full) = pieces[1..].split_last().unwrap();
    // Each ends with the resource that fills it.
    assert!(full.len() > 3 && full.iter().chain([last]).all(|length| *length < (64 << 10) + 1024), "{pieces:?}");
    assert!(full.iter().all(|length| *length >= 64 << 10), "{pieces:?}");
}
