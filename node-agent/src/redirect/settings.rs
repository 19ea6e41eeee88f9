//! What a pod's annotations and the node's defaults say about its redirection. Pure.

use std::collections::BTreeMap;

use mesh_model::labels;

/// The longest interface name Linux has, in bytes.
const MAX_INTERFACE_NAME: usize = 15;
/// More interfaces than this in one pod are taken for a mistake.
const MAX_INTERFACES: usize = 16;

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
}

/// The node's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `AMBIENT_IPV6`.
    pub ipv6: bool,
    /// `AMBIENT_DNS_CAPTURE`.
    pub dns_capture: bool,
}

impl Settings {
    /// The settings of a pod with these annotations, and what in them could not be read. What cannot be read is
    /// ignored: a typing error must not take a pod out of the mesh.
    pub fn of(annotations: &BTreeMap<String, String>, defaults: Defaults) -> (Self, Vec<String>) {
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
        (Self { ipv6: defaults.ipv6, inbound_capture, dns_capture, outbound_interfaces }, ignored)
    }
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

    const DEFAULTS: Defaults = Defaults { ipv6: true, dns_capture: false };

    fn of(annotations: &[(&str, &str)]) -> (Settings, usize) {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (settings, ignored) = Settings::of(&annotations, DEFAULTS);
        (settings, ignored.len())
    }

    #[test]
    fn annotations_over_defaults() {
        let plain = Settings { ipv6: true, inbound_capture: true, dns_capture: false, outbound_interfaces: Vec::new() };
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
}
