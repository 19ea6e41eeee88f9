//! Gateways of class `istio-remote` → the gateways of other networks, as proxies are told of them. Pure.
//!
//! Endpoints on another network name its gateway, and the gateway is a workload, of which they know who it has to prove to
//! be. One gateway of a network is told, as in Istio: the first address of its oldest Gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress, canonical_ip};
use mesh_model::identity::SpiffeId;
use mesh_model::labels;
use mesh_model::shared::text;
use mesh_model::workload::Workload;

use super::mesh::Mesh;
use crate::cluster::Cluster;
use crate::cluster::relations::label;
use crate::resources::Gateway;
use crate::resources::gateway_api::gateway::{HBONE, Listener};

/// This network, and the gateways of others.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// This cluster's; empty without a name.
    pub(super) own: Arc<str>,
    gateways: BTreeMap<Arc<str>, NetworkGateway>,
}

/// The gateway of a network.
#[derive(Debug, PartialEq)]
struct NetworkGateway {
    /// The Gateway that says so.
    source: NamespacedName,
    /// As endpoints name it.
    address: Arc<GatewayAddress>,
    /// As it is known.
    workload: Arc<Workload>,
}

/// Why a Gateway is the way to no other network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It does not say to which.
    NoNetwork,
    /// It is this cluster's own.
    Own(Arc<str>),
    /// It has no listener for tunnels.
    NoListener,
    /// It does not say where it is.
    NoAddress,
    /// Nobody can prove to be its account.
    Account(String),
    /// Another Gateway is the one.
    Second(NamespacedName),
}

impl Networks {
    /// Of everything that there is.
    pub(super) fn new(cluster: &Cluster, mesh: &Mesh) -> Self {
        let own = own(cluster, mesh);
        let mut all: Vec<_> = cluster.gateways().filter(|(_, gateway)| gateway.is_remote()).collect();
        let age = |gateway: &Gateway| gateway.metadata.creation_timestamp.clone().map(|t| t.0);
        // Without a creation time, as in a folder, the name decides; objects with a time are older.
        all.sort_by_key(|(key, gateway)| (age(gateway).is_none(), age(gateway), *key));
        let mut gateways = BTreeMap::new();
        for (key, gateway) in all {
            if let Ok(found) = translate(key, gateway, &own, mesh) {
                gateways.entry(found.workload.network.clone()).or_insert(found);
            }
        }
        Self { own, gateways }
    }

    /// Whether a network that an object names is another one.
    pub(super) fn is_other(&self, network: &str) -> bool {
        !network.is_empty() && *network != *self.own
    }

    /// The way to endpoints of another network.
    pub(super) fn gateway_of(&self, network: &str) -> Option<Arc<GatewayAddress>> {
        self.gateways.get(network).map(|gateway| gateway.address.clone())
    }

    /// All gateways.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.gateways.values().map(|gateway| &gateway.workload)
    }

    /// The networks to which the way is another one.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a str> {
        let all = self.gateways.keys().chain(other.gateways.keys());
        all.filter(|network| self.gateways.get(*network) != other.gateways.get(*network)).map(|n| &**n).collect()
    }

    /// The network to which a Gateway is the way, and where it is; or why it is none.
    pub(super) fn verdict(
        &self,
        key: &NamespacedName,
        gateway: &Gateway,
        mesh: &Mesh,
    ) -> Result<(Arc<str>, Arc<GatewayAddress>), Unusable> {
        let NetworkGateway { workload, address, .. } = translate(key, gateway, &self.own, mesh)?;
        match self.gateways.get(&workload.network).map(|known| &known.source).filter(|source| *source != key) {
            Some(other) => Err(Unusable::Second(other.clone())),
            None => Ok((workload.network.clone(), address)),
        }
    }
}

/// The network of this cluster: a label on its root namespace; empty without.
pub(super) fn own(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}

/// The first listener for tunnels.
pub(super) fn listener(gateway: &Gateway) -> Option<&Listener> {
    gateway.spec.listeners.iter().find(|listener| listener.protocol == HBONE)
}

/// Whom a network's gateway has to prove to be. As in Istio, where none is named it is that of the Gateway and its class.
fn account(key: &NamespacedName, gateway: &Gateway) -> String {
    let named = gateway.service_account().filter(|account| !account.is_empty());
    named.map_or_else(|| format!("{}-{}", key.name, gateway.spec.gateway_class_name), str::to_owned)
}

fn translate(key: &NamespacedName, gateway: &Gateway, own: &str, mesh: &Mesh) -> Result<NetworkGateway, Unusable> {
    let network = label(&gateway.metadata, labels::TOPOLOGY_NETWORK).filter(|network| !network.is_empty());
    let network = text(network.ok_or(Unusable::NoNetwork)?);
    if *network == *own {
        return Err(Unusable::Own(network));
    }
    let port = u16::try_from(listener(gateway).ok_or(Unusable::NoListener)?.port).map_err(|_| Unusable::NoListener)?;
    let address = &*gateway.spec.addresses.first().ok_or(Unusable::NoAddress)?.value;
    let account = account(key, gateway);
    SpiffeId::new(&mesh.trust_domain, &key.namespace, &account).map_err(|_| Unusable::Account(account.clone()))?;
    let ip = address.parse::<IpAddr>().ok().map(canonical_ip);
    let destination = match ip {
        Some(ip) => GatewayDestination::Address(NetworkAddress { network: network.clone(), ip }),
        None => GatewayDestination::Hostname(NamespacedName::new(key.namespace.clone(), address)),
    };
    let workload = Workload {
        namespace: key.namespace.clone(),
        addresses: ip.into_iter().collect(),
        hostname: if ip.is_none() { text(address) } else { text("") },
        trust_domain: mesh.trust_domain.clone(),
        service_account: text(&account),
        network: network.clone(),
        ..Workload::empty(format!("NetworkGateway/{network}/{address}/{port}"))
    };
    let address = GatewayAddress { destination, hbone_mtls_port: port }.shared();
    Ok(NetworkGateway { source: key.clone(), address, workload: Arc::new(workload) })
}

#[cfg(test)]
mod tests;
