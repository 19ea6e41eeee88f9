//! How many requests a waypoint lets pass: what Ambit's TrafficPolicy says in `rateLimits`. Pure.
//!
//! | file | question |
//! |---|---|
//! | this one | what is limited, and what is counted apart? |
//! | [`bucket`] | is there a token, and when is there one again? |
//! | [`counts`] | the same of many keys, of which so many are known at once |
//! | [`service`] | what does Envoy's rate limit protocol ask, and what does the answer mean? |
//! | `wire` | the same ↔ `ambit.v1.RateLimit` |

pub mod bucket;
pub mod counts;
pub mod service;
pub(crate) mod wire;

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::address::NamespacedName;
use crate::identity::SpiffeId;

pub use wire::InvalidRateLimit;

/// Most requests of a limit, and most at once.
pub const MOST_REQUESTS: u32 = 1_000_000;
/// The shortest time that requests are counted in.
pub const SHORTEST_PER: Duration = Duration::from_millis(1);
/// The longest: what a waypoint has counted is gone when it ends, and another replica counts for itself. Longer times are for a
/// rate limit service.
pub const LONGEST_PER: Duration = Duration::from_secs(3600);

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The TrafficPolicy.
    pub policy: NamespacedName,
    /// Its `name` in the policy, else its place there: `local[0]`.
    pub name: Arc<str>,
    /// What the policy targets: what is sent to it is counted together.
    pub target: Target,
    /// Who counts.
    pub kind: Kind,
}

/// What a limit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// All that passes the waypoints of a Gateway, `namespace/name`.
    Gateway(NamespacedName),
    /// All that is sent to a service, `namespace/hostname`.
    Service(NamespacedName),
    /// What follows an HTTPRoute.
    HttpRoute(LimitedRoute),
    /// What follows a GRPCRoute.
    GrpcRoute(LimitedRoute),
}

/// A route, or a rule of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LimitedRoute {
    /// The route.
    pub route: NamespacedName,
    /// A rule of it; `None` is all of them.
    pub rule: Option<Arc<str>>,
}

/// Who counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The waypoint itself.
    Local(LocalRateLimit),
    /// A rate limit service.
    Global(Arc<GlobalRateLimit>),
}

/// A limit that a waypoint counts by itself: a token bucket, or one for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRateLimit {
    /// So many, 1 to [`MOST_REQUESTS`].
    pub requests: u32,
    /// In so long, [`SHORTEST_PER`] to [`LONGEST_PER`].
    pub per: Duration,
    /// So many at once after a rest, 1 to [`MOST_REQUESTS`].
    pub burst: u32,
    /// What is counted apart. `None`: all requests together.
    pub key: Option<LimitKey>,
}

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The identity that a caller has proven.
    CallerIdentity,
    /// The namespace in it.
    CallerNamespace,
    /// What a header says, in lower case. Requests without it are counted together: none gets around the limit so.
    Header(Arc<str>),
}

/// A limit that a rate limit service counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalRateLimit {
    /// Its service, `namespace/hostname`.
    pub service: NamespacedName,
    /// Its port.
    pub port: u16,
    /// What its configuration calls whom it counts for.
    pub domain: Arc<str>,
    /// How long it may take.
    pub timeout: Duration,
    /// A request about which it says nothing is refused; else it passes.
    pub deny_on_failure: bool,
    /// What it is told of a request.
    pub descriptors: Vec<Vec<Entry>>,
}

/// A part of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Arc<str>,
    /// What it says.
    pub value: EntryValue,
}

/// What a part of a descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryValue {
    /// The identity that the caller has proven, `spiffe://...`.
    CallerIdentity,
    /// The namespace in it.
    CallerNamespace,
    /// What a header says, in lower case.
    Header(Arc<str>),
    /// The route that the request follows, `namespace/name`.
    Route,
    /// This.
    Constant(Arc<str>),
}

/// A request, as far as limits look at it.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Who asks, proven.
    pub caller: &'a SpiffeId,
    /// Its headers, after those of its hop have ended.
    pub headers: &'a HeaderMap,
    /// The route that it follows.
    pub route: Option<&'a NamespacedName>,
}

impl LimitKey {
    /// What is counted apart of a request, as a hash has it: the same for the same, and no text is made.
    pub fn hash(&self, about: &About<'_>, state: &mut impl Hasher) {
        match self {
            Self::CallerIdentity => about.caller.hash(state),
            Self::CallerNamespace => about.caller.namespace().hash(state),
            Self::Header(name) => {
                for value in about.headers.get_all(&**name) {
                    value.as_bytes().hash(state);
                }
            }
        }
    }
}

impl EntryValue {
    /// What it says of a request; `None` where that has nothing of the kind.
    fn of<'a>(&'a self, about: &About<'a>) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::CallerIdentity => about.caller.to_string().into(),
            Self::CallerNamespace => (&**about.caller.namespace()).into(),
            Self::Header(name) => {
                let mut values = about.headers.get_all(&**name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
                let first = values.next()?;
                values.fold(first, |all, value| format!("{all},{value}").into())
            }
            Self::Route => about.route?.to_string().into(),
            Self::Constant(text) => (&**text).into(),
        })
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of TrafficPolicy {} for {}", self.name, self.policy, self.target)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, LimitedRoute { route, rule }) = match self {
            Self::Gateway(name) => return write!(f, "Gateway {name}"),
            Self::Service(name) => return write!(f, "Service {name}"),
            Self::HttpRoute(route) => ("HTTPRoute", route),
            Self::GrpcRoute(route) => ("GRPCRoute", route),
        };
        write!(f, "{kind} {route}")?;
        rule.as_ref().map_or(Ok(()), |rule| write!(f, " {rule}"))
    }
}

impl fmt::Display for LocalRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, per, burst, key } = self;
        write!(f, "{requests} requests per {per:?}, {burst} at once")?;
        match key {
            None => Ok(()),
            Some(LimitKey::CallerIdentity) => f.write_str(", for each caller's identity"),
            Some(LimitKey::CallerNamespace) => f.write_str(", for each caller's namespace"),
            Some(LimitKey::Header(name)) => write!(f, ", for each value of {name}"),
        }
    }
}

#[cfg(test)]
mod tests;
