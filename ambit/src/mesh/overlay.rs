//! What the control plane reads beside the user's files: what the API server, schedulers and kubelets of a cluster would
//! have written into the objects.
use crate::pods::state::Phase;
use anyhow::Result;
use k8s_openapi::api::core::v1::{Pod, Service};
use mesh_model::labels;
use mesh_runtime::timestamp::Timestamp;
use node_agent::enrolled::Redirection;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::SystemTime;

/// A pod that runs, as its node knows it.
pub(crate) struct PodFacts<'a> {
    /// As the user wrote it.
    pub(crate) pod: &'a Pod,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) node_ip: IpAddr,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) phase: Phase,
    /// Its programs are ready, ending or not.
    pub(crate) ready: bool,
    pub(crate) redirection: Option<Redirection>,
    pub(crate) created: SystemTime,
    /// When it was told to end, if it was.
    pub(crate) deleted: Option<SystemTime>,
}

/// The whole Pod, as a cluster would have it: it is there until its programs have ended, whatever became of the
/// document that asked for it.
///
/// # Errors
/// None in practice: it was read from YAML.
pub(crate) fn pod(facts: &PodFacts<'_>) -> Result<Value> {
    let mut object = serde_json::to_value(facts.pod)?;
    let metadata = &mut object["metadata"];
    if metadata["annotations"].is_null() {
        metadata["annotations"] = json!({});
    }
    if let Some(annotations) = metadata["annotations"].as_object_mut() {
        annotations.remove(labels::REDIRECTION);
        if let Some(word) = facts.redirection.and_then(Redirection::annotation) {
            annotations.insert(labels::REDIRECTION.to_owned(), word.into());
        }
    }
    metadata["uid"] = facts.uid.into();
    metadata["creationTimestamp"] = timestamp(facts.created).into();
    metadata["deletionTimestamp"] = facts.deleted.map(timestamp).into();
    object["spec"]["nodeName"] = facts.node.into();
    let ready = if facts.ready { "True" } else { "False" };
    object["status"] = json!({
        "phase": facts.phase.name(),
        "hostIP": facts.node_ip,
        "podIP": facts.ips.first(),
        "podIPs": facts.ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
        "conditions": [{"type": "Ready", "status": ready}],
    });
    if facts.deleted.is_none()
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("deletionTimestamp");
    }
    Ok(object)
}

/// A ztunnel as a Pod: from these the control plane knows which ztunnel runs on which node.
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

/// The service account that we make tokens of: should the user's files hold it, with the uid that some other cluster gave
/// it, it is ours all the same.
pub(crate) fn service_account(namespace: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
    })
}

/// The whole Service with its addresses: it is there for as long as nodes translate them. `version` tells it from an
/// earlier one of its name.
///
/// # Errors
/// None in practice: it was read from YAML.
pub(crate) fn service(service: &Service, version: u64, ips: &[IpAddr]) -> Result<Value> {
    let mut object = serde_json::to_value(service)?;
    object["metadata"]["resourceVersion"] = version.to_string().into();
    if object["spec"]["type"] != "ExternalName" {
        object["spec"]["clusterIP"] = "None".into();
    }
    if let Some(first) = ips.first() {
        object["spec"]["clusterIP"] = first.to_string().into();
        object["spec"]["clusterIPs"] = json!(ips);
    }
    Ok(object)
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

/// To the second, as an API server writes it.
fn timestamp(time: SystemTime) -> String {
    format!("{:.0}", Timestamp::from(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::overlay_files::OverlayFiles;
    use std::time::{Duration, UNIX_EPOCH};

    /// What happens to a pod, and the object that the control plane reads of it.
    #[test]
    fn the_object_is_the_whole_pod_as_it_lives() {
        let written: Pod = serde_saphyr::from_str(
            "{metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {mine: kept, \
             ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: cart, containers: [{name: c}]}}",
        )
        .unwrap();
        let ips = ["10.244.1.2".parse().unwrap()];
        let facts = |phase, ready, redirection, deleted| PodFacts {
            pod: &written,
            uid: "u",
            node: "node1",
            node_ip: "172.30.0.11".parse().unwrap(),
            ips: &ips,
            phase,
            ready,
            redirection,
            created: UNIX_EPOCH,
            deleted,
        };
        let web: Service =
            serde_saphyr::from_str("{metadata: {name: s, namespace: shop}, spec: {ports: [{port: 80}]}}").unwrap();
        let text = |facts: &PodFacts<'_>| {
            let objects = [pod(facts).unwrap(), service(&web, 7, &[]).unwrap()];
            OverlayFiles::new("all").of(&objects).unwrap().remove(0).text
        };
        let one = |facts: PodFacts<'_>| {
            let back: Vec<Value> = serde_saphyr::from_multiple(&text(&facts)).unwrap();
            assert_eq!(back[1]["metadata"]["resourceVersion"], "7");
            let spec = &back[1]["spec"];
            assert_eq!((&spec["clusterIP"], &spec["ports"][0]["port"]), (&json!("None"), &json!(80)));
            back[0].clone()
        };
        let end = Some(UNIX_EPOCH + Duration::from_secs(60));
        for (name, facts, phase, redirection, ready, deleted) in [
            ("starting", facts(Phase::Pending, false, None, None), "Pending", json!(null), "False", json!(null)),
            (
                "joining",
                facts(Phase::Pending, false, Some(Redirection::Joining), None),
                "Pending",
                json!("enabled"),
                "False",
                json!(null),
            ),
            (
                "ready",
                facts(Phase::Running, true, Some(Redirection::Enabled), None),
                "Running",
                json!("enabled"),
                "True",
                json!(null),
            ),
            // Ending, it is what it was: its identity, its address, its tunnels.
            (
                "ending",
                facts(Phase::Running, true, Some(Redirection::Enabled), end),
                "Running",
                json!("enabled"),
                "True",
                json!("1970-01-01T00:01:00Z"),
            ),
            (
                "leaving",
                facts(Phase::Running, true, Some(Redirection::Leaving), None),
                "Running",
                json!(null),
                "True",
                json!(null),
            ),
            (
                "ended",
                facts(Phase::Succeeded, false, None, end),
                "Succeeded",
                json!(null),
                "False",
                json!("1970-01-01T00:01:00Z"),
            ),
        ] {
            let pod = one(facts);
            assert_eq!(pod["kind"], "Pod", "{name}");
            let metadata = &pod["metadata"];
            assert_eq!(
                (&metadata["name"], &metadata["uid"], &metadata["labels"]["app"]),
                (&json!("web"), &json!("u"), &json!("web"))
            );
            assert_eq!(metadata["annotations"]["mine"], "kept", "{name}");
            assert_eq!(metadata["annotations"][labels::REDIRECTION], redirection, "{name}");
            assert_eq!(metadata["deletionTimestamp"], deleted, "{name}");
            assert_eq!(
                (&pod["spec"]["nodeName"], &pod["spec"]["serviceAccountName"]),
                (&json!("node1"), &json!("cart"))
            );
            let status = &pod["status"];
            assert_eq!(
                (&status["phase"], &status["conditions"][0]["status"]),
                (&json!(phase), &json!(ready)),
                "{name}"
            );
            assert_eq!(status["podIPs"][0]["ip"], "10.244.1.2");
        }
    }
}
