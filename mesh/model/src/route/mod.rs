//! What a waypoint does with the requests for one service: what its YAML says, in one message, ready to be followed.

use std::sync::Arc;
use std::time::Duration;

use crate::access_log::AccessLogging;
use crate::address::NamespacedName;
use crate::rate_limit::RateLimit;
use crate::token::JwtRule;
use crate::trace::Tracing;
use crate::traffic::{PortTraffic, Subset};

mod compiled;
mod condition;
mod cors;
mod edit;
mod expression;
pub mod fault;
mod limited;
mod ordered;
mod path_edit;
pub mod plan;
mod redirect;
pub mod select;
pub mod stream;
mod table;
mod text_match;
mod weighted;
mod wire;

pub use expression::check as check_regex;
pub use fault::{Abort, Delay, Fault};
pub use plan::{Answer, Forward, Plan, To};
pub use select::{Matched, Router, Selected};
pub use stream::{StreamBackend, StreamKind, StreamRule, StreamSelected};
pub use text_match::{Condition, TextMatch};
pub use wire::{InvalidRoutes, InvalidRule};

/// Everything a waypoint knows of one service that is behind it (`ambit.v1.ServiceRoutes`). A waypoint serves only services
/// that it was told of in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRoutes {
    /// The service: `namespace/hostname`, as [`crate::service::Service::key`]. It is the resource's name, too.
    pub service: NamespacedName,
    /// What is spoken at the service's ports. What is spoken at a port that is not here is found out (sniffed).
    pub ports: Vec<PortProtocol>,
    /// The rules of all routes that name the service as their parent: older routes first, then by `namespace/name`; the rules
    /// of a route in its order. [`Rule::callers`] and [`Rule::port`] say for whom each is.
    pub rules: Vec<Rule>,
    /// The rules of TCPRoutes and TLSRoutes, in the same order.
    pub streams: Vec<Arc<StreamRule>>,
    /// The policies to judge requests by: `namespace/name` of `Authorization` resources that are for this waypoint. No others
    /// judge here. One that is named and not known denies.
    pub policies: Vec<NamespacedName>,
    /// How the endpoints of its ports are treated; of a port that is not here there is nothing to say.
    pub traffic: Vec<PortTraffic>,
    /// The tokens that its requests may have; of other issuers, or in other places, none is looked at.
    pub tokens: Arc<[JwtRule]>,
    /// What becomes of the traces of its requests. `None`: they pass as they are.
    pub tracing: Option<Arc<Tracing>>,
    /// Which of its requests have a line in the access log. `None`: all.
    pub access_logging: Option<Arc<AccessLogging>>,
    /// Parts of its endpoints, each with a name of its own.
    pub subsets: Vec<Arc<Subset>>,
    /// How many of its requests pass: those of its waypoint, its own, and those of its routes. Each counts.
    pub rate_limits: Arc<[RateLimit]>,
}

impl ServiceRoutes {
    /// The name of what a waypoint is told of connections to the addresses of workloads that are behind it: the same for all of
    /// them, and the name of no service, since no host has such a one.
    pub fn of_workloads(waypoint: &NamespacedName) -> NamespacedName {
        NamespacedName::new(waypoint.namespace.clone(), format!("_workloads.{}", waypoint.name))
    }

    /// Of a service of which there is nothing to say but that it is behind the waypoint.
    pub fn nothing(service: NamespacedName) -> Self {
        Self {
            service,
            ports: Vec::new(),
            rules: Vec::new(),
            streams: Vec::new(),
            policies: Vec::new(),
            traffic: Vec::new(),
            tokens: Arc::default(),
            tracing: None,
            access_logging: None,
            subsets: Vec::new(),
            rate_limits: Arc::default(),
        }
    }
}

/// What is spoken at a port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortProtocol {
    /// The service's port.
    pub port: u16,
    /// What its `appProtocol`, else its name says.
    pub protocol: Protocol,
}

/// What is spoken at a port: `appProtocol` first, then the port's name, as Istio reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `http`: HTTP/1.1 to endpoints; callers may speak HTTP/2.
    Http,
    /// `http2`, `kubernetes.io/h2c`: HTTP/2 without TLS to endpoints.
    Http2,
    /// `grpc`: as [`Protocol::Http2`].
    Grpc,
    /// `kubernetes.io/ws`: HTTP/1.1 with upgrades.
    WebSocket,
    /// `tcp`, `mongo`, `redis`, `mysql` and other names of what is no HTTP: carried, never looked into.
    Tcp,
    /// `tls`, `https`: carried, never looked into.
    Tls,
}

/// The kinds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// `HTTPRoute`.
    Http,
    /// `GRPCRoute`.
    Grpc,
    /// Istio's `VirtualService`: the first rule that matches counts. Where it is, no other kind is for the same callers.
    VirtualService,
}

/// One rule of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The route's kind.
    pub kind: RouteKind,
    /// The route.
    pub route: NamespacedName,
    /// The rule's `name`, else `rules[2]`: with [`Rule::route`], what logs and refusals say.
    pub name: Arc<str>,
    /// The port that the route's parentRef names; `None` is every port.
    pub port: Option<u16>,
    /// It is a consumer route: only for callers of this namespace, before whom no producer route counts (GEP-1294).
    pub callers: Option<Arc<str>>,
    /// Any of them. Never empty: a rule without matches has one that matches everything.
    pub matches: Vec<RequestMatch>,
    /// In the order of the object.
    pub filters: Vec<Filter>,
    /// Where to, by weight. Empty with a redirect, else a request is answered by 500.
    pub backends: Vec<Backend>,
    /// All that a request may take, `timeouts.request`. `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// What one try may take, `timeouts.backendRequest`. `None`: no limit.
    pub backend_timeout: Option<Duration>,
    /// `retry`.
    pub retry: Option<Retry>,
    /// What is done to some requests on purpose.
    pub fault: Option<Fault>,
}

impl Rule {
    /// The services to which it sends requests or copies of them, as often as it names them.
    pub fn services(&self) -> impl Iterator<Item = &NamespacedName> {
        let own = self.filters.iter().chain(self.backends.iter().flat_map(|backend| &backend.filters));
        let mirrors = own.filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mirror.backend),
            _ => None,
        });
        let targets = self.backends.iter().map(|backend| &backend.target).chain(mirrors);
        targets.filter_map(|target| match target {
            BackendTarget::Service(service, _) | BackendTarget::Subset(service, ..) => Some(service),
            BackendTarget::Invalid(_) => None,
        })
    }
}

/// All that are set (HTTPRouteMatch, GRPCRouteMatch). With none set it matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RequestMatch {
    /// The path. A GRPCRoute's method is one: `/service/method`, `/service/` as a prefix, or a regular expression.
    pub path: Option<PathMatch>,
    /// The method, exactly.
    pub method: Option<Arc<str>>,
    /// All of them. Names in lower case.
    pub headers: Vec<ValueMatch>,
    /// All of them; the first value of a name counts. Names as written.
    pub query: Vec<ValueMatch>,
    /// All of them; only of a [`RouteKind::VirtualService`].
    pub conditions: Vec<Condition>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// By whole elements: `/a` matches `/a` and `/a/b`, not `/ab`. Without a last slash, but for `/`.
    Prefix(Arc<str>),
    /// Begins with, whatever follows: a GRPCRoute's service, and a VirtualService's `prefix`.
    Beginning(Arc<str>),
    /// The whole path, by a regular expression.
    Regex(Arc<str>),
    /// The whole path, in whichever case (`ignoreUriCase`).
    ExactAnyCase(Arc<str>),
    /// Begins with, in whichever case.
    BeginningAnyCase(Arc<str>),
}

/// How a header or query parameter is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueMatch {
    /// Its name.
    pub name: Arc<str>,
    /// Its value, or a regular expression of all of it.
    pub value: Arc<str>,
    /// `value` is a regular expression.
    pub regex: bool,
}

/// What is done to a request or its answer on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderEdit),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderEdit),
    /// `RequestRedirect`: the waypoint answers.
    Redirect(Redirect),
    /// `URLRewrite`.
    Rewrite(Rewrite),
    /// `RequestMirror`.
    Mirror(Mirror),
    /// `CORS`.
    Cors(Cors),
}

/// HTTPHeaderFilter. Names in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HeaderEdit {
    /// Overwritten.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Added to what is there.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Taken away.
    pub remove: Vec<Arc<str>>,
}

/// HTTPRequestRedirectFilter. What is not set stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathEdit>,
    /// The port; not set, it is the scheme's where `scheme` is set, else the port that was dialled (Gateway API).
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// HTTPURLRewriteFilter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The `Host` of the request.
    pub hostname: Option<Arc<str>>,
    /// Its path.
    pub path: Option<PathEdit>,
}

/// HTTPPathModifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// The whole path.
    Whole(Arc<str>),
    /// What the rule's match of [`PathMatch::Prefix`] matched.
    Prefix(Arc<str>),
    /// What the rule's match matched, as text (`rewrite.uri` of a VirtualService): of [`PathMatch::Beginning`] the beginning, of any
    /// other the whole path, without one the first slash.
    Matched(Arc<str>),
}

/// HTTPRequestMirrorFilter: a copy whose answer nobody gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub backend: BackendTarget,
    /// Of how many requests, in millionths.
    pub millionths: u32,
}

/// HTTPCORSFilter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cors {
    /// Origins, `*` or with one `*` in the host.
    pub allow_origins: Vec<Arc<str>>,
    /// Credentials may be sent.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<Arc<str>>,
    /// Headers, or `*`.
    pub allow_headers: Vec<Arc<str>>,
    /// Headers that pages may read, or `*`.
    pub expose_headers: Vec<Arc<str>>,
    /// How long a browser may keep the answer, in seconds.
    pub max_age: u32,
}

/// One of a rule's backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where to.
    pub target: BackendTarget,
    /// Its share; 0 gets nothing.
    pub weight: u32,
    /// After those of the rule.
    pub filters: Vec<Filter>,
}

/// Where a backendRef points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A port of a service, by `namespace/hostname`.
    Service(NamespacedName, u16),
    /// The same, of some of its endpoints: [`ServiceRoutes::subsets`] of that service says which.
    Subset(NamespacedName, u16, Arc<str>),
    /// It cannot be followed, for this reason: its share of the requests is answered by 500 (Gateway API).
    Invalid(Arc<str>),
}

/// HTTPRouteRetry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Retry {
    /// Statuses of answers that are asked for again.
    pub codes: Vec<u16>,
    /// Statuses of gRPC calls that end with their headers: 1 to 16.
    pub grpc_codes: Vec<u8>,
    /// Tries after the first; 0 is none.
    pub attempts: u32,
    /// At least this long between two tries. `None`: 25 ms, as Envoy.
    pub backoff: Option<Duration>,
}

impl Retry {
    /// Whether an answer is asked for again: by its status, and what it says of a gRPC call.
    pub fn wants(&self, status: u16, grpc_status: Option<u8>) -> bool {
        self.codes.contains(&status) || grpc_status.is_some_and(|status| self.grpc_codes.contains(&status))
    }
}
