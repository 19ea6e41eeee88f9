//! The node's own rules: probes of the kubelet reach pods from an address that their rules let pass ztunnel, to the ports
//! that the kubelet dials.
//!
//! Without them STRICT mutual TLS would make every probe fail. nftables cannot ask "is this a local process", so the
//! rules match the user the kubelet runs as, and only towards enrolled pods of this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use mesh_netlink::nftables::{Base, ChainType, End, Hook, Nftables, Rule, Set, Transaction, Transport, priority};
use tokio::sync::Mutex;

use crate::netns::Netns;
use crate::redirect::rules::{PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, Table};

const CHAIN: &str = "postrouting";
const SET_V4: Set = Set { table: Table::Nat.name(), name: "istio-inpod-probes-v4", v6: false };
const SET_V6: Set = Set { table: Table::Nat.name(), name: "istio-inpod-probes-v6", v6: true };

/// Why the node's rules could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} for the kubelet's probes (CAP_NET_ADMIN in the node's network namespace is needed): {source}")]
pub struct ProbeError {
    what: &'static str,
    source: mesh_netlink::Error,
}

/// The rules and sets in the node's namespace.
pub struct Probes {
    netns: Netns,
    /// Whose address it is: a new pod may have an old one's address before the old one is let go.
    owners: Mutex<HashMap<IpAddr, String>>,
}

impl Probes {
    /// Makes the table anew, with empty sets, in the node's namespace. `uid` is the user the kubelet runs as.
    pub async fn install(netns: Netns, uid: u32) -> Result<Self, ProbeError> {
        let table = Table::Nat.name();
        let base = Base { kind: ChainType::Nat, hook: Hook::Postrouting, priority: priority::SRCNAT };
        let transaction = Transaction::new()
            .remove_table(table)
            .add_table(table)
            .add_set(SET_V4)
            .add_set(SET_V6)
            .add_base_chain(table, CHAIN, base)
            .add_rule(table, CHAIN, &rule(uid, SET_V4, PROBE_ADDRESS_V4.into()))
            .add_rule(table, CHAIN, &rule(uid, SET_V6, PROBE_ADDRESS_V6.into()));
        let done = connect(&netns)?.commit(transaction);
        done.map_err(|source| ProbeError { what: "install the rules", source })?;
        Ok(Self { netns, owners: Mutex::default() })
    }

    /// Takes the table out of the node's namespace.
    pub async fn uninstall(&self) -> Result<(), ProbeError> {
        self.owners.lock().await.clear();
        let done = connect(&self.netns)?.commit(Transaction::new().remove_table(Table::Nat.name()));
        done.map_err(|source| ProbeError { what: "remove the rules", source })
    }

    /// Lets probes of these addresses pass. An address that another pod had is this pod's from now on.
    pub async fn add(&self, uid: &str, addresses: &[IpAddr]) -> Result<(), ProbeError> {
        let mut owners = self.owners.lock().await;
        let filter = connect(&self.netns)?;
        for address in addresses {
            if !owners.contains_key(address) {
                change(Transaction::new().add_element(set(*address), *address, uid), &filter)?;
            }
            owners.insert(*address, uid.to_owned());
        }
        Ok(())
    }

    /// Takes these addresses out, as far as they are still this pod's.
    pub async fn remove(&self, uid: &str, addresses: &[IpAddr]) -> Result<(), ProbeError> {
        let mut owners = self.owners.lock().await;
        let filter = connect(&self.netns)?;
        for address in addresses {
            if owners.get(address).is_some_and(|owner| owner == uid) {
                change(Transaction::new().remove_element(set(*address), *address), &filter)?;
                owners.remove(address);
            }
        }
        Ok(())
    }
}

fn connect(netns: &Netns) -> Result<Nftables, ProbeError> {
    Nftables::open_in(netns.as_fd()).map_err(|source| ProbeError { what: "reach the kernel", source })
}

fn change(transaction: Transaction, filter: &Nftables) -> Result<(), ProbeError> {
    match filter.commit(transaction) {
        // Someone else did it: fine.
        Err(error) if error.is_already_exists() || error.is_not_found() => Ok(()),
        done => done.map_err(|source| ProbeError { what: "change the set of pods", source }),
    }
}

fn set(address: IpAddr) -> Set {
    if address.is_ipv4() { SET_V4 } else { SET_V6 }
}

/// `meta l4proto tcp meta skuid UID ip daddr @SET counter snat to ADDRESS`
fn rule(uid: u32, set: Set, to: IpAddr) -> Rule {
    Rule::new().transport(Transport::Tcp).user(uid).address_in(End::Destination, set).counter().snat(to)
}
