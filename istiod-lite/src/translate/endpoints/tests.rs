use super::*;
use crate::cluster::Pod;
use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::sync::Arc;

fn object<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap()
}

fn pod(name: &str, spec: &str) -> Pod {
    let pod: KubernetesPod = object(&format!(
        "{{metadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}, spec: {{containers: [], {spec}}}}}"
    ));
    Pod::from(&pod)
}

fn service(spec: &str) -> Service {
    object(&format!("{{metadata: {{name: web, namespace: shop}}, spec: {{{spec}}}}}"))
}

fn state(pod: &Pod, ip: &str, serving: bool, terminating: bool) -> Arc<Pod> {
    let stage = match (serving, terminating) {
        (serving, true) => Stage::Ending { serving },
        (true, false) => Stage::Ready,
        (false, false) => Stage::Starting,
    };
    Arc::new(pod.clone().observed("", vec![ip.parse().unwrap()], stage))
}

/// `HOSTNAME ADDRESS`, of those that take traffic.
fn used(inputs: &Inputs<'_>) -> Vec<String> {
    let endpoints = inputs.resolve().remove(0).endpoints.into_iter().filter(|e| e.in_use);
    endpoints.map(|e| format!("{} {}", e.hostname.as_deref().unwrap_or("-"), e.addresses[0])).collect()
}

#[test]
fn an_endpoint_has_the_pods_hostname_below_its_subdomain_only() {
    for (spec, expected) in [
        ("hostname: web-0, subdomain: web", "web-0 10.0.0.1"),
        ("hostname: web-0, subdomain: other", "- 10.0.0.1"),
        ("hostname: web-0", "- 10.0.0.1"),
        // The pod's name is its hostname, and not its name in DNS.
        ("subdomain: web", "- 10.0.0.1"),
        ("hostname: '', subdomain: web", "- 10.0.0.1"),
    ] {
        let (pod, service) = (pod("web-0", spec), service("clusterIP: None, selector: {app: web}"));
        let pods = vec![state(&pod, "10.0.0.1", true, false)];
        assert_eq!(used(&Inputs { services: vec![&service], pods, ..Inputs::default() }), [expected], "{spec}");
    }
}

#[test]
fn who_ends_is_no_last_resort_of_a_headless_service() {
    let (stays, ends) = (pod("stays", ""), pod("ends", ""));
    for (spec, stays_ready, expected) in [
        ("clusterIP: None", true, &["- 10.0.0.1"][..]),
        ("clusterIP: None", false, &[]),
        ("clusterIP: None, publishNotReadyAddresses: true", false, &["- 10.0.0.1", "- 10.0.0.2"]),
        ("clusterIP: 10.96.0.1", true, &["- 10.0.0.1"]),
        ("clusterIP: 10.96.0.1", false, &["- 10.0.0.2"]),
    ] {
        let service = service(&format!("{spec}, selector: {{app: web}}, ports: [{{port: 80}}]"));
        let pods = vec![state(&stays, "10.0.0.1", stays_ready, false), state(&ends, "10.0.0.2", true, true)];
        let inputs = Inputs { services: vec![&service], pods, ..Inputs::default() };
        assert_eq!(used(&inputs), expected, "{spec}, {stays_ready}");
    }
}

#[test]
fn a_slice_gives_hostnames_too() {
    let slice: EndpointSlice = object(
        "{metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: \
         [{addresses: [192.0.2.1], hostname: db-0}, {addresses: [192.0.2.2]}]}",
    );
    let service = service("clusterIP: None");
    let inputs = Inputs { services: vec![&service], slices: vec![&slice], ..Inputs::default() };
    assert_eq!(used(&inputs), ["db-0 192.0.2.1", "- 192.0.2.2"]);
}

#[test]
fn another_namespace_is_another_service() {
    let (pod, mut service) = (pod("web-0", ""), service("selector: {app: web}"));
    service.metadata.namespace = Some("bank".to_owned());
    let pods = vec![state(&pod, "10.0.0.1", true, false)];
    assert_eq!(used(&Inputs { services: vec![&service], pods, ..Inputs::default() }), [] as [String; 0]);
}

#[test]
fn a_name_outside_has_no_endpoints() {
    let (pod, service) =
        (pod("web-0", ""), service("type: ExternalName, externalName: a.example, selector: {app: web}"));
    let pods = vec![state(&pod, "10.0.0.1", true, false)];
    assert_eq!(used(&Inputs { services: vec![&service], pods, ..Inputs::default() }), [] as [String; 0]);
}
