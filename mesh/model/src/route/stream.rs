//! Which rule a connection follows that is no HTTP: those of TCPRoutes and TLSRoutes.
//!
//! A rule of a TCPRoute is for every connection to its ports: of several, the oldest route's counts. Rules of TLSRoutes are for the
//! names that clients ask for (SNI); where there is one, no TCPRoute counts for the same callers and port, because it is the less
//! specific kind (GEP-1294). As of other kinds, routes of the caller's own namespace come before those of the service's.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::weighted::pick;
use super::{BackendTarget, ServiceRoutes, To};
use crate::address::NamespacedName;

/// The kinds of routes of what is no HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// `TCPRoute`.
    Tcp,
    /// `TLSRoute`.
    Tls,
}

/// The rule of a TCPRoute or TLSRoute: they have one each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRule {
    /// The route's kind.
    pub kind: StreamKind,
    /// The route.
    pub route: NamespacedName,
    /// The rule's `name`, else `rules[0]`.
    pub name: Arc<str>,
    /// The port that the route's parentRef names; `None` is every port.
    pub port: Option<u16>,
    /// It is a consumer route: only for callers of this namespace, before whom no producer route counts (GEP-1294).
    pub callers: Option<Arc<str>>,
    /// Of a TLSRoute: the names that it is for, in lower case, with `*.` as the first label for all below. Never empty. A TCPRoute has none.
    pub hostnames: BTreeSet<Arc<str>>,
    /// Where to, by weight.
    pub backends: Vec<StreamBackend>,
}

/// One of a rule's backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamBackend {
    /// Where to. The share of one that cannot be followed is refused (Gateway API).
    pub target: BackendTarget,
    /// Its share; 0 gets nothing.
    pub weight: u32,
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSelected {
    /// No route is attached for this port and caller: it goes to the service itself.
    NoRoutes,
    /// It follows this rule, whatever is spoken on it.
    Rule(Arc<StreamRule>),
    /// It follows the rule for the name that its client asks for.
    ByServerName(ServerNames),
}

/// The rules of TLSRoutes for one port and caller, older routes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames(Vec<Arc<StreamRule>>);

/// What a connection of a caller of namespace `caller` follows that comes to `port`. `rules` are those of the service, older routes
/// first.
pub fn select(rules: &[Arc<StreamRule>], caller: &str, port: u16) -> StreamSelected {
    let of = |callers: Option<&str>| {
        let at = rules.iter().filter(|rule| rule.port.is_none_or(|wanted| wanted == port));
        at.filter(|rule| rule.callers.as_deref() == callers).cloned().collect::<Vec<_>>()
    };
    let own = of(Some(caller));
    let mut counting = if own.is_empty() { of(None) } else { own };
    let Some(oldest) = counting.first().cloned() else { return StreamSelected::NoRoutes };
    counting.retain(|rule| rule.kind == StreamKind::Tls);
    if counting.is_empty() { StreamSelected::Rule(oldest) } else { StreamSelected::ByServerName(ServerNames(counting)) }
}

impl ServiceRoutes {
    /// Whether a connection of a caller of namespace `caller` to `port` is not to be looked into for HTTP, though nobody has declared
    /// what is spoken there: a TCPRoute or TLSRoute is attached for it, and no route of requests.
    pub fn is_stream(&self, caller: &str, port: u16) -> bool {
        let requests = self.rules.iter().any(|rule| {
            rule.port.is_none_or(|wanted| wanted == port) && rule.callers.as_deref().is_none_or(|of| of == caller)
        });
        !requests && select(&self.streams, caller, port) != StreamSelected::NoRoutes
    }
}

impl ServerNames {
    /// The rule for a name: the one that has it, else the one with the longest `*.` above it; of equal ones the oldest route's.
    pub fn find(&self, name: &str) -> Option<&Arc<StreamRule>> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let of = |wanted: &str| self.0.iter().find(|rule| rule.hostnames.contains(wanted));
        let above = || name.match_indices('.').find_map(|(dot, _)| of(&format!("*{}", &name[dot..])));
        of(name).or_else(above)
    }
}

impl StreamRule {
    /// The backend that a number stands for, by weight.
    ///
    /// # Errors
    /// When nobody takes the connection: says why.
    pub fn backend(&self, roll: u64) -> Result<To, String> {
        let Self { name, route, .. } = self;
        let none = |what: &str| format!("{name} of route {route} has no backend for the connection: {what}");
        let weights = self.backends.iter().map(|backend| backend.weight);
        let place = pick(weights, roll).ok_or_else(|| none("none is named, or all have a weight of 0"))?;
        match &self.backends[place].target {
            BackendTarget::Invalid(why) => Err(none(why)),
            target => To::of(target).ok_or_else(|| none("it names nothing that can be dialled")),
        }
    }
}

#[cfg(test)]
mod tests;
