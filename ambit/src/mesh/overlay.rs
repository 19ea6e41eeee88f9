//! What the control plane is told beyond the user's files: what a cluster would have written into objects by now.
use crate::manifest::Key;
use crate::pods::life::Phase;
use anyhow::Result;
use mesh_model::labels;
use node_agent::enrolled::Redirection;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is known about a pod that runs.
pub(crate) struct PodFacts<'a> {
    pub(crate) key: &'a Key,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) node_ip: IpAddr,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) phase: Phase,
    pub(crate) ready: bool,
    pub(crate) redirection: Option<Redirection>,
    pub(crate) created: SystemTime,
}

/// A Pod's metadata and status.
pub(crate) fn pod(facts: &PodFacts<'_>) -> Value {
    let mut annotations = json!({});
    if let Some(word) = facts.redirection.and_then(Redirection::annotation) {
        annotations[labels::REDIRECTION] = word.into();
    }
    let ready = if facts.ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": facts.key.1,
            "namespace": facts.key.0,
            "uid": facts.uid,
            "annotations": annotations,
            "creationTimestamp": timestamp(facts.created),
        },
        "spec": {"nodeName": facts.node},
        "status": {
            "phase": facts.phase.name(),
            "hostIP": facts.node_ip,
            "podIP": facts.ips.first(),
            "podIPs": facts.ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": ready}],
        },
    })
}

/// A ztunnel as the Pod it would be: the control plane looks there for who runs on which node.
pub(crate) fn ztunnel(name: &str, uid: &str, node: &str, node_ip: IpAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "istio-system", "uid": uid, "labels": {"app": "ztunnel"}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "ztunnel",
            "hostNetwork": true,
            "containers": [{"name": "istio-proxy"}],
        },
        "status": {
            "phase": "Running",
            "hostIP": node_ip,
            "podIP": node_ip,
            "podIPs": [{"ip": node_ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A Service's addresses.
pub(crate) fn service(key: &Key, ips: &[IpAddr]) -> Value {
    let mut spec = json!({"clusterIP": "None"});
    if let Some(first) = ips.first() {
        spec = json!({"clusterIP": first, "clusterIPs": ips});
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": key.1, "namespace": key.0},
        "spec": spec,
    })
}

/// A Node.
pub(crate) fn node(name: &str, uid: &str, ips: &[IpAddr]) -> Value {
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": uid},
        "status": {"addresses": addresses},
    })
}

/// One file of all objects.
pub(crate) fn yaml(objects: &[Value]) -> Result<String> {
    let mut text = String::from("# Written by ambit; edits are lost.\n");
    for object in objects {
        // JSON is YAML; one object a line keeps errors easy to find.
        text.push_str("---\n");
        text.push_str(&serde_json::to_string(object)?);
        text.push('\n');
    }
    Ok(text)
}

/// RFC 3339, in UTC, to the second.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970, by eras of 400 years beginning in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}Z",
        era * 400 + year + carry,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_249_273, "2026-11-21T08:21:13Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn the_overlay_is_yaml() {
        let key = ("shop".to_owned(), "web".to_owned());
        let ips = ["10.244.1.2".parse().unwrap()];
        let object = pod(&PodFacts {
            key: &key,
            uid: "u",
            node: "node1",
            node_ip: "172.30.0.11".parse().unwrap(),
            ips: &ips,
            phase: Phase::Running,
            ready: true,
            redirection: Some(Redirection::Enabled),
            created: UNIX_EPOCH,
        });
        let text = yaml(&[object, service(&key, &[])]).unwrap();
        let back: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(back[0]["metadata"]["annotations"]["ambient.istio.io/redirection"], "enabled");
        assert_eq!(back[0]["status"]["podIPs"][0]["ip"], "10.244.1.2");
        assert_eq!(back[1]["spec"]["clusterIP"], "None");
    }
}
