//! The ports of a ServiceEntry.

use mesh_model::workload::{AppProtocol, PortMapping};

use crate::resources::ServiceEntry;
use crate::resources::service_entry::Port;

/// Only TCP goes through the mesh.
pub(super) fn tcp_ports(object: &ServiceEntry) -> impl Iterator<Item = &Port> {
    object.tcp_ports()
}

/// Its ports at something that has numbers of its own for some of their names.
pub(super) fn mappings(object: &ServiceEntry, own: impl Fn(&str) -> Option<u16>) -> Vec<PortMapping> {
    let mapping = |port: &Port| PortMapping {
        service_port: number(port.number),
        target_port: own(&port.name).unwrap_or_else(|| number(port.target_port.unwrap_or(port.number))),
        app_protocol: AppProtocol::Unknown,
    };
    tcp_ports(object).map(mapping).collect()
}

/// A port that was validated when it was read.
pub(super) fn number(port: u32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}
