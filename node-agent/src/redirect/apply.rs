//! Install, check and remove a pod's rules over netlink.
//!
//! Everything in nftables happens in one transaction: a pod is redirected by all rules or by none, and applying again
//! replaces the set without a moment in between. Established connections keep the path they have; rules choose it for
//! new ones.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use mesh_netlink::nftables::{Nftables, Rule, RuleDump, Transaction};
use mesh_netlink::routing::{Family, LOOPBACK, MarkRule, Route, Routing};

use super::rules::{self, Hook, INBOUND_MARK, MARK_MASK, ROUTING_RULE_PRIORITY, ROUTING_TABLE, Table};
use super::{Settings, lower};
use crate::netns;

/// Why redirection could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Netlink could not be reached in the pod's namespace.
    #[error("cannot reach the kernel in the pod's network namespace: {0}")]
    Enter(#[source] mesh_netlink::Error),
    /// The packet filter refused.
    #[error("cannot {what} (CAP_NET_ADMIN and nf_tables with nat, redirect, ct and inet support are needed): {source}")]
    Filter {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: mesh_netlink::Error,
    },
    /// Routing refused.
    #[error("cannot {what} (CAP_NET_ADMIN and policy routing are needed): {source}")]
    Routing {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: mesh_netlink::Error,
    },
    /// The namespace could not be looked into.
    #[error(transparent)]
    Netns(#[from] netns::NetnsError),
    /// There is no descriptor or no thread to work with.
    #[error("cannot work in the pod's network namespace: {0}")]
    Work(#[source] std::io::Error),
}

/// Puts the rules of these settings in place of whatever rules of ours there are: from now on the pod is captured.
pub async fn install(netns: BorrowedFd<'_>, settings: &Settings) -> Result<(), ApplyError> {
    let wanted = rules::rules(settings);
    blocking(netns, move |netns| put(netns, &wanted)).await
}

/// Puts the rules in place by which ztunnel serves the pod, and none that redirect: in place of whatever rules of ours
/// there are, so a captured pod is captured no more. The chains that redirected stay, empty: without them the kernel would
/// forget where the connections lead that are open.
pub async fn install_serving(netns: BorrowedFd<'_>, settings: &Settings) -> Result<(), ApplyError> {
    let wanted = rules::serving_rules(settings);
    blocking(netns, move |netns| put(netns, &wanted)).await
}

/// Removes all rules of ours. That there are none is no failure.
pub async fn remove(netns: BorrowedFd<'_>) -> Result<(), ApplyError> {
    blocking(netns, take_away).await
}

/// Whether any rules of ours redirect.
pub async fn redirects(netns: BorrowedFd<'_>) -> Result<bool, ApplyError> {
    blocking(netns, |netns| {
        let present = filter(netns)?.rules(Table::Nat.name()).map_err(filter_error("list rules"))?;
        Ok(present.iter().any(|rule| Hook::ALL.iter().any(|hook| rule.chain == hook.chain())))
    })
    .await
}

/// What of the rules of these settings is not in place, one line each; empty when the pod is captured as it should be.
pub async fn missing(netns: BorrowedFd<'_>, settings: &Settings) -> Result<Vec<String>, ApplyError> {
    let wanted = rules::rules(settings);
    blocking(netns, move |netns| {
        let mut missing = missing_filter(netns, &wanted)?;
        missing.extend(missing_routing(netns)?);
        Ok(missing)
    })
    .await
}

/// Runs what speaks with the kernel where it holds nobody up: a large change can take it milliseconds.
async fn blocking<T: Send + 'static>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T, ApplyError> + Send + 'static,
) -> Result<T, ApplyError> {
    let netns = netns.try_clone_to_owned().map_err(ApplyError::Work)?;
    let done = tokio::task::spawn_blocking(move || work(netns.as_fd())).await;
    done.map_err(|error| ApplyError::Work(std::io::Error::other(error)))?
}

fn put(netns: BorrowedFd<'_>, wanted: &[rules::Rule]) -> Result<(), ApplyError> {
    // Routing first: it does nothing until a packet is marked.
    let routing = routing(netns)?;
    for family in families(netns)? {
        routing.add_rule(&mark_rule(family)).map_err(routing_error("add the ip rule"))?;
        routing.replace_route(&local_route(family)).map_err(routing_error("add the local route"))?;
    }
    let mut transaction = remove_tables(Transaction::new());
    for table in Table::ALL {
        transaction = transaction.add_table(table.name());
        for hook in Hook::ALL {
            transaction = add_chains(transaction, wanted, table, hook);
        }
    }
    filter(netns)?.commit(transaction).map_err(filter_error("install the redirection rules"))
}

fn take_away(netns: BorrowedFd<'_>) -> Result<(), ApplyError> {
    let removed = filter(netns)?.commit(remove_tables(Transaction::new()));
    removed.map_err(filter_error("remove the redirection rules"))?;
    let routing = routing(netns)?;
    for family in families(netns)? {
        while routing.remove_rule(&mark_rule(family)).map_err(routing_error("remove the ip rule"))? {}
        routing.remove_route(&local_route(family)).map_err(routing_error("remove the local route"))?;
    }
    Ok(())
}

fn missing_filter(netns: BorrowedFd<'_>, wanted: &[rules::Rule]) -> Result<Vec<String>, ApplyError> {
    let filter = filter(netns)?;
    let mut missing = Vec::new();
    for table in Table::ALL {
        let name = table.name();
        let chains = filter.base_chains(name).map_err(filter_error("list chains"))?;
        let present = filter.rules(name).map_err(filter_error("list rules"))?;
        let of_chain = |chain: &str| -> Vec<&RuleDump> { present.iter().filter(|rule| rule.chain == chain).collect() };
        for hook in Hook::ALL {
            let base = Some(lower::base_chain(table, hook));
            if !chains.iter().any(|chain| chain.name == hook.base_chain() && chain.base == base) {
                missing.push(format!("{name}: base chain {}", hook.base_chain()));
            }
            let jump = Rule::new().jump(hook.chain());
            if !matches!(of_chain(hook.base_chain())[..], [only] if does(only, &jump)) {
                missing.push(format!("{name}: jump {}", hook.chain()));
            }
            let expected: Vec<_> = wanted.iter().filter(|rule| (rule.table, rule.hook) == (table, hook)).collect();
            let found = of_chain(hook.chain());
            let whole = found.len() == expected.len()
                && expected.iter().zip(&found).all(|(rule, found)| does(found, &lower::rule(rule)));
            if !whole {
                let absent = expected.iter().find(|rule| {
                    let rule = lower::rule(rule);
                    !found.iter().any(|found| does(found, &rule))
                });
                let what = absent.map_or("rules in another order, or more than ours".to_owned(), ToString::to_string);
                missing.push(format!("{name}: {}: {what}", hook.chain()));
            }
        }
    }
    Ok(missing)
}

/// Whether a rule that there is does what this one does.
fn does(found: &RuleDump, rule: &Rule) -> bool {
    found.expressions.iter().map(Option::as_ref).eq(rule.expressions().iter().map(Some))
}

fn missing_routing(netns: BorrowedFd<'_>) -> Result<Vec<String>, ApplyError> {
    let routing = routing(netns)?;
    let mut missing = Vec::new();
    for family in families(netns)? {
        let rules = routing.mark_rules(family).map_err(routing_error("list ip rules"))?;
        if !rules.contains(&mark_rule(family)) {
            missing.push(format!("ip rule {family:?}: mark {INBOUND_MARK:#x} to table {ROUTING_TABLE}"));
        }
        let routes = routing.routes(family, ROUTING_TABLE).map_err(routing_error("list routes"))?;
        if !routes.iter().any(|route| route.to == local_route(family).to && route.local) {
            missing.push(format!("ip route {family:?}: local default in table {ROUTING_TABLE}"));
        }
    }
    Ok(missing)
}

fn filter(netns: BorrowedFd<'_>) -> Result<Nftables, ApplyError> {
    Nftables::open_in(netns).map_err(ApplyError::Enter)
}

fn routing(netns: BorrowedFd<'_>) -> Result<Routing, ApplyError> {
    Routing::open_in(netns).map_err(ApplyError::Enter)
}

fn filter_error(what: &'static str) -> impl FnOnce(mesh_netlink::Error) -> ApplyError {
    move |source| ApplyError::Filter { what, source }
}

fn routing_error(what: &'static str) -> impl FnOnce(mesh_netlink::Error) -> ApplyError {
    move |source| ApplyError::Routing { what, source }
}

fn remove_tables(transaction: Transaction) -> Transaction {
    Table::ALL.into_iter().fold(transaction, |transaction, table| transaction.remove_table(table.name()))
}

/// A hook's two chains: the one with the rules, and the base chain that jumps to it.
fn add_chains(mut transaction: Transaction, wanted: &[rules::Rule], table: Table, hook: Hook) -> Transaction {
    let name = table.name();
    transaction = transaction.add_chain(name, hook.chain());
    transaction = transaction.add_base_chain(name, hook.base_chain(), lower::base_chain(table, hook));
    for rule in wanted.iter().filter(|rule| (rule.table, rule.hook) == (table, hook)) {
        transaction = transaction.add_rule(name, hook.chain(), &lower::rule(rule));
    }
    transaction.add_rule(name, hook.base_chain(), &Rule::new().jump(hook.chain()))
}

/// The families whose routing is ours in this namespace: IPv6 unless its loopback has none.
fn families(netns: BorrowedFd<'_>) -> Result<Vec<Family>, ApplyError> {
    let disabled = netns::read_to_string(netns, Path::new("/proc/sys/net/ipv6/conf/lo/disable_ipv6"))?;
    // The file is absent when the kernel has no IPv6 at all.
    let no_ipv6 = disabled.map_or(true, |value| value.trim() != "0");
    Ok(if no_ipv6 { vec![Family::V4] } else { vec![Family::V4, Family::V6] })
}

fn mark_rule(family: Family) -> MarkRule {
    MarkRule { family, priority: ROUTING_RULE_PRIORITY, mark: INBOUND_MARK, mask: MARK_MASK, table: ROUTING_TABLE }
}

fn local_route(family: Family) -> Route {
    Route::everything_local(family, LOOPBACK, ROUTING_TABLE)
}
