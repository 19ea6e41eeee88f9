use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::cluster::attachments::Attachments;
use crate::resources::{Kind, Object};
use crate::translate::Mesh;
use crate::translate::networks::Networks;

const GROUP: &str = "gateway.networking.k8s.io";

fn object(kind: Kind, value: &Value) -> Object {
    Object::from_value(kind, value).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// What is told of the Service shop/web and the Pod shop/pod, in a word each: the waypoint's address, `straight`, or
/// `refused` (a name that nobody can resolve); and why it is not bound.
fn verdicts(objects: Vec<Object>) -> [(String, Option<Unbound>); 2] {
    let mut cluster = Cluster::default();
    cluster.reset(objects);
    let attachments = Attachments::of(&cluster);
    let mesh = Mesh::default();
    let networks = Networks::new(&cluster, &mesh);
    let world =
        World { cluster: &cluster, mesh: &mesh, network: "".into(), networks: &networks, attachments: &attachments };
    let word = |verdict: Option<Verdict>| {
        let Some(verdict) = verdict else { return ("none".to_owned(), None) };
        let word = match (&verdict.address, verdict.unbound) {
            (None, _) => "straight".to_owned(),
            (Some(_), Some(_)) => "refused".to_owned(),
            (Some(address), None) => address.to_string(),
        };
        (word, verdict.unbound)
    };
    let name = |name| NamespacedName::new("shop", name);
    let service = cluster.service(&name("web")).map(|service| word(of_service(service, &world)));
    let pod = cluster.pod(&name("pod")).map(|pod| word(of_pod(&**pod, "shop", &world)));
    [service.unwrap(), pod.unwrap()]
}

/// What stands in the mesh of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stands {
    Missing,
    NotReady,
    Ready,
}

/// What is attached in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Attached {
    Nothing,
    Route,
    ConsumerRoute,
    ServicePolicy,
    GatewayPolicy,
    ClassPolicy,
}

fn mesh(label: Option<&str>, stands: Stands, attached: Attached, open: Option<&str>) -> Vec<Object> {
    let mut labels = json!({});
    if let Some(waypoint) = label {
        labels["istio.io/use-waypoint"] = waypoint.into();
    }
    let mut service =
        json!({"metadata": {"name": "web", "namespace": "shop", "labels": labels}, "spec": {"ports": [{"port": 80}]}});
    if let Some(open) = open {
        service["metadata"]["annotations"] = json!({"ambit.dev/waypoint-fail-open": open});
    }
    let pod = json!({"metadata": {"name": "pod", "namespace": "shop", "labels": labels}, "spec": {"containers": []}});
    let mut objects = vec![object(Kind::Service, &service), object(Kind::Pod, &pod)];
    if stands != Stands::Missing {
        let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
        let metadata = json!({"name": "way", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all"}});
        let spec = json!({"gatewayClassName": "ambit-waypoint", "listeners": [listener]});
        objects.push(object(Kind::Gateway, &json!({"metadata": metadata, "spec": spec})));
    }
    if stands == Stands::Ready {
        let labels = json!({"gateway.networking.k8s.io/gateway-name": "way"});
        let way = json!({"metadata": {"name": "way", "namespace": "shop", "labels": labels}, "spec": {"ports": [{"port": 15008}]}});
        objects.push(object(Kind::Service, &way));
    }
    let policy = |namespace: &str, target: Value| {
        let metadata = json!({"name": "p", "namespace": namespace});
        object(Kind::AuthorizationPolicy, &json!({"metadata": metadata, "spec": {"targetRefs": [target]}}))
    };
    let route = |namespace: &str| {
        let parent = json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"});
        object(
            Kind::HttpRoute,
            &json!({"metadata": {"name": "r", "namespace": namespace}, "spec": {"parentRefs": [parent]}}),
        )
    };
    objects.extend(match attached {
        Attached::Nothing => None,
        Attached::Route => Some(route("shop")),
        Attached::ConsumerRoute => Some(route("bank")),
        Attached::ServicePolicy => Some(policy("shop", json!({"group": "", "kind": "Service", "name": "web"}))),
        Attached::GatewayPolicy => Some(policy("shop", json!({"group": GROUP, "kind": "Gateway", "name": "way"}))),
        Attached::ClassPolicy => {
            Some(policy("istio-system", json!({"group": GROUP, "kind": "GatewayClass", "name": "ambit-waypoint"})))
        }
    });
    objects
}

/// The rule: what nothing is attached to goes straight around a waypoint that is not there, and what something is attached
/// to is refused. Nothing is asked of what names no waypoint.
#[test]
fn label_by_gateway_by_attached() {
    use Attached::*;
    let at = "shop/way.shop.svc.cluster.local:15008";
    for (label, stands, attached, service, pod) in [
        (None, Stands::Missing, Nothing, "none", "none"),
        (None, Stands::Missing, Route, "none", "none"),
        (None, Stands::Ready, ServicePolicy, "none", "none"),
        (Some("none"), Stands::Missing, Route, "none", "none"),
        (Some("way"), Stands::Missing, Nothing, "straight", "straight"),
        (Some("way"), Stands::Missing, Route, "refused", "straight"),
        (Some("way"), Stands::Missing, ConsumerRoute, "refused", "straight"),
        (Some("way"), Stands::Missing, ServicePolicy, "refused", "straight"),
        (Some("way"), Stands::Missing, GatewayPolicy, "refused", "refused"),
        (Some("way"), Stands::Missing, ClassPolicy, "refused", "refused"),
        (Some("way"), Stands::NotReady, Nothing, "straight", "straight"),
        (Some("way"), Stands::NotReady, Route, "refused", "straight"),
        (Some("way"), Stands::NotReady, ConsumerRoute, "refused", "straight"),
        (Some("way"), Stands::NotReady, ServicePolicy, "refused", "straight"),
        (Some("way"), Stands::NotReady, GatewayPolicy, "refused", "refused"),
        (Some("way"), Stands::NotReady, ClassPolicy, "refused", "refused"),
        (Some("way"), Stands::Ready, Nothing, at, at),
        (Some("way"), Stands::Ready, Route, at, at),
        (Some("way"), Stands::Ready, ServicePolicy, at, at),
        (Some("way"), Stands::Ready, GatewayPolicy, at, at),
    ] {
        let found = verdicts(mesh(label, stands, attached, None));
        let words = [&*found[0].0, &*found[1].0];
        assert_eq!(words, [service, pod], "{label:?} {stands:?} {attached:?}");
    }
    // Open is said explicitly, by a word that is understood.
    for (open, expected) in [("true", "straight"), ("false", "refused"), ("yes", "refused")] {
        assert_eq!(verdicts(mesh(Some("way"), Stands::Missing, Route, Some(open)))[0].0, expected, "{open}");
    }
}

/// Who is let to a waypoint, and for what it is: with a policy that would be gone around, and without.
#[test]
fn whom_a_gateway_takes() {
    let gateway = |waypoint_for: &str, namespaces: &Value, rest: &Value| {
        let listener =
            json!({"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": namespaces}});
        let mut spec = json!({"gatewayClassName": "ambit-waypoint", "listeners": [listener]});
        if !rest.is_null() {
            spec["addresses"] = rest.clone();
        }
        let labels = json!({"istio.io/waypoint-for": waypoint_for});
        object(
            Kind::Gateway,
            &json!({"metadata": {"name": "way", "namespace": "infra", "labels": labels}, "spec": spec}),
        )
    };
    let all = json!({"from": "All"});
    let selector = |label: &str| json!({"from": "Selector", "selector": {"matchExpressions": [{"key": label, "operator": "Exists"}]}});
    let none = Value::Null;
    let ip = json!([{"value": "192.0.2.7"}]);
    let both = json!([{"value": "192.0.2.7"}, {"type": "Hostname", "value": "w.example.com"}]);
    let at = |text: &str| (text.to_owned(), None);
    let not = |why| ("straight".to_owned(), Some(why));
    let own = "infra/way.infra.svc.cluster.local:15008";
    for (waypoint_for, namespaces, addresses, service, pod) in [
        ("service", &all, &none, at(own), not(Unbound::OtherTraffic)),
        ("workload", &all, &none, not(Unbound::OtherTraffic), at(own)),
        ("none", &all, &none, not(Unbound::OtherTraffic), not(Unbound::OtherTraffic)),
        ("all", &json!({"from": "Same"}), &none, not(Unbound::Denied), not(Unbound::Denied)),
        ("all", &json!({"from": "None"}), &none, not(Unbound::Denied), not(Unbound::Denied)),
        ("all", &selector("team"), &none, at(own), at(own)),
        ("all", &selector("other"), &none, not(Unbound::Denied), not(Unbound::Denied)),
        ("all", &all, &ip, at("/192.0.2.7:15008"), at("/192.0.2.7:15008")),
        ("all", &all, &both, at("infra/w.example.com:15008"), at("infra/w.example.com:15008")),
    ] {
        let labels = json!({"istio.io/use-waypoint": "way", "istio.io/use-waypoint-namespace": "infra"});
        let metadata = |name: &str| json!({"name": name, "namespace": "shop", "labels": labels});
        let objects = vec![
            object(Kind::Namespace, &json!({"metadata": {"name": "shop", "labels": {"team": "a"}}})),
            object(Kind::Service, &json!({"metadata": metadata("web"), "spec": {"ports": [{"port": 80}]}})),
            object(Kind::Pod, &json!({"metadata": metadata("pod"), "spec": {"containers": []}})),
            object(Kind::Service, &json!({"metadata": {"name": "way", "namespace": "infra"}, "spec": {}})),
            gateway(waypoint_for, namespaces, addresses),
        ];
        assert_eq!(verdicts(objects.clone()), [service, pod], "{waypoint_for} {namespaces} {addresses}");
        // With a policy for it the service is never reached straight.
        let target = json!({"group": "", "kind": "Service", "name": "web"});
        let policy = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": {"targetRefs": [target]}});
        let with = objects.into_iter().chain([object(Kind::AuthorizationPolicy, &policy)]).collect();
        assert_ne!(verdicts(with)[0].0, "straight", "{waypoint_for} {namespaces} {addresses}");
    }
}

/// What a namespace's waypoint is for, by the kind of address: what it is not for it leaves alone, whatever is attached to it. What asks
/// for it by its own label is told that it is not for that, and is refused where policies would be gone around.
#[test]
fn label_by_waypoint_for_by_kind_of_address() {
    let at = "shop/way.shop.svc.cluster.local:15008";
    let gateway_policy = || {
        let target = json!({"group": GROUP, "kind": "Gateway", "name": "way"});
        let metadata = json!({"name": "p", "namespace": "shop"});
        object(Kind::AuthorizationPolicy, &json!({"metadata": metadata, "spec": {"targetRefs": [target]}}))
    };
    let service_policy = || {
        let target = json!({"group": "", "kind": "Service", "name": "web"});
        let metadata = json!({"name": "s", "namespace": "shop"});
        object(Kind::AuthorizationPolicy, &json!({"metadata": metadata, "spec": {"targetRefs": [target]}}))
    };
    let policies = |which: &str| match which {
        "gateway" => vec![gateway_policy()],
        "service" => vec![service_policy()],
        _ => Vec::new(),
    };
    // (label of, waypoint-for, policy of, service, pod)
    for (label, waypoint_for, policy, service, pod) in [
        ("namespace", "service", "", at, "none"),
        ("namespace", "service", "gateway", at, "none"),
        ("namespace", "workload", "", "straight", at),
        ("namespace", "workload", "gateway", "straight", at),
        ("namespace", "workload", "service", "refused", at),
        ("namespace", "all", "", at, at),
        ("namespace", "all", "gateway", at, at),
        ("namespace", "none", "gateway", "straight", "none"),
        ("namespace", "none", "service", "refused", "none"),
        ("own", "service", "", at, "straight"),
        ("own", "service", "gateway", at, "refused"),
        ("own", "service", "service", at, "straight"),
        ("own", "workload", "", "straight", at),
        ("own", "workload", "gateway", "refused", at),
        ("own", "all", "gateway", at, at),
        ("own", "none", "", "straight", "straight"),
        ("own", "none", "gateway", "refused", "refused"),
        ("nobody", "all", "gateway", "none", "none"),
    ] {
        let asks = |by: &str| if label == by { json!({"istio.io/use-waypoint": "way"}) } else { json!({}) };
        let metadata = |name: &str| json!({"name": name, "namespace": "shop", "labels": asks("own")});
        let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
        let labels = json!({"istio.io/waypoint-for": waypoint_for});
        let spec = json!({"gatewayClassName": "ambit-waypoint", "listeners": [listener]});
        let way = json!({"gateway.networking.k8s.io/gateway-name": "way"});
        let objects = vec![
            object(Kind::Namespace, &json!({"metadata": {"name": "shop", "labels": asks("namespace")}})),
            object(Kind::Service, &json!({"metadata": metadata("web"), "spec": {"ports": [{"port": 80}]}})),
            object(Kind::Pod, &json!({"metadata": metadata("pod"), "spec": {"containers": []}})),
            object(
                Kind::Service,
                &json!({"metadata": {"name": "way", "namespace": "shop", "labels": way}, "spec": {}}),
            ),
            object(
                Kind::Gateway,
                &json!({"metadata": {"name": "way", "namespace": "shop", "labels": labels}, "spec": spec}),
            ),
        ];
        let found = verdicts(objects.into_iter().chain(policies(policy)).collect());
        let words = [&*found[0].0, &*found[1].0];
        assert_eq!(words, [service, pod], "label of {label}, for {waypoint_for}, policy of {policy}");
    }
}

/// Beside istiod: what is behind its waypoints, or behind none, it has to tell of itself.
#[test]
fn what_is_told_beside_istiod() {
    use crate::mode::WAYPOINT_CONTROLLER;
    use crate::translate::route::Route;
    use crate::translate::{route_told, waypoint_told};

    let told = |mode: &Mode, label: &str, class: &str, controller: Option<&str>| {
        let labels = json!({"istio.io/use-waypoint": label});
        let service = json!({"metadata": {"name": "web", "namespace": "shop", "labels": labels}, "spec": {"ports": [{"port": 80}]}});
        let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
        let gateway = json!({
            "metadata": {"name": "way", "namespace": "shop"},
            "spec": {"gatewayClassName": class, "listeners": [listener]},
        });
        let route = json!({
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]},
        });
        let route = object(Kind::HttpRoute, &route);
        let Object::HttpRoute(read) = route.clone() else { panic!() };
        let mut objects = vec![object(Kind::Service, &service), object(Kind::Gateway, &gateway), route];
        objects.extend(controller.map(|name| {
            object(Kind::GatewayClass, &json!({"metadata": {"name": class}, "spec": {"controllerName": name}}))
        }));
        let mut cluster = Cluster::default();
        cluster.reset(objects);
        let attachments = Attachments::of(&cluster);
        let mesh = Mesh { mode: mode.clone(), ..Mesh::default() };
        let networks = Networks::default();
        let world = World {
            cluster: &cluster,
            mesh: &mesh,
            network: "".into(),
            networks: &networks,
            attachments: &attachments,
        };
        let name = NamespacedName::new("shop", "way");
        let key = crate::resources::Key::new(Kind::Gateway, Some("shop"), "way");
        let of_gateway = waypoint_told::waypoint(&key, cluster.gateway(&name).unwrap(), &world);
        (route_told::of(&Route::Http(read), &world).len(), of_gateway.is_some())
    };
    let only = Mode::WaypointsOnly { classes: vec!["ambit-waypoint".to_owned()] };
    let istiods = Some("istio.io/mesh-controller");
    for (mode, label, class, controller, expected) in [
        (&only, "way", "ambit-waypoint", Some(WAYPOINT_CONTROLLER), (1, true)),
        (&only, "way", "ambit-waypoint", None, (0, false)),
        (&only, "way", "ambit-waypoint", istiods, (0, false)),
        (&only, "way", "istio-waypoint", istiods, (0, false)),
        (&only, "other", "ambit-waypoint", Some(WAYPOINT_CONTROLLER), (0, true)),
        (&only, "none", "ambit-waypoint", Some(WAYPOINT_CONTROLLER), (0, true)),
        (&Mode::Mesh, "way", "istio-waypoint", istiods, (1, true)),
        (&Mode::Mesh, "none", "ambit-waypoint", None, (1, true)),
    ] {
        assert_eq!(told(mode, label, class, controller), expected, "{mode:?} {label} {class} {controller:?}");
    }
}
