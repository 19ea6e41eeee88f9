//! For which identity may a caller have a certificate? Pure (Istio ambient contract, section 8.2).

use k8s_openapi::api::core::v1::Pod;
use mesh_model::address::NamespacedName;
use mesh_model::identity::{InvalidSpiffeId, SpiffeId};

use super::token::Caller;
use crate::cluster::Cluster;
use crate::translate::{pod_namespace, pod_service_account};

/// Why not. For our log: a caller only hears that it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's own names cannot be an identity.
    #[error("the caller's own identity is malformed: {0}")]
    Own(InvalidSpiffeId),
    /// What is asked for is no identity.
    #[error("{asked:?} is no identity: {why}")]
    Malformed {
        /// What was asked for.
        asked: String,
        /// What is wrong with it.
        why: InvalidSpiffeId,
    },
    /// An identity of another mesh.
    #[error("{0} is of another trust domain")]
    TrustDomain(SpiffeId),
    /// Not a node proxy.
    #[error("{0} may not ask for others; node proxies are listed in CA_TRUSTED_NODE_ACCOUNTS")]
    NotTrusted(NamespacedName),
    /// The token is bound to no pod.
    #[error("the caller's token is bound to no pod, so its node is unknown")]
    NoPod,
    /// The pod is not there, or is another than the token's.
    #[error("the caller's pod {0} does not exist (any more)")]
    UnknownPod(NamespacedName),
    /// The pod is not on a node yet.
    #[error("the caller's pod {0} is on no node")]
    NoNode(NamespacedName),
    /// Nobody with that identity runs there.
    #[error("no pod with identity {asked} is on node {node}")]
    NotOnNode {
        /// What was asked for.
        asked: SpiffeId,
        /// The caller's node.
        node: String,
    },
}

/// The identity to sign for. `requested` is what the caller asks for on behalf of another; without it, its own.
///
/// # Errors
/// Says why it may not have it.
pub fn authorize(
    cluster: &Cluster,
    trust_domain: &str,
    trusted: &[NamespacedName],
    caller: &Caller,
    requested: Option<&str>,
) -> Result<SpiffeId, Refusal> {
    let account = &caller.account;
    let Some(requested) = requested else {
        return SpiffeId::new(trust_domain, &account.namespace, &account.name).map_err(Refusal::Own);
    };
    let id: SpiffeId =
        requested.parse().map_err(|why| Refusal::Malformed { asked: requested.chars().take(256).collect(), why })?;
    if **id.trust_domain() != *trust_domain {
        return Err(Refusal::TrustDomain(id));
    }
    if !trusted.contains(account) {
        return Err(Refusal::NotTrusted(account.clone()));
    }
    let node = node_of(cluster, caller)?;
    let may_run_as = |pod: &Pod| {
        let failed = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed");
        !failed && *pod_namespace(pod) == **id.namespace() && *pod_service_account(pod) == **id.service_account()
    };
    if cluster.pods_on_node(&node).any(|pod| may_run_as(pod)) {
        Ok(id)
    } else {
        Err(Refusal::NotOnNode { asked: id, node })
    }
}

/// The node of the pod that the caller's token is bound to.
fn node_of(cluster: &Cluster, caller: &Caller) -> Result<String, Refusal> {
    let (name, uid) = caller.pod.as_ref().ok_or(Refusal::NoPod)?;
    let key = NamespacedName::new(caller.account.namespace.clone(), name.as_str());
    let pod = cluster
        .pod(&key)
        .filter(|pod| pod.metadata.uid.as_deref() == Some(uid) && *pod_service_account(pod) == *caller.account.name);
    let Some(pod) = pod else { return Err(Refusal::UnknownPod(key)) };
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|node| !node.is_empty());
    node.ok_or(Refusal::NoNode(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{Kind, Object};

    fn pod(namespace: &str, name: &str, account: &str, node: &str, phase: &str) -> Object {
        let value = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": format!("{name}-uid")},
            "spec": {"containers": [], "serviceAccountName": account, "nodeName": node},
            "status": {"phase": phase},
        });
        Object::from_value(Kind::Pod, &value).unwrap()
    }

    #[test]
    fn a_node_proxy_gets_what_runs_on_its_node_and_nothing_else() {
        let mut cluster = Cluster::default();
        cluster.reset([
            pod("istio-system", "zt-1", "ztunnel", "n1", "Running"),
            pod("istio-system", "zt-0", "ztunnel", "", "Pending"),
            pod("shop", "cart", "cart", "n1", "Running"),
            pod("shop", "ended", "ended", "n1", "Succeeded"),
            pod("shop", "failed", "failed", "n1", "Failed"),
            pod("shop", "plain", "", "n1", "Running"),
            pod("shop", "bank", "bank", "n2", "Running"),
        ]);
        let ztunnel = NamespacedName::new("istio-system", "ztunnel");
        let caller = |account: &NamespacedName, pod: Option<(&str, &str)>| Caller {
            account: account.clone(),
            pod: pod.map(|(name, uid)| (name.to_owned(), uid.to_owned())),
        };
        let proxy = caller(&ztunnel, Some(("zt-1", "zt-1-uid")));
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let ask = |caller: &Caller, asked: Option<&str>| {
            authorize(&cluster, "td", std::slice::from_ref(&ztunnel), caller, asked)
        };
        let cart = "spiffe://td/ns/shop/sa/cart";
        for good in [cart, "spiffe://td/ns/shop/sa/ended", "spiffe://td/ns/shop/sa/default"] {
            assert_eq!(ask(&proxy, Some(good)), Ok(id(good)));
        }
        assert_eq!(ask(&proxy, None), Ok(id("spiffe://td/ns/istio-system/sa/ztunnel")));
        let elsewhere = |asked: &str| Err(Refusal::NotOnNode { asked: id(asked), node: "n1".to_owned() });
        for bad in ["spiffe://td/ns/shop/sa/bank", "spiffe://td/ns/shop/sa/failed", "spiffe://td/ns/other/sa/cart"] {
            assert_eq!(ask(&proxy, Some(bad)), elsewhere(bad));
        }
        let other = "spiffe://other/ns/shop/sa/cart";
        assert_eq!(ask(&proxy, Some(other)), Err(Refusal::TrustDomain(id(other))));
        assert!(matches!(ask(&proxy, Some("cart")), Err(Refusal::Malformed { .. })));
        let shop = NamespacedName::new("shop", "cart");
        assert_eq!(ask(&caller(&shop, Some(("cart", "cart-uid"))), Some(cart)), Err(Refusal::NotTrusted(shop)));
        assert_eq!(ask(&caller(&ztunnel, None), Some(cart)), Err(Refusal::NoPod));
        let key = |name: &str| NamespacedName::new("istio-system", name);
        for (name, uid) in [("zt-1", "another-uid"), ("zt-9", "zt-9-uid")] {
            assert_eq!(ask(&caller(&ztunnel, Some((name, uid))), Some(cart)), Err(Refusal::UnknownPod(key(name))));
        }
        assert_eq!(ask(&caller(&ztunnel, Some(("zt-0", "zt-0-uid"))), Some(cart)), Err(Refusal::NoNode(key("zt-0"))));
    }
}
