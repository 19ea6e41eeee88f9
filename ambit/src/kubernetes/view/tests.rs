use super::*;
use crate::kubernetes::objects::Object;
use crate::kubernetes::status::{Pod, Waypoint};
use crate::status::Width;
use std::time::Duration;

fn objects(yaml: &str) -> Vec<Object> {
    yaml.split("---\n").map(|one| serde_saphyr::from_str(one).unwrap_or_else(|e| panic!("{e}: {one}"))).collect()
}

const NODES: &str = "
metadata: {name: n1}
status: {conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: n2}
status: {conditions: [{type: Ready, status: 'True'}]}
";
const NAMESPACES: &str = "
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: way}}
---
metadata: {name: plain}
---
metadata: {name: istio-system}
";
/// The mesh's own.
const SYSTEM: &str = "
metadata: {name: istiod-1, namespace: istio-system, labels: {app: istiod, istio.io/rev: default}}
spec: {nodeName: n1}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: istiod-2, namespace: istio-system, labels: {app: istiod, istio.io/rev: default}}
spec: {nodeName: n2}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: agent-1, namespace: istio-system, labels: {k8s-app: istio-cni-node}}
spec: {nodeName: n1}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: agent-2, namespace: istio-system, labels: {k8s-app: istio-cni-node}}
spec: {nodeName: n2}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: zt-1, namespace: istio-system, labels: {app: ztunnel}}
spec: {nodeName: n1}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: zt-2, namespace: istio-system, labels: {app: ztunnel}}
spec: {nodeName: n2}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
metadata: {name: way-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: way, istio.io/dataplane-mode: none}}
spec: {nodeName: n1}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
";
const LEASE: &str = "
metadata: {name: istiod-lite-leader, namespace: istio-system}
spec: {holderIdentity: istiod-2_0011223344556677}
";
const GATEWAY: &str = "
metadata: {name: way, namespace: shop, labels: {istio.io/waypoint-for: all}}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {conditions: [{type: Accepted, status: 'True', reason: Accepted}, {type: Programmed, status: 'True', reason: Programmed}]}
";
const SERVICES: &str = "
metadata: {name: web, namespace: shop}
---
metadata: {name: raw, namespace: shop, labels: {istio.io/use-waypoint: none}}
---
metadata: {name: web, namespace: plain, labels: {istio.io/use-waypoint: way, istio.io/use-waypoint-namespace: shop}}
---
metadata: {name: way, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: way}}
";

fn pod(name: &str, more: &str) -> String {
    format!(
        "metadata: {{name: {name}, namespace: shop, uid: u-{name}{more}}}\nspec: {{nodeName: n1}}\nstatus: {{phase: Running}}\n"
    )
}

fn root(days: u64) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_after = (now() + Duration::from_secs(days * 24 * 3600 + 60)).into();
    params.self_signed(&key).unwrap().pem()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A mesh that is well.
fn well() -> Found {
    let captured = pod("web", ", annotations: {ambient.istio.io/redirection: enabled}");
    let mut pods = objects(SYSTEM);
    pods.extend(objects(&captured));
    Found {
        nodes: objects(NODES),
        namespaces: objects(NAMESPACES),
        pods,
        services: objects(SERVICES),
        gateways: objects(GATEWAY),
        leases: objects(LEASE),
        roots: Some(root(3650)),
        ..Found::default()
    }
}

fn seen(found: &Found) -> ClusterStatus {
    view(found, "istio-system", now())
}

#[test]
fn a_mesh_that_is_well() {
    let mut found = well();
    let route = "metadata: {name: split, namespace: shop}\nspec: {parentRefs: [{kind: Service, name: web}]}\n\
                 status: {parents: [{parentRef: {kind: Service, name: web}, conditions: [{type: Accepted, status: 'True', reason: Accepted}]}]}\n";
    found.policies.insert("HTTPRoute", objects(route));
    let status = seen(&found);
    assert_eq!(status.problems, Vec::<String>::new());
    assert!(status.is_well());
    let leaders: Vec<&str> = status.control_planes.iter().filter(|one| one.leader).map(|one| &*one.name).collect();
    assert_eq!(leaders, ["istiod-2"]);
    assert_eq!((status.roots.len(), status.roots[0].days), (1, 3650));
    assert_eq!((status.nodes[0].pods_in, status.nodes[1].pods_in), (1, 0));
    let waypoint = &status.waypoints[0];
    assert_eq!((waypoint.pods, &*waypoint.waypoint_for, waypoint.programmed), ((1, 1), "all", true));
    assert_eq!(waypoint.services, ["plain/web", "shop/web"]);
    assert_eq!((&*waypoint.routes, &*waypoint.namespaces), (&["shop/split".to_owned()][..], &["shop".to_owned()][..]));
    let table = status.table(Width::Narrow);
    for line in [
        "the mesh of this cluster is well",
        "istiod-2       n2    default   yes    yes",
        "shop/web              n1    yes",
        "istio-system: 4 pods        no    neither the pod nor its namespace has the label",
        "shop/way  all  default   yes         1/1   1 namespace, 2 services, 1 route",
    ] {
        assert!(table.contains(line), "{line:?} is missing in\n{table}");
    }
}

/// Each pod, and what is said of it.
#[test]
fn pods_are_in_or_out_with_the_reason() {
    let in_mesh = ", annotations: {ambient.istio.io/redirection: enabled}";
    let rows: Vec<(&str, String, &str, &str)> = vec![
        ("captured", pod("a", in_mesh), "yes", "the pod's namespace has the label istio.io/dataplane-mode=ambient"),
        (
            "opted out",
            pod("a", ", labels: {istio.io/dataplane-mode: none}"),
            "no",
            "the pod has the label istio.io/dataplane-mode=none",
        ),
        (
            "of its own accord",
            pod("a", in_mesh)
                .replace("namespace: shop", "namespace: plain, labels: {istio.io/dataplane-mode: ambient}"),
            "yes",
            "the pod has the label",
        ),
        (
            "not asked",
            pod("a", "").replace("namespace: shop", "namespace: plain"),
            "no",
            "neither the pod nor its namespace",
        ),
        (
            "on the node's network",
            pod("a", "").replace("nodeName: n1", "nodeName: n1, hostNetwork: true"),
            "no",
            "host's network",
        ),
        ("at its end", pod("a", "").replace("Running", "Succeeded"), "no", "run to its end"),
        ("starting", pod("a", "").replace("Running", "Pending"), "pending", "it does not run yet"),
        (
            "waiting for ztunnel",
            pod("a", ", annotations: {ambient.istio.io/redirection: pending}"),
            "missing",
            "no ztunnel serves it",
        ),
        ("not captured", pod("a", ""), "missing", "the node agent beside it has not captured it (yet)"),
        ("and people were told", pod("told", ""), "missing", "refused by the kernel"),
    ];
    for (what, yaml, mesh, reason) in rows {
        let mut found = well();
        found.pods.extend(objects(&yaml));
        found.events = objects(
            "metadata: {name: e1}\ninvolvedObject: {uid: u-told}\nmessage: older\nlastTimestamp: '2026-11-30T07:00:00Z'\n---\n\
             metadata: {name: e2}\ninvolvedObject: {uid: u-told}\nmessage: refused by the kernel\nlastTimestamp: '2026-11-30T08:00:00Z'\n",
        );
        let status = seen(&found);
        let Pod { mesh: is, reason: why, .. } = status.pods.last().unwrap();
        assert_eq!(is, mesh, "{what}: {why}");
        assert!(why.contains(reason), "{what}: {why}");
        assert_eq!(status.problems.len(), usize::from(mesh == "missing"), "{what}: {:?}", status.problems);
    }
}

/// What is changed in a mesh that is well, and what is then said to be wrong.
#[test]
fn what_is_wrong_is_said() {
    type Change = fn(&mut Found);
    let rows: Vec<(&str, Change)> = vec![
        ("no control plane is ready", |found| {
            for pod in found.pods.iter_mut().filter(|pod| pod.label("app") == "istiod") {
                pod.status = serde_json::Value::Null;
            }
        }),
        ("no control plane runs in namespace istio-system", |found| {
            found.pods.retain(|pod| pod.label("app") != "istiod")
        }),
        ("there is no lease istio-system/istiod-lite-leader", |found| found.leases.clear()),
        ("is held by \"istiod-9_1\"", |found| found.leases[0].spec["holderIdentity"] = "istiod-9_1".into()),
        ("is held by \"\"", |found| found.leases[0].spec["holderIdentity"] = "".into()),
        ("there is no ConfigMap istio-system/istio-ca-root-cert", |found| found.roots = None),
        ("ends in 12 days", |found| found.roots = Some(root(12))),
        ("cannot be read", |found| {
            found.roots = Some(root(3650) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        }),
        ("the node agent of node n2 is not ready", |found| {
            let agent = found.pods.iter_mut().find(|pod| pod.metadata.name == "agent-2").unwrap();
            agent.status = serde_json::json!({"phase": "Running"});
        }),
        ("node n1 has pods in the mesh and no ztunnel", |found| found.pods.retain(|pod| pod.metadata.name != "zt-1")),
        ("AuthorizationPolicy shop/deny: Invalid: spec.rules[0]: wrong", |found| {
            let policy = "metadata: {name: deny, namespace: shop}\nstatus: {conditions: [{type: ZtunnelAccepted, status: \
                          'False', reason: Invalid, message: 'spec.rules[0]: wrong'}]}\n";
            found.policies.insert("AuthorizationPolicy", objects(policy));
        }),
        ("waypoint shop/way takes no requests: Pending: no pod", |found| {
            found.gateways[0].status = serde_json::json!({"conditions": [
                {"type": "Programmed", "status": "False", "reason": "Pending", "message": "no pod"},
            ]});
        }),
        ("waypoint shop/way has no pod that is ready", |found| found.pods.retain(|pod| pod.metadata.name != "way-1")),
    ];
    for (expected, change) in rows {
        let mut found = well();
        change(&mut found);
        let status = seen(&found);
        assert!(
            status.problems.len() == 1 && status.problems[0].contains(expected),
            "{expected}: {:?}",
            status.problems
        );
        assert!(!status.is_well());
    }
}

#[test]
fn what_is_not_wrong() {
    let mut found = well();
    // Two roots while one follows the other: the older may end.
    found.roots = Some(root(2) + &root(3650));
    let conditions = |kind: &str, status: &str, reason: &str, more: &str| {
        format!(
            "metadata: {{name: {}, namespace: shop, generation: 2}}\nstatus: {{conditions: [{{type: {kind}, status: '{status}', \
             reason: {reason}, message: m{more}}}]}}\n",
            reason.to_lowercase()
        )
    };
    let all = [
        conditions("ZtunnelAccepted", "True", "Accepted", ""),
        conditions("ZtunnelAccepted", "False", "OtherRevision", ""),
        // About what it said before.
        conditions("ZtunnelAccepted", "False", "Invalid", ", observedGeneration: 1"),
    ];
    found.policies.insert("AuthorizationPolicy", objects(&all.join("---\n")));
    let status = seen(&found);
    assert_eq!(status.problems, Vec::<String>::new());
    let accepted: Vec<&str> = status.policies.iter().map(|policy| &*policy.accepted).collect();
    assert_eq!(accepted, ["yes", "yes", "unknown"]);
}

/// What other controllers say is theirs.
#[test]
fn what_others_say_is_not_ours() {
    let mut found = well();
    let route = "metadata: {name: NAME, namespace: shop}\nspec: {parentRefs: [{kind: KIND, name: web}]}\nstatus: {parents: \
                 [{parentRef: {kind: KIND, name: web}, conditions: [{type: Accepted, status: 'False', reason: Wrong, message: m}]}]}\n";
    let [ingress, mesh] = [("ingress", "Gateway"), ("mesh", "Service")];
    let of = |(name, kind): (&str, &str)| route.replace("NAME", name).replace("KIND", kind);
    found.policies.insert("HTTPRoute", objects(&[of(ingress), of(mesh)].join("---\n")));
    let conditions = "[{type: cloud.example/Balanced, status: 'False', reason: Pending, message: m}]";
    found
        .services
        .extend(objects(&format!("metadata: {{name: lb, namespace: shop}}\nstatus: {{conditions: {conditions}}}\n")));
    let status = seen(&found);
    assert_eq!(status.problems, ["HTTPRoute shop/mesh: Wrong: m"]);
    assert_eq!(status.policies.len(), 1);
}

/// Nothing is said about what may not be read, but that.
#[test]
fn what_may_not_be_read_is_named_and_not_missed() {
    for right in [
        "list pods in all namespaces",
        "list leases.coordination.k8s.io in namespace istio-system",
        "list configmaps in namespace istio-system",
        "list namespaces in all namespaces",
    ] {
        let mut found = well();
        match right.split(' ').nth(1).unwrap() {
            "pods" => found.pods.clear(),
            "configmaps" => found.roots = None,
            "namespaces" => found.namespaces.clear(),
            _ => found.leases.clear(),
        }
        found.missing.push(right.to_owned());
        let status = seen(&found);
        assert_eq!(status.problems, Vec::<String>::new(), "{right}");
        assert!(!status.is_well());
        assert!(status.table(Width::Narrow).contains(right));
    }
}

#[test]
fn a_waypoint_of_another_class_is_none_of_ours() {
    let mut found = well();
    found.gateways[0].spec["gatewayClassName"] = "nginx".into();
    assert_eq!(seen(&found).waypoints, Vec::<Waypoint>::new());
}
