//! For which identity may a caller have a certificate? Pure (Istio ambient contract, section 8.2).
//!
//! A good token is not enough: it outlives the pod that it was given to. As an API server does when it reviews a token,
//! [`alive`] asks whether that pod is still there and runs as that account.

use mesh_model::address::NamespacedName;
use mesh_model::identity::{InvalidSpiffeId, SpiffeId};

use super::token::Caller;
use crate::cluster::Cluster;
use crate::cluster::pod::{Pod, Stage};

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
    #[error("the caller's token is bound to no pod, so nothing tells whether its owner still exists")]
    NoPod,
    /// The pod is not there, or is another than the token's.
    #[error("the caller's pod {0} does not exist (any more)")]
    UnknownPod(NamespacedName),
    /// The pod runs as another account.
    #[error("the caller's pod {pod} does not run as service account {account}")]
    OtherAccount {
        /// The pod.
        pod: NamespacedName,
        /// The token's account.
        account: NamespacedName,
    },
    /// The account was deleted and made anew since.
    #[error("the caller's service account {0} is another than the token's, though of the same name")]
    ReplacedAccount(NamespacedName),
    /// The pod's programs have ended.
    #[error("the caller's pod {0} has ended")]
    Ended(NamespacedName),
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

/// The pod that a caller's token is bound to: it is there, runs as the token's account and has not ended.
///
/// # Errors
/// Says what is not so.
pub fn alive<'a>(cluster: &'a Cluster, caller: &Caller) -> Result<&'a Pod, Refusal> {
    let account = &caller.account;
    let (name, uid) = caller.pod.as_ref().ok_or(Refusal::NoPod)?;
    let key = NamespacedName::new(account.namespace.clone(), name.as_str());
    let pod = cluster.pod(&key).filter(|pod| pod.uid.as_deref() == Some(uid));
    let Some(pod) = pod else { return Err(Refusal::UnknownPod(key)) };
    if pod.service_account != account.name {
        return Err(Refusal::OtherAccount { pod: key, account: account.clone() });
    }
    // That the account exists is what its pod shows; in a folder of YAML hardly anybody writes the account itself.
    let known = cluster.service_account(account).and_then(|known| known.metadata.uid.as_deref());
    if known.is_some_and(|known| known != caller.account_uid) {
        return Err(Refusal::ReplacedAccount(account.clone()));
    }
    if pod.stage == Stage::Ended {
        return Err(Refusal::Ended(key));
    }
    Ok(pod)
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
    let own = alive(cluster, caller)?;
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
    if own.node.is_empty() {
        return Err(Refusal::NoNode(own.name.clone()));
    }
    let may_run_as = |pod: &Pod| {
        !pod.has_failed && pod.name.namespace == *id.namespace() && pod.service_account == *id.service_account()
    };
    if cluster.pods_on_node(&own.node).any(|pod| may_run_as(pod)) {
        Ok(id)
    } else {
        Err(Refusal::NotOnNode { asked: id, node: own.node.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

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
            account_uid: format!("{}-uid", account.name),
            expires: SystemTime::UNIX_EPOCH,
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

    /// A token lives on for hours after the pod that it was made for.
    #[test]
    fn whose_pod_is_gone_gets_nothing() {
        let mut cluster = Cluster::default();
        cluster.reset([
            pod("shop", "cart", "cart", "n1", "Running"),
            pod("shop", "done", "cart", "n1", "Succeeded"),
            pod("shop", "crashed", "cart", "n1", "Failed"),
            pod("shop", "starting", "cart", "", "Pending"),
            pod("shop", "vault", "vault", "n1", "Running"),
        ]);
        let account = json!({"metadata": {"name": "vault", "namespace": "shop", "uid": "vault-uid"}});
        cluster.apply(Object::from_value(Kind::ServiceAccount, &account).unwrap());
        let named = |name: &str| NamespacedName::new("shop", name);
        let own = |account: &str, account_uid: &str, pod: Option<(&str, &str)>| {
            let caller = Caller {
                account: named(account),
                account_uid: account_uid.to_owned(),
                expires: SystemTime::UNIX_EPOCH,
                pod: pod.map(|(name, uid)| (name.to_owned(), uid.to_owned())),
            };
            authorize(&cluster, "td", &[], &caller, None).map(|id| id.to_string())
        };
        let ghost = Refusal::OtherAccount { pod: named("cart"), account: named("ghost") };
        for (what, account, account_uid, pod, right) in [
            ("it runs", "cart", "any", Some(("cart", "cart-uid")), Ok("spiffe://td/ns/shop/sa/cart".to_owned())),
            (
                "on no node yet",
                "cart",
                "any",
                Some(("starting", "starting-uid")),
                Ok("spiffe://td/ns/shop/sa/cart".into()),
            ),
            ("deleted", "cart", "any", Some(("gone", "gone-uid")), Err(Refusal::UnknownPod(named("gone")))),
            ("made anew", "cart", "any", Some(("cart", "old-uid")), Err(Refusal::UnknownPod(named("cart")))),
            ("of no account that exists", "ghost", "any", Some(("cart", "cart-uid")), Err(ghost)),
            ("ended well", "cart", "any", Some(("done", "done-uid")), Err(Refusal::Ended(named("done")))),
            ("ended badly", "cart", "any", Some(("crashed", "crashed-uid")), Err(Refusal::Ended(named("crashed")))),
            ("bound to no pod", "cart", "any", None, Err(Refusal::NoPod)),
            (
                "account as known",
                "vault",
                "vault-uid",
                Some(("vault", "vault-uid")),
                Ok("spiffe://td/ns/shop/sa/vault".into()),
            ),
            (
                "account made anew",
                "vault",
                "old",
                Some(("vault", "vault-uid")),
                Err(Refusal::ReplacedAccount(named("vault"))),
            ),
        ] {
            assert_eq!(own(account, account_uid, pod), right, "{what}");
        }
    }
}
