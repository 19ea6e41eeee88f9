//! The objects of a large mesh, and what changes in it. Pure.
use istiod_lite::cluster::Change;
use istiod_lite::resources::{Kind, Object};
use mesh_testkit::control_plane::TokenIssuer;
use serde_json::{Value, json};

/// Pods of a namespace, at most, and pods of a node.
const NAMESPACE: u32 = 1000;
const NODE: u32 = 100;

/// How large.
pub(crate) struct Mesh {
    pub(crate) pods: u32,
    pub(crate) services: u32,
    /// Each is a ztunnel.
    pub(crate) subscribers: u32,
}

impl Mesh {
    /// Everything that there is at first.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
        let namespaces = (0..self.pods.div_ceil(NAMESPACE)).map(|n| {
            let labels = json!({"istio.io/dataplane-mode": "ambient"});
            object(Kind::Namespace, json!({"metadata": {"name": namespace(n), "labels": labels}}))
        });
        let nodes = (0..self.pods.div_ceil(NODE)).map(|n| {
            let labels = json!({
                "topology.kubernetes.io/region": "r1",
                "topology.kubernetes.io/zone": format!("z{}", n % 3),
            });
            object(Kind::Node, json!({"metadata": {"name": format!("node-{n}"), "labels": labels}}))
        });
        let ztunnels = (0..self.subscribers).map(|n| {
            let metadata =
                json!({"name": format!("ztunnel-{n}"), "namespace": "istio-system", "uid": format!("zt-{n}")});
            let spec = json!({"nodeName": format!("node-{n}"), "serviceAccountName": "ztunnel", "containers": []});
            object(Kind::Pod, json!({"metadata": metadata, "spec": spec}))
        });
        let services = (0..self.services).map(|n| self.service(n, 80));
        let pods = (0..self.pods).map(|n| self.pod(n, true));
        namespaces.chain(nodes).chain(ztunnels).chain(services).chain(pods)
    }

    /// A pod as an API server keeps it: with what a Deployment and a kubelet write.
    pub(crate) fn pod(&self, n: u32, ready: bool) -> Object {
        let app = n % self.services;
        let (namespace, hash) = (namespace(app % self.pods.div_ceil(NAMESPACE)), "7d4b9c6f5d");
        let ip = format!("10.{}.{}.{}", 64 + (n >> 16), n >> 8 & 255, n & 255);
        object(
            Kind::Pod,
            json!({
                "metadata": {
                    "name": format!("app-{app}-{hash}-{n:05}"), "generateName": format!("app-{app}-{hash}-"),
                    "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{n:012}"),
                    "resourceVersion": "1234567", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {"app": format!("app-{app}"), "pod-template-hash": hash, "version": "v1"},
                    "annotations": {"ambient.istio.io/redirection": "enabled"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{app}-{hash}"),
                        "uid": format!("00000000-0000-4000-9000-{app:012}"), "controller": true,
                    }],
                },
                "spec": {
                    "nodeName": format!("node-{}", n / NODE), "serviceAccountName": format!("app-{app}"),
                    "containers": [{"name": "main", "image": "registry.example/app:1", "ports": [{"name": "http", "containerPort": 8080}]}],
                },
                "status": {
                    "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                },
            }),
        )
    }

    /// A service, with a second port of this number.
    pub(crate) fn service(&self, n: u32, port: u32) -> Object {
        let namespace = namespace(n % self.pods.div_ceil(NAMESPACE));
        let address = format!("10.{}.{}.{}", 32 + (n >> 16), n >> 8 & 255, n & 255);
        object(
            Kind::Service,
            json!({
                "metadata": {"name": format!("app-{n}"), "namespace": namespace, "resourceVersion": "7"},
                "spec": {
                    "clusterIP": address, "selector": {"app": format!("app-{n}")},
                    "ports": [{"name": "http", "port": 8080, "targetPort": "http"}, {"name": "second", "port": port}],
                },
            }),
        )
    }

    /// For one namespace.
    pub(crate) fn authorization_policy(&self, n: u32) -> Object {
        let rule = json!({"from": [{"source": {"namespaces": [format!("ns-{n}")]}}]});
        let spec = json!({"action": "DENY", "rules": [rule]});
        object(
            Kind::AuthorizationPolicy,
            json!({"metadata": {"name": "wide", "namespace": namespace(0)}, "spec": spec}),
        )
    }

    /// For one namespace: each of its pods names another policy then.
    pub(crate) fn peer_authentication(&self, strict: bool) -> Object {
        let spec = json!({"mtls": {"mode": if strict { "STRICT" } else { "PERMISSIVE" }}});
        object(Kind::PeerAuthentication, json!({"metadata": {"name": "wide", "namespace": namespace(0)}, "spec": spec}))
    }

    /// One pod after the other stops being ready; when all have, one after the other is again.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> {
        // Neighbours in time are no neighbours in the tables.
        let stride = 7919;
        let ready = [false, true].into_iter().cycle();
        ready.flat_map(move |ready| {
            (0..self.pods).map(move |n| {
                let n = u64::from(n) * stride % u64::from(self.pods);
                Change::apply(self.pod(u32::try_from(n).unwrap_or(0), ready))
            })
        })
    }
}

fn namespace(n: u32) -> String {
    format!("ns-{n}")
}

#[allow(clippy::expect_used, reason = "what is written here is right, or the run is worth nothing")]
fn object(kind: Kind, value: Value) -> Object {
    Object::from_value(kind, &value).expect("an object as an API server keeps it")
}

/// The tokens of the ztunnels.
pub(crate) fn tokens(count: u32, issuer: &TokenIssuer) -> Vec<String> {
    let token = |n: u32| {
        let pod = (&*format!("ztunnel-{n}"), &*format!("zt-{n}"));
        issuer.token(("istio-system", "ztunnel"), pod, 86_400)
    };
    (0..count).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_mesh_has_what_was_asked_for_and_every_pod_a_service() {
        let mesh = Mesh { pods: 2500, services: 20, subscribers: 3 };
        let keys: Vec<_> = mesh.objects().map(|object| object.key()).collect();
        let of = |kind| keys.iter().filter(|key| key.kind == kind).count();
        assert_eq!((of(Kind::Namespace), of(Kind::Node), of(Kind::Service), of(Kind::Pod)), (3, 25, 20, 2503));
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "each once");
        let mut cluster = istiod_lite::cluster::Cluster::default();
        cluster.reset(mesh.objects());
        let found = istiod_lite::translate::endpoints::Inputs::of(&cluster).resolve();
        assert!(found.iter().all(|service| service.endpoints.len() == 125));
        let changed: BTreeSet<_> = mesh.changes().take(2500).map(|change| format!("{change:?}")).collect();
        assert_eq!(changed.len(), 2500, "each pod once before any again");
    }
}
