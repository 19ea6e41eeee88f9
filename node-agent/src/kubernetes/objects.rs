//! Objects of the API server, as far as the agent wants to know them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::pods::{KnownAs, Phase, Pod};
use crate::probe_ports::Probed;

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: Option<Map>,
    annotations: Option<Map>,
    deletion_timestamp: Option<String>,
}

/// A pod, without the labels of its namespace.
///
/// # Errors
/// Says what cannot be read.
pub fn pod(json: &str) -> Result<Pod, String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        service_account_name: String,
        host_network: bool,
        #[serde(flatten)]
        probed: Probed,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Status {
        phase: Phase,
        #[serde(rename = "podIPs")]
        pod_ips: Option<Vec<PodIp>>,
    }
    #[derive(Deserialize)]
    struct PodIp {
        ip: String,
    }
    let Object { metadata, spec, status } = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if metadata.uid.is_empty() || metadata.namespace.is_empty() {
        return Err("it lacks uid or namespace".to_owned());
    }
    let ips = status.pod_ips.into_iter().flatten().filter_map(|PodIp { ip }| ip.parse::<IpAddr>().ok()).collect();
    Ok(Pod {
        uid: metadata.uid,
        name: metadata.name,
        namespace: metadata.namespace,
        service_account: spec.service_account_name,
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        host_network: spec.host_network,
        ips,
        phase: status.phase,
        probe_ports: spec.probed.ports(),
        known_as: KnownAs::Later,
        ..Pod::default()
    })
}

/// A namespace's name and labels.
///
/// # Errors
/// Says what cannot be read.
pub fn namespace(json: &str) -> Result<(String, Map), String> {
    let metadata = metadata(json)?;
    Ok((metadata.name, metadata.labels.unwrap_or_default()))
}

/// Whether an object is on its way out: it is there until what depends on it is gone.
///
/// # Errors
/// Says what cannot be read.
pub fn is_being_deleted(json: &str) -> Result<bool, String> {
    Ok(metadata(json)?.deletion_timestamp.is_some())
}

fn metadata(json: &str) -> Result<Metadata, String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    serde_json::from_str(json).map(|Object { metadata }| metadata).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_as_the_api_server_has_it() {
        let read = pod(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-0","namespace":"shop","uid":"u1",
            "labels":{"app":"web"},"annotations":{"a":"b"},"resourceVersion":"7","managedFields":[{}]},
            "spec":{"serviceAccountName":"web","nodeName":"n1","containers":[{"name":"c","securityContext":{},
            "ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],
            "readinessProbe":{"httpGet":{"path":"/ready","port":"http","scheme":"HTTP"},"timeoutSeconds":1}}],
            "initContainers":[{"name":"s","restartPolicy":"Always","startupProbe":{"grpc":{"port":9000,"service":""}}}]},
            "status":{"phase":"Running","podIP":"10.244.1.5","podIPs":[{"ip":"10.244.1.5"},{"ip":"fd00::5"}],
            "conditions":[]}}"#)
        .unwrap();
        let expected = Pod {
            uid: "u1".into(),
            name: "web-0".into(),
            namespace: "shop".into(),
            service_account: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            ips: vec!["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            phase: Phase::Running,
            probe_ports: vec![8080, 9000],
            known_as: KnownAs::Later,
            ..Pod::default()
        };
        assert_eq!(read, expected);
        // One that was only just made.
        let bare =
            pod(r#"{"metadata":{"name":"a","namespace":"n","uid":"u","labels":null},"spec":{"hostNetwork":true},
            "status":{"phase":"Pending"}}"#)
            .unwrap();
        assert_eq!((bare.host_network, bare.ips.len(), bare.phase), (true, 0, Phase::Pending));
        for json in ["", "{}", r#"{"metadata":{"name":"a","uid":"u"}}"#, r#"{"metadata":{"namespace":"a"}}"#] {
            assert!(pod(json).is_err(), "{json}");
        }
        assert!(pod(r#"{"metadata":{"uid":"u","namespace":"n"},"spec":5}"#).is_err());
    }

    #[test]
    fn namespaces_and_what_is_on_its_way_out() {
        let (name, labels) = namespace(r#"{"metadata":{"name":"shop","labels":{"a":"b"}},"status":{}}"#).unwrap();
        assert_eq!((name.as_str(), labels["a"].as_str()), ("shop", "b"));
        assert_eq!(namespace(r#"{"metadata":{"name":"x"}}"#).unwrap().1, Map::new());
        assert!(namespace("{}").is_err());
        assert!(!is_being_deleted(r#"{"metadata":{"name":"x"}}"#).unwrap());
        assert!(is_being_deleted(r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}"#).unwrap());
    }
}
