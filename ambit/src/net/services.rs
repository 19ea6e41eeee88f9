//! Which endpoints a service address stands for.
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Transport protocols that are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// One service address and port, and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frontend {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Endpoints of the same address family.
    pub(crate) backends: BTreeSet<(IpAddr, u16)>,
}

/// A pod that runs, as far as services care.
#[derive(Debug, Clone)]
pub(crate) struct Backend<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) ready: bool,
}

/// Whether a service selects a pod: same namespace, and every selector label is there.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else {
        return false;
    };
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    service.metadata.namespace == pod.metadata.namespace && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether a service has no address of its own by wish.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false)
}

/// Addresses behind a service, as a headless one shows them to DNS.
pub(crate) fn endpoint_addresses(service: &Service, backends: &[Backend<'_>]) -> Vec<IpAddr> {
    let any = publishes_not_ready(service);
    backends.iter().filter(|b| (b.ready || any) && selects(service, b.pod)).flat_map(|b| b.ips.to_vec()).collect()
}

/// The port of a pod that a service port goes to, if the pod has it.
fn target_port(target: Option<&IntOrString>, port: i32, pod: &Pod) -> Option<u16> {
    match target {
        None => u16::try_from(port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => pod
                .spec
                .iter()
                .flat_map(|s| &s.containers)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| p.name.as_ref() == Some(name))
                .and_then(|p| u16::try_from(p.container_port).ok()),
        },
    }
}

/// Everything the nodes have to translate for one service with these addresses.
pub(crate) fn frontends(
    service: &Service,
    addresses: &[IpAddr],
    backends: &[Backend<'_>],
    slices: &[EndpointSlice],
) -> Vec<Frontend> {
    let mut all = Vec::new();
    let any = publishes_not_ready(service);
    for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => continue,
        };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let mut found: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
        for backend in backends.iter().filter(|b| (b.ready || any) && selects(service, b.pod)) {
            if let Some(target) = target_port(port.target_port.as_ref(), port.port, backend.pod) {
                found.extend(backend.ips.iter().map(|ip| (*ip, target)));
            }
        }
        for slice in slices.iter().filter(|s| belongs(s, service)) {
            found.extend(slice_endpoints(slice, port.name.as_deref()));
        }
        all.extend(addresses.iter().map(|address| Frontend {
            address: *address,
            port: number,
            protocol,
            backends: found.iter().filter(|(ip, _)| ip.is_ipv4() == address.is_ipv4()).copied().collect(),
        }));
    }
    all
}

fn belongs(slice: &EndpointSlice, service: &Service) -> bool {
    slice.metadata.namespace == service.metadata.namespace
        && slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")).is_some()
        && slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"))
            == service.metadata.name.as_ref()
}

fn slice_endpoints(slice: &EndpointSlice, port_name: Option<&str>) -> Vec<(IpAddr, u16)> {
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|p| p.name.as_deref().unwrap_or("") == port_name.unwrap_or(""))
        .and_then(|p| p.port)
        .and_then(|p| u16::try_from(p).ok());
    let Some(port) = port else { return Vec::new() };
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
        .flat_map(|e| &e.addresses)
        .filter_map(|a| a.parse().ok())
        .map(|ip| (ip, port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_saphyr::from_str(yaml).unwrap()
    }

    const WEB: &str = "
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
";

    #[test]
    fn what_stands_behind_an_address() {
        let web = pod(WEB);
        let ips: Vec<IpAddr> = vec!["10.244.1.2".parse().unwrap(), "fd00:10:244:1::2".parse().unwrap()];
        // (service spec, pod ready, expected backends of the IPv4 address)
        let cases = [
            ("selector: {app: web}, ports: [{port: 80, targetPort: http}]", true, vec!["10.244.1.2:8080"]),
            ("selector: {app: web}, ports: [{port: 80, targetPort: 9}]", true, vec!["10.244.1.2:9"]),
            ("selector: {app: web}, ports: [{port: 80}]", true, vec!["10.244.1.2:80"]),
            ("selector: {app: web}, ports: [{port: 80}]", false, vec![]),
            ("publishNotReadyAddresses: true, selector: {app: web}, ports: [{port: 80}]", false, vec!["10.244.1.2:80"]),
            ("selector: {app: web}, ports: [{port: 80, targetPort: nope}]", true, vec![]),
            ("selector: {app: other}, ports: [{port: 80}]", true, vec![]),
            ("selector: {}, ports: [{port: 80}]", true, vec![]),
        ];
        for (spec, ready, expected) in cases {
            let service: Service =
                serde_saphyr::from_str(&format!("{{metadata: {{name: s, namespace: shop}}, spec: {{{spec}}}}}"))
                    .unwrap();
            let vip: IpAddr = "10.96.0.1".parse().unwrap();
            let backends = [Backend { pod: &web, ips: &ips, ready }];
            let got = frontends(&service, &[vip], &backends, &[]);
            let got: Vec<String> = got[0].backends.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
            assert_eq!(got, expected, "{spec}, ready {ready}");
        }
    }

    #[test]
    fn another_namespace_is_another_service() {
        let service: Service =
            serde_saphyr::from_str("{metadata: {name: s, namespace: b}, spec: {selector: {app: web}}}").unwrap();
        assert!(!selects(&service, &pod(WEB)));
    }
}
