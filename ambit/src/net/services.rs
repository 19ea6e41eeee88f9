//! Service addresses as nodes translate them. Which endpoints a service has is istiod-lite's to say, so that whoever is
//! in the mesh and whoever is not reach the same ones.
use istiod_lite::translate::Mesh;
use istiod_lite::translate::endpoints::{Endpoint, EndpointPort, Inputs, Owner, ServiceEndpoints, service_ports, uid};
use k8s_openapi::api::core::v1::Service;
use mesh_model::balance::{self, Location};
use mesh_model::service::LoadBalancing;
use mesh_model::workload::Locality;
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
    /// Clients that keep to one of them (`sessionAffinity: ClientIP`): the one that ztunnel would choose for them.
    pub(crate) kept: BTreeMap<IpAddr, (IpAddr, u16)>,
}

/// Addresses behind a service, as a headless one shows them to DNS.
pub(crate) fn endpoint_addresses(found: &ServiceEndpoints) -> Vec<IpAddr> {
    found.endpoints.iter().filter(|e| e.in_use).flat_map(|e| e.addresses.iter().copied()).collect()
}

/// Names below a service, each with its addresses: those of endpoints that have a hostname.
pub(crate) fn endpoint_names(found: &ServiceEndpoints) -> BTreeMap<&str, Vec<IpAddr>> {
    let mut names: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for endpoint in found.endpoints.iter().filter(|e| e.in_use) {
        if let Some(hostname) = &endpoint.hostname {
            names.entry(hostname).or_default().extend(&endpoint.addresses);
        }
    }
    names
}

/// A node, as preferences look at it.
#[derive(Debug, Clone)]
pub(crate) struct NodePlace {
    pub(crate) name: String,
    pub(crate) locality: Locality,
}

impl NodePlace {
    fn place(&self) -> Location<'_> {
        Location { network: "", cluster: "", locality: &self.locality, node: &self.name }
    }
}

/// What a service's endpoints have to suit.
#[derive(Clone, Copy)]
pub(crate) struct Callers<'a> {
    /// All who may call from an address of their own: each pod's addresses.
    pub(crate) clients: &'a [&'a [IpAddr]],
    /// Where they are, if it is one place that is asked for.
    pub(crate) node: Option<&'a NodePlace>,
    /// Each node, and where it is.
    pub(crate) nodes: &'a [NodePlace],
    /// Which endpoints the service prefers.
    pub(crate) preferences: &'a LoadBalancing,
}

impl Callers<'_> {
    /// How near an endpoint is; `None` for one that is too far.
    fn nearness(self, inputs: &Inputs<'_>, endpoint: &Endpoint) -> Option<usize> {
        let Some(node) = self.node else { return Some(0) };
        let (name, zone) = match &endpoint.owner {
            Owner::Pod(place) => (&*inputs.pods[*place].node, None),
            Owner::Outside(outside) => (outside.node.as_deref().unwrap_or(""), outside.zone.as_deref()),
        };
        let known = self.nodes.iter().find(|n| n.name == name);
        let mut locality = known.map(|n| n.locality.clone()).unwrap_or_default();
        if let Some(zone) = zone {
            locality.zone = zone.into();
        }
        let endpoint = Location { network: "", cluster: "", locality: &locality, node: name };
        balance::nearness(self.preferences, node.place(), endpoint)
    }
}

/// Everything a node has to translate for one service with these addresses.
pub(crate) fn frontends(
    inputs: &Inputs<'_>,
    service: &Service,
    found: &ServiceEndpoints,
    addresses: &[IpAddr],
    callers: Callers<'_>,
) -> Vec<Frontend> {
    let mut all = Vec::new();
    for (place, port) in service_ports(service).iter().enumerate() {
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => continue,
        };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let here = |p: &&EndpointPort| p.port == place && p.in_use;
        let serving: Vec<(&Endpoint, u16)> =
            found.endpoints.iter().flat_map(|e| e.ports.iter().filter(here).map(move |p| (e, p.target))).collect();
        let near: Vec<Option<usize>> = serving.iter().map(|(e, _)| callers.nearness(inputs, e)).collect();
        let nearest = near.iter().flatten().max().copied();
        let serving: Vec<(&Endpoint, u16)> = serving
            .into_iter()
            .zip(near)
            .filter(|(_, near)| near.is_some() && *near == nearest)
            .map(|(serving, _)| serving)
            .collect();
        for address in addresses {
            let of_family = |e: &Endpoint| e.addresses.iter().copied().find(|ip| ip.is_ipv4() == address.is_ipv4());
            let backends: Vec<(&Endpoint, (IpAddr, u16))> =
                serving.iter().filter_map(|(e, target)| Some((*e, (of_family(e)?, *target)))).collect();
            all.push(Frontend {
                address: *address,
                port: number,
                protocol,
                kept: kept(inputs, service, &backends, address, callers.clients),
                backends: backends.into_iter().map(|(_, backend)| backend).collect(),
            });
        }
    }
    all
}

/// The backend that each client keeps to; none where the service spreads its clients.
fn kept(
    inputs: &Inputs<'_>,
    service: &Service,
    backends: &[(&Endpoint, (IpAddr, u16))],
    address: &IpAddr,
    clients: &[&[IpAddr]],
) -> BTreeMap<IpAddr, (IpAddr, u16)> {
    let affinity = service.spec.as_ref().and_then(|s| s.session_affinity.as_deref()) == Some("ClientIP");
    if !affinity || backends.len() < 2 {
        return BTreeMap::new();
    }
    let cluster = &Mesh::default().cluster_id;
    let named: Vec<_> = backends.iter().map(|(e, backend)| (uid(inputs, service, e, cluster), backend)).collect();
    let choice = |client: &[IpAddr]| {
        let first = client.first().copied();
        let scored = named.iter().map(|(uid, backend)| (balance::affinity(first, uid, 1), uid, backend));
        scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1))).map(|(_, _, backend)| **backend)
    };
    let mut kept = BTreeMap::new();
    for client in clients {
        let Some(backend) = choice(client) else { continue };
        kept.extend(client.iter().filter(|ip| ip.is_ipv4() == address.is_ipv4()).map(|ip| (*ip, backend)));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use istiod_lite::cluster::pod::{Pod, Stage};
    use k8s_openapi::api::core::v1::Pod as KubernetesPod;
    use std::sync::Arc;

    const WEB: &str = "
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {hostname: web-0, subdomain: s, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
";

    fn service(spec: &str) -> Service {
        serde_saphyr::from_str(&format!("{{metadata: {{name: s, namespace: shop}}, spec: {{{spec}}}}}")).unwrap()
    }

    fn pod(yaml: &str) -> Pod {
        Pod::from(&serde_saphyr::from_str::<KubernetesPod>(yaml).unwrap())
    }

    fn state(pod: &Pod, ips: &[&str], serving: bool, terminating: bool) -> Arc<Pod> {
        let stage = match (serving, terminating) {
            (serving, true) => Stage::Ending { serving },
            (true, false) => Stage::Ready,
            (false, false) => Stage::Starting,
        };
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(pod.clone().observed(&pod.node, ips, stage))
    }

    fn anything() -> LoadBalancing {
        LoadBalancing::default()
    }

    fn anybody<'a>(clients: &'a [&'a [IpAddr]], preferences: &'a LoadBalancing) -> Callers<'a> {
        Callers { clients, node: None, nodes: &[], preferences }
    }

    #[test]
    fn a_node_translates_to_what_is_near() {
        let on = |name: &str, node: &str| -> Pod {
            let yaml = WEB
                .replace("name: web,", &format!("name: {name},"))
                .replace("{hostname", &format!("{{nodeName: {node}, hostname"));
            pod(&yaml)
        };
        let pods = [on("a", "n1"), on("b", "n2"), on("c", "n3")];
        let place = |name: &str, zone: &str| NodePlace {
            name: name.into(),
            locality: Locality { zone: zone.into(), ..Locality::default() },
        };
        let nodes = [place("n1", "z1"), place("n2", "z1"), place("n3", "z2"), place("n4", "z3")];
        for (spec, node, expected) in [
            ("", 0, &["10.0.0.1", "10.0.0.2", "10.0.0.3"][..]),
            ("trafficDistribution: PreferClose", 0, &["10.0.0.1", "10.0.0.2"]),
            ("trafficDistribution: PreferClose", 2, &["10.0.0.3"]),
            ("trafficDistribution: PreferClose", 3, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
            ("trafficDistribution: PreferSameNode", 1, &["10.0.0.2"]),
            ("internalTrafficPolicy: Local", 1, &["10.0.0.2"]),
            ("internalTrafficPolicy: Local", 3, &[]),
        ] {
            let service = service(&format!("selector: {{app: web}}, ports: [{{port: 80}}], {spec}"));
            let states = pods.iter().zip(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
            let states = states.map(|(pod, ip)| state(pod, &[ip], true, false)).collect();
            let inputs = Inputs { services: vec![&service], pods: states, ..Inputs::default() };
            let preferences = istiod_lite::translate::endpoints::preferences(&service, None);
            let callers = Callers { clients: &[], node: Some(&nodes[node]), nodes: &nodes, preferences: &preferences };
            let got = frontends(&inputs, &service, &inputs.resolve()[0], &["10.96.0.1".parse().unwrap()], callers);
            let got: Vec<String> = got[0].backends.iter().map(|(ip, _)| ip.to_string()).collect();
            assert_eq!(got, expected, "{spec} on n{}", node + 1);
        }
    }

    #[test]
    fn what_stands_behind_an_address() {
        let web = pod(WEB);
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
            ("ipFamilies: [IPv6], selector: {app: web}, ports: [{port: 80}]", true, vec![]),
        ];
        for (spec, ready, expected) in cases {
            let service = service(spec);
            let pods = vec![state(&web, &["10.244.1.2", "fd00:10:244:1::2"], ready, false)];
            let inputs = Inputs { services: vec![&service], pods, ..Inputs::default() };
            let found = &inputs.resolve()[0];
            let got = frontends(&inputs, &service, found, &["10.96.0.1".parse().unwrap()], anybody(&[], &anything()));
            let got: Vec<String> = got[0].backends.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
            assert_eq!(got, expected, "{spec}, ready {ready}");
        }
    }

    #[test]
    fn a_headless_service_shows_addresses_and_names_of_its_families() {
        let web = pod(WEB);
        for (spec, ready, expected) in [
            ("selector: {app: web}", true, vec!["10.244.1.2", "fd00:10:244:1::2"]),
            ("selector: {app: web}", false, vec![]),
            ("selector: {app: web}, publishNotReadyAddresses: true", false, vec!["10.244.1.2", "fd00:10:244:1::2"]),
            ("selector: {app: web}, ipFamilies: [IPv4]", true, vec!["10.244.1.2"]),
            ("selector: {app: web}, ipFamilies: [IPv6]", true, vec!["fd00:10:244:1::2"]),
        ] {
            let service = service(&format!("clusterIP: None, {spec}"));
            let pods = vec![state(&web, &["10.244.1.2", "fd00:10:244:1::2"], ready, false)];
            let found = &Inputs { services: vec![&service], pods, ..Inputs::default() }.resolve()[0];
            let got: Vec<String> = endpoint_addresses(found).iter().map(ToString::to_string).collect();
            assert_eq!(got, expected, "{spec}");
            let named = endpoint_names(found).remove("web-0").unwrap_or_default();
            assert_eq!(named, endpoint_addresses(found), "{spec}");
        }
    }

    #[test]
    fn clients_keep_to_what_ztunnel_would_choose() {
        let pods: Vec<Pod> = (0..4).map(|i| pod(&WEB.replace("name: web,", &format!("name: web-{i},")))).collect();
        let service = service("sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80}]");
        let states = pods.iter().zip(["10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3"]);
        let pods = states.map(|(pod, ip)| state(pod, &[ip], true, false)).collect();
        let inputs = Inputs { services: vec![&service], pods, ..Inputs::default() };
        let clients: Vec<[IpAddr; 2]> = (2..40)
            .map(|i| [format!("10.244.3.{i}").parse().unwrap(), format!("fd00::{i}").parse().unwrap()])
            .collect();
        let clients: Vec<&[IpAddr]> = clients.iter().map(|c| &c[..]).collect();
        let (any, vip) = (anything(), ["10.96.0.1".parse().unwrap()]);
        let all = frontends(&inputs, &service, &inputs.resolve()[0], &vip, anybody(&clients, &any));
        let kept = &all[0].kept;
        assert_eq!(kept.len(), clients.len(), "of the frontend's family");
        for (client, backend) in kept {
            let score = |uid: &str| balance::affinity(Some(*client), uid, 1);
            let best = (0..4).max_by(|a, b| {
                let uid = |i: &i32| format!("Kubernetes//Pod/shop/web-{i}");
                score(&uid(a)).total_cmp(&score(&uid(b)))
            });
            assert_eq!(backend.0, inputs.pods[best.unwrap() as usize].addresses[0], "{client}");
        }
        assert_eq!(kept.values().collect::<BTreeSet<_>>().len(), 4, "all are somebody's");
    }
}
