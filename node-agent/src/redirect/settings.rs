//! What a pod's annotations and the node's defaults say about its redirection. Pure.

use mesh_model::labels;

use crate::pods::Pod;

/// The longest interface name Linux has, in bytes.
const MAX_INTERFACE_NAME: usize = 15;
/// More interfaces than this in one pod are taken for a mistake.
const MAX_INTERFACES: usize = 16;
/// Most ports of one pod that are left open for its kubelet: each is a rule for each family. A pod has a handful.
const MAX_PROBE_PORTS: usize = 64;

/// What decides a pod's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Capture IPv6 as well.
    pub ipv6: bool,
    /// Send inbound plaintext to ztunnel. Off is Istio's "ingress mode": only HBONE reaches ztunnel from outside.
    pub inbound_capture: bool,
    /// Send DNS to ztunnel.
    pub dns_capture: bool,
    /// Interfaces whose arriving TCP counts as the pod's own outbound: virtual machines or containers inside the pod.
    pub outbound_interfaces: Vec<String>,
    /// Where its node reaches it past ztunnel.
    pub probe_ports: ProbePorts,
}

/// The ports where a pod's node reaches it past ztunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbePorts {
    /// Every port, as with Istio's node agent.
    Any,
    /// These, which its kubelet dials; what else the node sends is judged like everybody's.
    Only(Vec<u16>),
}

/// The node's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `AMBIENT_IPV6`.
    pub ipv6: bool,
    /// `AMBIENT_DNS_CAPTURE`.
    pub dns_capture: bool,
    /// `AMBIENT_HOST_PROBES_ANY_PORT`.
    pub probes_any_port: bool,
}

impl Settings {
    /// The settings of a pod by its annotations and probes, and what in them could not be taken. That is ignored: a typing
    /// error must not take a pod out of the mesh.
    pub fn of(pod: &Pod, defaults: Defaults) -> (Self, Vec<String>) {
        let annotations = &pod.annotations;
        let mut ignored = Vec::new();
        let mut read_bool = |key: &str| {
            let value = annotations.get(key)?;
            let parsed = labels::parse_bool(value);
            if parsed.is_none() {
                ignored.push(format!("annotation {key}: {value:?} is neither true nor false"));
            }
            parsed
        };
        let bypass_inbound = read_bool(labels::BYPASS_INBOUND_CAPTURE).unwrap_or(false);
        let dns_capture = read_bool(labels::DNS_CAPTURE).unwrap_or(defaults.dns_capture);
        let mut outbound_interfaces = Vec::new();
        let listed = annotations.get(labels::REROUTE_VIRTUAL_INTERFACES).map(String::as_str).unwrap_or_default();
        for name in listed.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if outbound_interfaces.len() == MAX_INTERFACES || !is_interface_name(name) {
                ignored.push(format!(
                    "annotation {}: {name:?} is not taken as an interface",
                    labels::REROUTE_VIRTUAL_INTERFACES
                ));
            } else if !outbound_interfaces.iter().any(|known| known == name) {
                outbound_interfaces.push(name.to_owned());
            }
        }
        let inbound_capture = !bypass_inbound;
        let probe_ports = probe_ports(&pod.probe_ports, defaults, &mut ignored);
        (Self { ipv6: defaults.ipv6, inbound_capture, dns_capture, outbound_interfaces, probe_ports }, ignored)
    }
}

fn probe_ports(ports: &[u16], defaults: Defaults, ignored: &mut Vec<String>) -> ProbePorts {
    if defaults.probes_any_port {
        return ProbePorts::Any;
    }
    let (taken, rest) = ports.split_at(ports.len().min(MAX_PROBE_PORTS));
    if let Some(first) = rest.first() {
        let number = ports.len();
        ignored.push(format!(
            "probes and lifecycle hooks name {number} ports; from {first} on they go through ztunnel: at most \
             {MAX_PROBE_PORTS} are left open for the kubelet"
        ));
    }
    ProbePorts::Only(taken.to_vec())
}

/// Whether Linux could have an interface of this name; wildcards and what nft quotes are not names.
fn is_interface_name(name: &str) -> bool {
    name.len() <= MAX_INTERFACE_NAME
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/:*\"\\".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults { ipv6: true, dns_capture: false, probes_any_port: false };

    fn of(annotations: &[(&str, &str)]) -> (Settings, usize) {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (settings, ignored) = Settings::of(&Pod { annotations, ..Pod::default() }, DEFAULTS);
        (settings, ignored.len())
    }

    #[test]
    fn annotations_over_defaults() {
        let plain = Settings {
            ipv6: true,
            inbound_capture: true,
            dns_capture: false,
            outbound_interfaces: Vec::new(),
            probe_ports: ProbePorts::Only(Vec::new()),
        };
        let ingress = Settings { inbound_capture: false, ..plain.clone() };
        let dns = Settings { dns_capture: true, ..plain.clone() };
        let reroute = Settings { outbound_interfaces: vec!["tap0".into(), "k6t-eth0".into()], ..plain.clone() };
        for (annotations, expected, ignored) in [
            (&[][..], &plain, 0),
            (&[(labels::BYPASS_INBOUND_CAPTURE, "true")], &ingress, 0),
            (&[(labels::BYPASS_INBOUND_CAPTURE, "0")], &plain, 0),
            (&[(labels::BYPASS_INBOUND_CAPTURE, "yes")], &plain, 1),
            (&[(labels::DNS_CAPTURE, "T")], &dns, 0),
            (&[(labels::DNS_CAPTURE, "")], &plain, 1),
            (&[(labels::REROUTE_VIRTUAL_INTERFACES, "tap0, k6t-eth0,,tap0")], &reroute, 0),
            (&[(labels::REROUTE_VIRTUAL_INTERFACES, "a-name-past-fifteen,tap0,k6t-eth0,eth*,a b")], &reroute, 3),
        ] {
            assert_eq!(of(annotations), (expected.clone(), ignored), "{annotations:?}");
        }
    }

    #[test]
    fn a_pod_keeps_so_many_ports_open_for_its_kubelet() {
        let of = |probe_ports: Vec<u16>, probes_any_port| {
            let (settings, ignored) =
                Settings::of(&Pod { probe_ports, ..Pod::default() }, Defaults { probes_any_port, ..DEFAULTS });
            (settings.probe_ports, ignored)
        };
        assert_eq!(of(vec![80, 8080], false), (ProbePorts::Only(vec![80, 8080]), Vec::new()));
        assert_eq!(of(vec![80, 8080], true), (ProbePorts::Any, Vec::new()));
        let (taken, ignored) = of((1..=66).collect(), false);
        assert_eq!(taken, ProbePorts::Only((1..=64).collect()));
        assert!(matches!(&ignored[..], [why] if why.contains("name 66 ports; from 65 on")), "{ignored:?}");
    }
}
