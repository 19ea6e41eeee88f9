//! Install, check and remove a pod's rules over netlink.
//!
//! Everything in nftables happens in one transaction: a pod is redirected by all rules or by none, and applying again
//! replaces the set without a moment in between. Established connections keep the path they have; rules choose it for
//! new ones.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nlink::netlink::nftables as nft;
use nlink::netlink::types::route::{RouteScope, RouteType};
use nlink::{AddressFamily, Connection, Ipv4Route, Ipv6Route, Nftables, Route, RuleBuilder};

use super::rules::{self, Hook, INBOUND_MARK, MARK_MASK, ROUTING_RULE_PRIORITY, ROUTING_TABLE, Table};
use super::{Settings, lower};
use crate::netns;

/// The loopback interface: the first of every namespace.
const LOOPBACK: u32 = 1;

/// Why redirection could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Netlink could not be reached in the pod's namespace.
    #[error("cannot reach the kernel in the pod's network namespace (CAP_SYS_ADMIN is needed to enter it): {0}")]
    Enter(#[source] Box<nlink::Error>),
    /// The packet filter refused.
    #[error("cannot {what} (CAP_NET_ADMIN and nf_tables with nat, redirect, ct and inet support are needed): {source}")]
    Filter {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: Box<nlink::Error>,
    },
    /// Routing refused.
    #[error("cannot {what} (CAP_NET_ADMIN and policy routing are needed): {source}")]
    Routing {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: Box<nlink::Error>,
    },
    /// The namespace could not be looked into.
    #[error(transparent)]
    Netns(#[from] netns::NetnsError),
}

/// Puts the rules of these settings in place of whatever rules of ours there are: from now on the pod is captured.
pub async fn install(netns: BorrowedFd<'_>, settings: &Settings) -> Result<(), ApplyError> {
    put(netns, &rules::rules(settings)).await
}

/// Puts the rules in place by which ztunnel serves the pod, and none that redirect: in place of whatever rules of ours
/// there are, so a captured pod is captured no more. The chains that redirected stay, empty: without them the kernel would
/// forget where the connections lead that are open.
pub async fn install_serving(netns: BorrowedFd<'_>, settings: &Settings) -> Result<(), ApplyError> {
    put(netns, &rules::serving_rules(settings)).await
}

async fn put(netns: BorrowedFd<'_>, wanted: &[rules::Rule]) -> Result<(), ApplyError> {
    // Routing first: it does nothing until a packet is marked.
    let routing = connect_routing(netns)?;
    for family in families(netns)? {
        add_rule(&routing, family).await?;
        add_route(&routing, family).await?;
    }
    let filter = connect_filter(netns)?;
    let mut transaction = delete_tables(filter.transaction());
    for table in Table::ALL {
        transaction = transaction.add_table(table.name(), lower::FAMILY);
        for hook in Hook::ALL {
            transaction = add_chain(transaction, wanted, table, hook)
                .map_err(|error| filter_error("build the redirection rules")(error))?;
        }
    }
    transaction.commit(&filter).await.map_err(filter_error("install the redirection rules"))
}

/// Removes all rules of ours. That there are none is no failure.
pub async fn remove(netns: BorrowedFd<'_>) -> Result<(), ApplyError> {
    let filter = connect_filter(netns)?;
    delete_tables(filter.transaction()).commit(&filter).await.map_err(filter_error("remove the redirection rules"))?;
    let routing = connect_routing(netns)?;
    for family in families(netns)? {
        while routing.del_rule_if_exists(ip_rule(family)).await.map_err(routing_error("remove the ip rule"))? {}
        match family {
            Family::V4 => routing.del_route_if_exists(route_v4()).await,
            Family::V6 => routing.del_route_if_exists(route_v6()).await,
        }
        .map_err(routing_error("remove the local route"))?;
    }
    Ok(())
}

/// Whether any rules of ours redirect.
pub async fn redirects(netns: BorrowedFd<'_>) -> Result<bool, ApplyError> {
    match connect_filter(netns)?.list_rules(Table::Nat.name(), lower::FAMILY).await {
        Err(error) if error.is_not_found() => Ok(false),
        rules => {
            let rules = rules.map_err(filter_error("list rules"))?;
            Ok(rules.iter().any(|rule| Hook::ALL.iter().any(|hook| rule.chain == hook.chain())))
        }
    }
}

/// What of the rules of these settings is not in place, one line each; empty when the pod is captured as it should be.
pub async fn missing(netns: BorrowedFd<'_>, settings: &Settings) -> Result<Vec<String>, ApplyError> {
    let filter = connect_filter(netns)?;
    let wanted = rules::rules(settings);
    let mut missing = Vec::new();
    for table in Table::ALL {
        let name = table.name();
        let chains = match filter.list_chains_in(name, lower::FAMILY).await {
            Err(error) if error.is_not_found() => Vec::new(),
            chains => chains.map_err(filter_error("list chains"))?,
        };
        let present = match filter.list_rules(name, lower::FAMILY).await {
            Err(error) if error.is_not_found() => Vec::new(),
            present => present.map_err(filter_error("list rules"))?,
        };
        for hook in Hook::ALL {
            let base = nft::ChainKind::Base(lower::base_chain(table, hook));
            let is_base =
                |chain: &nft::ChainInfo| chain.name == hook.base_chain() && chain.kind() == Some(base.clone());
            if !chains.iter().any(is_base) {
                missing.push(format!("{name}: base chain {}", hook.base_chain()));
            }
            let lines_of = |chain: &str| -> Vec<String> {
                let of_chain = present.iter().filter(|rule| rule.chain == chain);
                of_chain.map(lower::text_of).collect()
            };
            let jump = format!("jump {}", hook.chain());
            if lines_of(hook.base_chain()) != [jump.as_str()] {
                missing.push(format!("{name}: {jump}"));
            }
            let of_hook = wanted.iter().filter(|rule| (rule.table, rule.hook) == (table, hook));
            let expected: Vec<String> = of_hook.map(rules::Rule::to_string).collect();
            let found = lines_of(hook.chain());
            if found != expected {
                let absent = expected.iter().find(|line| !found.contains(line));
                let what = absent.map_or("rules in another order, or more than ours", String::as_str);
                missing.push(format!("{name}: {}: {what}", hook.chain()));
            }
        }
    }
    missing.extend(missing_routing(netns).await?);
    Ok(missing)
}

async fn missing_routing(netns: BorrowedFd<'_>) -> Result<Vec<String>, ApplyError> {
    let routing = connect_routing(netns)?;
    let routes = routing.get_routes_for_table(ROUTING_TABLE).await.map_err(routing_error("list routes"))?;
    let mut missing = Vec::new();
    for family in families(netns)? {
        let rules = routing.get_rules_for_family(family.into()).await.map_err(routing_error("list ip rules"))?;
        let is_ours = |rule: &nlink::netlink::messages::RuleMessage| {
            rule.priority() == ROUTING_RULE_PRIORITY
                && rule.fwmark() == Some(INBOUND_MARK)
                && rule.fwmask() == Some(MARK_MASK)
                && rule.table_id() == ROUTING_TABLE
        };
        if !rules.iter().any(is_ours) {
            missing.push(format!("ip rule {family:?}: mark {INBOUND_MARK:#x} to table {ROUTING_TABLE}"));
        }
        let is_local = |route: &&nlink::netlink::messages::RouteMessage| {
            route.is_ipv4() == (family == Family::V4) && route.dst_len() == 0 && route.route_type() == RouteType::Local
        };
        if routes.iter().find(is_local).is_none() {
            missing.push(format!("ip route {family:?}: local default in table {ROUTING_TABLE}"));
        }
    }
    Ok(missing)
}

fn connect_filter(netns: BorrowedFd<'_>) -> Result<Connection<Nftables>, ApplyError> {
    Connection::<Nftables>::new_in(netns).map_err(|error| ApplyError::Enter(Box::new(error)))
}

fn connect_routing(netns: BorrowedFd<'_>) -> Result<Connection<Route>, ApplyError> {
    Connection::<Route>::new_in(netns).map_err(|error| ApplyError::Enter(Box::new(error)))
}

fn filter_error(what: &'static str) -> impl FnOnce(nlink::Error) -> ApplyError {
    move |source| ApplyError::Filter { what, source: Box::new(source) }
}

fn routing_error(what: &'static str) -> impl FnOnce(nlink::Error) -> ApplyError {
    move |source| ApplyError::Routing { what, source: Box::new(source) }
}

/// Deletes our tables whether or not they are there: each is first created if missing, so that the deletion always
/// finds it. (`NFT_MSG_DESTROYTABLE` says the same, but only since Linux 6.3.)
fn delete_tables(mut transaction: nft::Transaction) -> nft::Transaction {
    for table in Table::ALL {
        let attribute = lower::attribute(nft::NFTA_TABLE_NAME, &[table.name().as_bytes(), &[0]].concat());
        let create = u16::try_from(libc::NLM_F_CREATE).expect("netlink flags have 16 bits");
        transaction = transaction
            .raw(nft::RawMessage::new(nft::NFT_MSG_NEWTABLE, lower::FAMILY).flags(create).attrs(attribute))
            .del_table(table.name(), lower::FAMILY);
    }
    transaction
}

/// A hook's two chains: the base chain that jumps, and the one with the rules.
fn add_chain(
    mut transaction: nft::Transaction,
    wanted: &[rules::Rule],
    table: Table,
    hook: Hook,
) -> nlink::Result<nft::Transaction> {
    let name = table.name();
    let base = nft::Chain::new(name, hook.base_chain())?;
    transaction = transaction
        .add_chain(nft::Chain::new(name, hook.chain())?.family(lower::FAMILY))
        .add_chain(base.family(lower::FAMILY).base(lower::base_chain(table, hook)));
    for rule in wanted.iter().filter(|rule| (rule.table, rule.hook) == (table, hook)) {
        transaction =
            transaction.add_rule(nft::Rule::from_spec(name, hook.chain(), lower::rule(rule)).family(lower::FAMILY));
    }
    let jump = nft::Rule::new(name, hook.base_chain()).family(lower::FAMILY).try_jump(hook.chain())?;
    Ok(transaction.add_rule(jump))
}

/// A family of addresses with a routing of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::v4(),
            Family::V6 => Self::v6(),
        }
    }
}

/// The families whose routing is ours in this namespace: IPv6 unless its loopback has none.
fn families(netns: BorrowedFd<'_>) -> Result<Vec<Family>, ApplyError> {
    let disabled = netns::read_to_string(netns, Path::new("/proc/sys/net/ipv6/conf/lo/disable_ipv6"))?;
    // The file is absent when the kernel has no IPv6 at all.
    let no_ipv6 = disabled.map_or(true, |value| value.trim() != "0");
    Ok(if no_ipv6 { vec![Family::V4] } else { vec![Family::V4, Family::V6] })
}

fn ip_rule(family: Family) -> RuleBuilder {
    RuleBuilder::new(AddressFamily::from(family).as_u8())
        .priority(ROUTING_RULE_PRIORITY)
        .fwmark_mask(INBOUND_MARK, MARK_MASK)
        .table(ROUTING_TABLE)
}

async fn add_rule(routing: &Connection<Route>, family: Family) -> Result<(), ApplyError> {
    match routing.add_rule(ip_rule(family)).await {
        Err(error) if error.is_already_exists() => Ok(()),
        added => added.map_err(routing_error("add the ip rule")),
    }
}

async fn add_route(routing: &Connection<Route>, family: Family) -> Result<(), ApplyError> {
    match family {
        Family::V4 => routing.replace_route(route_v4()).await,
        Family::V6 => routing.replace_route(route_v6()).await,
    }
    .map_err(routing_error("add the local route"))
}

fn route_v4() -> Ipv4Route {
    Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0)
        .route_type(RouteType::Local)
        .scope(RouteScope::Host)
        .dev_index(LOOPBACK)
        .table(ROUTING_TABLE)
}

fn route_v6() -> Ipv6Route {
    Ipv6Route::from_addr(Ipv6Addr::UNSPECIFIED, 0).route_type(RouteType::Local).dev_index(LOOPBACK).table(ROUTING_TABLE)
}
