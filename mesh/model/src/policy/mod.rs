//! Authorization policies and the one decision over them.
//!
//! The type here; [`http`] its conditions on requests; [`facts`] what is known about a connection or request; `matches` one
//! condition against the facts, `requests` those on requests, [`claims`] those on their tokens; [`mod@decide`] all policies → allow or
//! deny, with the reason; `set` finds among many those that a caller may be meant by; [`converted`] policies made of
//! PeerAuthentications.

mod action_wire;
pub mod claims;
pub mod converted;
pub mod decide;
pub mod facts;
pub mod http;
mod http_wire;
mod matches;
mod outcome;
mod requests;
mod set;
pub(crate) mod strings;
mod wire;

use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use crate::address::NamespacedName;
use crate::authorizer::Authorizer;

pub use claims::{ClaimCondition, RequestPrincipal};
pub use decide::{Decision, Reason, decide, decide_request};
pub use facts::{Facts, HttpFacts};
pub use outcome::Outcome;
pub use set::PolicySet;
pub use strings::StringMatch;
pub use wire::InvalidPolicy;

/// One policy (`istio.security.Authorization`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Object name.
    pub name: Arc<str>,
    /// Object namespace.
    pub namespace: Arc<str>,
    /// Which workloads it covers.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// Any of them; **none never matches** (so an allow policy without rules denies everybody it covers).
    pub rules: Vec<Rule>,
    /// Decided and logged, not enforced.
    pub dry_run: bool,
}

/// `istio.security.Scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every workload.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// Workloads that name it.
    WorkloadSelector,
}

/// `istio.security.Action`, and what waypoints know besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A match lets the connection in.
    Allow,
    /// A match keeps it out, whatever else allows it.
    Deny,
    /// A match is written down, and changes nothing.
    Audit,
    /// About a match somebody is asked, before all other policies; or nobody can be, for this reason, and it is kept out.
    Custom(Result<Arc<Authorizer>, Arc<str>>),
}

/// All of its clauses; **no clause always matches**.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// AND.
    pub clauses: Vec<Clause>,
}

/// Any of its matches; **no match is satisfied**.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Clause {
    /// OR.
    pub matches: Vec<Match>,
}

/// All fields that are set; **with none set it never matches**. Positive fields want one of their values,
/// `not_` fields want none of theirs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Match {
    /// Namespace of the peer's identity.
    pub namespaces: Vec<StringMatch>,
    /// None of these.
    pub not_namespaces: Vec<StringMatch>,
    /// The peer's SPIFFE id without `spiffe://`.
    pub principals: Vec<StringMatch>,
    /// None of these; satisfied by a peer without identity.
    pub not_principals: Vec<StringMatch>,
    /// Address of the TCP peer.
    pub source_ips: Vec<IpNet>,
    /// None of these.
    pub not_source_ips: Vec<IpNet>,
    /// Address the application is dialled at.
    pub destination_ips: Vec<IpNet>,
    /// None of these.
    pub not_destination_ips: Vec<IpNet>,
    /// Port the application is dialled at: the container's port.
    pub destination_ports: Vec<u16>,
    /// None of these.
    pub not_destination_ports: Vec<u16>,
    /// Namespace and service account of the peer's identity, whatever its trust domain.
    pub service_accounts: Vec<NamespacedName>,
    /// None of these.
    pub not_service_accounts: Vec<NamespacedName>,
    /// Conditions on a request, which only a waypoint can evaluate.
    pub http: Option<Arc<http::HttpMatch>>,
    /// It holds something this version cannot evaluate: the match is *unknown*, met in a deny policy, not met in
    /// an allow policy.
    pub unsupported: bool,
}

impl Match {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        static EMPTY: LazyLock<Match> = LazyLock::new(Match::default);
        *self == *EMPTY
    }
}

impl Policy {
    /// `namespace/name`.
    pub fn key(&self) -> NamespacedName {
        NamespacedName::new(self.namespace.clone(), self.name.clone())
    }
}

#[cfg(test)]
mod tests;
