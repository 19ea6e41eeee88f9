//! The node's own rules: probes of the kubelet reach pods from an address that their rules let pass ztunnel.
//!
//! Without them STRICT mutual TLS would make every probe fail. nftables cannot ask "is this a local process", so the
//! rules match the user the kubelet runs as, and only towards enrolled pods of this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use nlink::netlink::nftables as nft;
use nlink::{Connection, Nftables};
use tokio::sync::Mutex;

use crate::netns::Netns;
use crate::redirect::rules::{PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, Table};

const FAMILY: nft::Family = nft::Family::Inet;
const CHAIN: &str = "postrouting";
const SET_V4: &str = "istio-inpod-probes-v4";
const SET_V6: &str = "istio-inpod-probes-v6";
const TCP: u8 = 6;

/// Why the node's rules could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} for the kubelet's probes (CAP_NET_ADMIN in the node's network namespace is needed): {source}")]
pub struct ProbeError {
    what: &'static str,
    source: Box<nlink::Error>,
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
        let filter = connect(&netns)?;
        let table = Table::Nat.name();
        let failed = |source| ProbeError { what: "install the rules", source: Box::new(source) };
        if filter.del_table_if_exists(table, FAMILY).await.map_err(failed)? {
            tracing::debug!("replacing the node's probe rules");
        }
        let chain = nft::Chain::new(table, CHAIN)
            .map_err(failed)?
            .family(FAMILY)
            .base(nft::BaseChain::nat(nft::NatHook::Postrouting, nft::Priority::SrcNat));
        filter
            .transaction()
            .add_table(table, FAMILY)
            .add_set(set(SET_V4))
            .add_set(set(SET_V6))
            .add_chain(chain)
            .add_rule(rule(uid, nft::Field::Ip4Daddr, SET_V4, PROBE_ADDRESS_V4.into()))
            .add_rule(rule(uid, nft::Field::Ip6Daddr, SET_V6, PROBE_ADDRESS_V6.into()))
            .commit(&filter)
            .await
            .map_err(failed)?;
        Ok(Self { netns, owners: Mutex::default() })
    }

    /// Lets probes of these addresses pass. An address that another pod had is this pod's from now on.
    pub async fn add(&self, uid: &str, addresses: &[IpAddr]) -> Result<(), ProbeError> {
        let mut owners = self.owners.lock().await;
        let filter = connect(&self.netns)?;
        for address in addresses {
            if !owners.contains_key(address) {
                let element = element(*address).with_comment(uid);
                change(filter.transaction().add_set_elements(&set(name(*address)), &[element]), &filter).await?;
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
                change(filter.transaction().del_set_elements(&set(name(*address)), &[element(*address)]), &filter)
                    .await?;
                owners.remove(address);
            }
        }
        Ok(())
    }
}

fn connect(netns: &Netns) -> Result<Connection<Nftables>, ProbeError> {
    Connection::<Nftables>::new_in(netns.as_fd())
        .map_err(|source| ProbeError { what: "reach the kernel", source: Box::new(source) })
}

async fn change(transaction: nft::Transaction, filter: &Connection<Nftables>) -> Result<(), ProbeError> {
    match transaction.commit(filter).await {
        // Someone else did it: fine.
        Err(error) if error.is_already_exists() || error.is_not_found() => Ok(()),
        done => done.map_err(|source| ProbeError { what: "change the set of pods", source: Box::new(source) }),
    }
}

fn set(name: &str) -> nft::Set {
    let key = if name == SET_V4 { nft::SetKeyType::Ipv4Addr } else { nft::SetKeyType::Ipv6Addr };
    nft::Set::new(Table::Nat.name(), name).family(FAMILY).key_type(key)
}

fn name(address: IpAddr) -> &'static str {
    if address.is_ipv4() { SET_V4 } else { SET_V6 }
}

fn element(address: IpAddr) -> nft::SetElement {
    match address {
        IpAddr::V4(address) => nft::SetElement::ipv4(address),
        IpAddr::V6(address) => nft::SetElement::ipv6(address),
    }
}

/// `meta l4proto tcp meta skuid UID ip daddr @SET counter snat to ADDRESS`
fn rule(uid: u32, destination: nft::Field, set: &str, to: IpAddr) -> nft::Rule {
    let register = nft::Register::R0;
    let spec = nft::RuleSpec::new()
        .then(nft::Match::eq(nft::Field::L4Proto, TCP))
        .then(nft::Expr::Meta { dreg: register, key: nft::MetaKey::SkUid })
        .then(nft::Expr::Cmp { sreg: register, op: nft::CmpOp::Eq, data: uid.to_ne_bytes().to_vec() })
        .then(nft::Match::eq(destination, nft::Value::set(set)))
        .then(nft::Stmt::Counter)
        .then(nft::Stmt::Nat(nft::NatStatement::snat(to)));
    nft::Rule::from_spec(Table::Nat.name(), CHAIN, spec).family(FAMILY)
}
