use serde_json::{Value, json};

use super::*;
use crate::cluster::attachments::Attachments;
use crate::resources::{Kind, Object};
use crate::translate::networks_told;
use crate::translate::world::World;

fn object(kind: Kind, value: &Value) -> Object {
    Object::from_value(kind, value).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// A Gateway of the network `west`, with what a row says otherwise.
fn gateway(name: &str, change: impl Fn(&mut Value)) -> Object {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "net", "labels": {"topology.istio.io/network": "west"}, "annotations": {}},
        "spec": {
            "gatewayClassName": "istio-remote", "addresses": [{"value": "192.0.2.7"}],
            "listeners": [{"name": "a", "port": 15008, "protocol": "HBONE", "tls": {"mode": "Passthrough"}}],
        },
    });
    change(&mut value);
    object(Kind::Gateway, &value)
}

/// The gateways, each as `UID ADDRESS of WHO`; and what is told of each Gateway: why it is programmed or not.
fn said(objects: Vec<Object>) -> (Vec<String>, Vec<String>) {
    let mut cluster = Cluster::default();
    cluster.reset(objects);
    let (attachments, mesh) = (Attachments::of(&cluster), Mesh::default());
    let networks = Networks::new(&cluster, &mesh);
    let world = World {
        cluster: &cluster,
        mesh: &mesh,
        network: networks.own.clone(),
        networks: &networks,
        attachments: &attachments,
    };
    let of = |found: &NetworkGateway| {
        let Workload { uid, hostname, addresses, .. } = &*found.workload;
        format!("{uid} {addresses:?}{hostname} at {} of {}", found.address, found.workload.identity().unwrap())
    };
    let told = cluster.gateways().map(|(key, gateway)| {
        let told = networks_told::of_gateway(key, gateway, &world);
        let word = |kind| told.iter().find(|one| one.kind == kind).map(|one| (one.status, &*one.reason)).unwrap();
        format!("{} {:?} {:?}", key.name, word("Accepted"), word("Programmed"))
    });
    (networks.gateways.values().map(of).collect(), told.collect())
}

#[test]
fn which_gateways_are_ways_to_other_networks() {
    let one = |change: fn(&mut Value)| vec![gateway("a", change)];
    const AT: &str = "NetworkGateway/west/192.0.2.7/15008 [192.0.2.7] at west/192.0.2.7:15008 of";
    let own = |network: &str| {
        let labels = json!({"topology.istio.io/network": network});
        object(Kind::Namespace, &json!({"metadata": {"name": "istio-system", "labels": labels}}))
    };
    let default = format!("{AT} spiffe://cluster.local/ns/net/sa/a-istio-remote");
    let named = format!("{AT} spiffe://cluster.local/ns/net/sa/gw");
    let ok = r#"a (true, "Accepted") (true, "Programmed")"#;
    let invalid = r#"a (false, "Invalid") (false, "Invalid")"#;
    let host = "NetworkGateway/west/lb.example.com/15009 []lb.example.com at net/lb.example.com:15009 of \
                spiffe://cluster.local/ns/net/sa/a-istio-remote";
    let account = |value: &mut Value| {
        value["metadata"]["annotations"]["gateway.istio.io/service-account"] = "gw".into();
    };
    for (what, objects, gateways, told) in [
        ("an address", one(|_| ()), vec![&*default], vec![ok]),
        ("who it is", one(account), vec![&*named], vec![ok]),
        (
            "a name, another port, and a listener that is not for tunnels",
            one(|value| {
                value["spec"]["addresses"] = json!([{"type": "Hostname", "value": "lb.example.com"}]);
                let tunnels = json!({"name": "b", "port": 15009, "protocol": "HBONE"});
                value["spec"]["listeners"] = json!([{"name": "a", "port": 15012, "protocol": "TLS"}, tunnels]);
            }),
            vec![host],
            vec![ok],
        ),
        (
            "several addresses",
            one(|value| value["spec"]["addresses"] = json!([{"value": "192.0.2.7"}, {"value": "192.0.2.8"}])),
            vec![&*default],
            vec![ok],
        ),
        ("no label", one(|value| value["metadata"]["labels"] = json!({})), vec![], vec![invalid]),
        ("no listener", one(|value| value["spec"]["listeners"][0]["protocol"] = "TLS".into()), vec![], vec![invalid]),
        (
            "an account that is none",
            one(|value| value["metadata"]["annotations"]["gateway.istio.io/service-account"] = "a/b".into()),
            vec![],
            vec![invalid],
        ),
        (
            "no address",
            one(|value| value["spec"]["addresses"] = json!([])),
            vec![],
            vec![r#"a (true, "Accepted") (false, "AddressNotAssigned")"#],
        ),
        (
            "its own network",
            [one(|_| ()), vec![own("west")]].concat(),
            vec![],
            vec![r#"a (true, "Accepted") (false, "OwnNetwork")"#],
        ),
        ("another network than its own", [one(|_| ()), vec![own("east")]].concat(), vec![&*default], vec![ok]),
        (
            "two of one network: the older one",
            vec![
                gateway("b", |value| value["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z".into()),
                gateway("c", |value| value["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into()),
            ],
            vec![
                "NetworkGateway/west/192.0.2.7/15008 [192.0.2.7] at west/192.0.2.7:15008 of \
                  spiffe://cluster.local/ns/net/sa/c-istio-remote",
            ],
            vec![r#"b (true, "Accepted") (false, "NetworkTaken")"#, r#"c (true, "Accepted") (true, "Programmed")"#],
        ),
        (
            "two of one network, of which one has no address",
            vec![gateway("a", |_| ()), gateway("0", |value| value["spec"]["addresses"] = json!([]))],
            vec![&*default],
            vec![r#"0 (true, "Accepted") (false, "AddressNotAssigned")"#, ok],
        ),
    ] {
        let said = said(objects);
        assert_eq!(
            said,
            (gateways.iter().map(|g| (*g).to_owned()).collect(), told.iter().map(|t| (*t).to_owned()).collect()),
            "{what}"
        );
    }
}

#[test]
fn addresses_that_are_none_are_refused_by_name() {
    for (address, field) in [
        (json!({"value": "lb.example.com"}), "spec.addresses[0].value"),
        (json!({"type": "NamedAddress", "value": "x"}), "spec.addresses[0].type"),
        (json!({"type": "Hostname", "value": "-"}), "spec.addresses[0].value"),
    ] {
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {"gatewayClassName": "istio-remote", "listeners": [], "addresses": [address]},
        });
        let error = Object::from_value(Kind::Gateway, &value).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}
