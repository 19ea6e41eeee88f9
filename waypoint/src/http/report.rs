//! The report of each request: a line of the access log when its answer has ended, and counters.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use mesh_model::access_log::{AccessLogging, SeenRequest};
use mesh_model::address::NamespacedName;
use mesh_model::authorizer::verdict::Edit;
use mesh_model::policy::Decision;
use mesh_model::reason::ReasonCode;
use mesh_model::route::Rule;
use mesh_model::token::find::Place;
use mesh_model::token::{JwtRule, hand_on};
use mesh_model::workload::Workload;
use mesh_proxy::report::audited;
use mesh_runtime::access_log::{Direction, Entry, Event, Peer, Request as Asked};
use mesh_runtime::metrics::Measured;
use tokio::time::Instant;

use super::caller::Caller;
use super::counted::{Ended, count};
use super::grpc::is_grpc;
use super::logging::Logging;
use super::trace::{Told, Trace};
use crate::body::{TimedOut, Watch};

/// The report of one request. One that is dropped before its end says that its caller is gone.
pub(crate) struct Report {
    caller: Rc<Caller>,
    /// When it came.
    pub(crate) started: Instant,
    method: Method,
    uri: Uri,
    /// The header, where the URI names no authority.
    host: Option<HeaderValue>,
    version: Version,
    /// Bytes of the request's body that have passed.
    pub(crate) received: Rc<Cell<u64>>,
    sent: u64,
    status: StatusCode,
    /// The route and rule that it follows.
    pub(crate) route: Option<Followed>,
    /// The policy that decided.
    policy: Option<NamespacedName>,
    /// The audit policies that match it.
    audited: Vec<NamespacedName>,
    /// What authorizers want its answer to say besides.
    pub(crate) told: Vec<Edit>,
    endpoint: Option<(SocketAddr, Option<Arc<Workload>>)>,
    code: Option<ReasonCode>,
    why: Option<Box<str>>,
    /// It had to wait so long on purpose, and what the log says of it.
    delay: Option<Box<(Duration, String)>>,
    grpc: bool,
    /// What the endpoint said of a gRPC call.
    grpc_status: Option<u8>,
    /// Where its service's requests are traced.
    pub(crate) trace: Option<Box<Trace>>,
    /// Where not all of its service's requests are logged.
    logging: Option<Box<Logging>>,
    /// Its caller was given a status.
    answered: bool,
    ended: bool,
}

impl Report {
    /// Of a request that has just come.
    pub(crate) fn new(caller: &Rc<Caller>, method: &Method, uri: &Uri, headers: &HeaderMap, version: Version) -> Self {
        Self {
            caller: caller.clone(),
            started: Instant::now(),
            method: method.clone(),
            // Both are shared with the request, not copied.
            uri: uri.clone(),
            host: if uri.authority().is_none() { headers.get(HOST).cloned() } else { None },
            version,
            received: Rc::default(),
            sent: 0,
            status: StatusCode::OK,
            route: None,
            policy: None,
            audited: Vec::new(),
            told: Vec::new(),
            endpoint: None,
            code: None,
            why: None,
            delay: None,
            grpc: is_grpc(headers),
            grpc_status: None,
            trace: None,
            logging: None,
            answered: false,
            ended: false,
        }
    }

    /// Takes what policies say of it, and says which would have matched that are only tried (`istio.io/dry-run`).
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.policy = decision.reason.policy().cloned();
        self.audited.extend_from_slice(&decision.audited);
        for policy in &decision.dry_run {
            let (identity, service) = (&self.caller.identity, &self.caller.target.service.hostname);
            let (method, path) = (&self.method, self.uri.path());
            tracing::info!(%policy, %identity, %service, %method, path, "dry-run policy would have matched");
        }
    }

    /// Which of its service's requests are logged, and the headers that it came with.
    pub(crate) fn logged_by(&mut self, settings: &Arc<AccessLogging>, headers: &HeaderMap) {
        self.logging = Some(Box::new(Logging::new(settings, headers)));
    }

    /// It is a copy of a request, and logged as that is.
    pub(crate) fn logged_as(&mut self, original: &Self) {
        self.logging.clone_from(&original.logging);
    }

    /// A TrafficPolicy decided.
    pub(crate) fn limited(&mut self, policy: &NamespacedName) {
        self.policy = Some(policy.clone());
    }

    /// Takes tokens that these rules read from the query out of what is logged.
    pub(crate) fn conceal(&mut self, rules: &[JwtRule]) {
        let Some(mut target) = self.uri.path_and_query().cloned() else { return };
        for name in rules.iter().flat_map(|rule| &rule.params) {
            let place = Place::Param(name.clone());
            if let Some(without) = hand_on::remove(&place, &mut HeaderMap::new(), &target) {
                target = without;
            }
        }
        if Some(&target) != self.uri.path_and_query() {
            let mut parts = self.uri.clone().into_parts();
            parts.path_and_query = Some(target.clone());
            self.uri = Uri::from_parts(parts).unwrap_or_else(|_| target.into());
        }
    }

    /// Of what is nobody's request: it is not reported.
    pub(crate) fn silent(mut self) -> Self {
        self.ended = true;
        self
    }

    /// The endpoint that it was sent to.
    pub(crate) fn sent_to(&mut self, address: SocketAddr, workload: Option<&Arc<Workload>>) {
        self.endpoint = Some((address, workload.cloned()));
    }

    /// What the caller is answered.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status;
        self.answered = true;
        self.grpc_told(headers);
    }

    /// gRPC says how a call ended in trailers, or in headers where there is nothing else.
    fn grpc_told(&mut self, headers: &HeaderMap) {
        if self.grpc
            && let Some(status) = headers.get("grpc-status")
        {
            self.grpc_status = status.to_str().ok().and_then(|status| status.parse().ok());
        }
    }

    /// It was not answered as its endpoint would have it.
    pub(crate) fn failed(&mut self, code: ReasonCode, why: impl Display) {
        self.code = Some(code);
        self.why = Some(why.to_string().into());
    }

    /// It had to wait on purpose.
    pub(crate) fn delayed(&mut self, length: Duration, why: String) {
        self.delay = Some(Box::new((length, why)));
    }

    /// When it came, without what it had to wait on purpose: a route's limits count from then.
    pub(crate) fn routed(&self) -> Instant {
        self.started + self.delay.as_ref().map_or(Duration::ZERO, |delay| delay.0)
    }

    /// It became something else, which has carried so much and ended.
    pub(crate) fn carried(mut self, forth: u64, back: u64) {
        self.received.set(self.received.get() + forth);
        self.sent += back;
        self.end();
    }

    /// It became something else, which broke.
    pub(crate) fn broken(mut self, error: &dyn Error) {
        self.failed(ReasonCode::ConnectionReset, error);
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let delayed = self.delay.take();
        if let Some(delay) = delayed.as_ref().filter(|_| self.code.is_none()) {
            self.failed(ReasonCode::FaultDelayed, &delay.1);
        }
        let caller = &self.caller;
        let host = || self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let telemetry = &caller.worker.context.proxy.telemetry;
        if let Some(code) = self.code {
            telemetry.reasons.count(Direction::Inbound, code);
        }
        let (to, workload) = match &self.endpoint {
            Some((address, workload)) => (Some(*address), workload.as_ref()),
            None => (None, None),
        };
        let source = caller.workload.as_ref();
        let ended = Ended {
            grpc: self.grpc,
            code: self.status.as_u16(),
            grpc_status: self.grpc_status,
            flags: if delayed.is_some() { flags_of_delayed(self.code) } else { flags(self.code) },
        };
        let measured = Measured {
            duration: self.started.elapsed(),
            request_bytes: self.received.get(),
            response_bytes: self.sent,
        };
        let audited = audited(&self.audited);
        let (service, who) = (&caller.target.service, (source, &*caller.identity, &caller.counted));
        let traffic = || caller.traffic(to.unwrap_or(caller.target.dialled), workload);
        count(&caller.worker.context.requests, who, service, workload, (ended, &measured), traffic);
        let trace = self.trace.take();
        let trace_id = trace.as_ref().map(|trace| TraceId(trace.id()));
        let authority = self.uri.authority().map_or_else(host, |authority| authority.as_str());
        let path = self.uri.path_and_query().map_or("", |path| path.as_str());
        let protocol = match self.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let is_logged = self.logging.as_ref().is_none_or(|logging| {
            let request = SeenRequest {
                method: self.method.as_str(),
                path,
                host: authority,
                protocol,
                headers: &logging.headers,
                code: self.answered.then_some(ended.code),
                grpc_status: self.grpc_status,
                flags: ended.flags,
                received: measured.request_bytes,
                sent: measured.response_bytes,
                duration: measured.duration,
            };
            logging.logs(caller, to, request)
        });
        if is_logged {
            telemetry.access_log.record(&Entry {
                event: Event::Complete,
                src: Peer {
                    addr: Some(caller.from),
                    workload: source.map(|workload| &*workload.name),
                    namespace: Some(caller.identity.namespace()),
                    identity: Some(&*caller.identity),
                    cluster: source.map(|workload| &*workload.cluster),
                },
                dst: Peer {
                    addr: to,
                    workload: workload.map(|workload| &*workload.name),
                    namespace: workload.map(|workload| &*workload.namespace),
                    identity: None,
                    cluster: workload.map(|workload| &*workload.cluster),
                },
                hbone_addr: Some(&caller.target.dialled),
                service: caller.target.named().map(|service| &*service.hostname),
                direction: Some(Direction::Inbound),
                bytes_sent: Some(self.sent),
                bytes_recv: Some(self.received.get()),
                duration: Some(measured.duration),
                error: self.why.as_ref().map(|why| why as &dyn Display),
                request: Some(Asked {
                    method: self.method.as_str(),
                    path,
                    authority,
                    protocol,
                    status: self.status.as_u16(),
                    route: self.route.as_ref().map(|route| route as &dyn Display),
                }),
                policy: self.policy.as_ref().map(|policy| policy as &dyn Display),
                audit: audited.as_ref().map(|policies| policies as &dyn Display),
                reason: self.code.map(ReasonCode::as_str),
                trace: None,
                trace_id: trace_id.as_ref().map(|id| id as &dyn Display),
            });
        }
        let Some(trace) = trace else { return };
        let told = Told {
            method: self.method.as_str(),
            path: self.uri.path(),
            authority,
            protocol: match self.version {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
            status: ended.code,
            grpc_status: self.grpc_status,
            code: self.code,
            flags: ended.flags,
            route: self.route.as_ref().map(ToString::to_string),
            policy: self.policy.as_ref().map(ToString::to_string),
            received: measured.request_bytes,
            sent: measured.response_bytes,
            took: measured.duration,
        };
        if let Some(finished) = trace.end(caller, &told) {
            caller.worker.context.spans.hand_over(finished);
        }
    }
}

/// The id of a trace, as traces are looked for by.
struct TraceId(u128);

impl Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Watch for Report {
    fn passed(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_told(trailers);
    }

    fn ended(&mut self, error: Option<&(dyn Error + 'static)>) {
        match error {
            Some(error) if error.is::<TimedOut>() => self.failed(ReasonCode::RequestTimeout, error),
            Some(error) => self.failed(ReasonCode::UpstreamReset, error),
            None => {}
        }
        self.end();
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.ended && self.code.is_none() {
            self.failed(ReasonCode::CallerGone, "the caller took its request back before its answer had ended");
        }
        self.end();
    }
}

/// Envoy's words for how a request ended, which dashboards know.
fn flags(code: Option<ReasonCode>) -> &'static str {
    use ReasonCode as R;
    match code {
        None | Some(R::PolicyDenied | R::PolicyUnknown | R::TokenInvalid) => "-",
        Some(R::AuthorizerDenied | R::AuthorizerFailed) => "UAEX",
        Some(R::RateLimited) => "RL",
        Some(R::RateLimiterFailed) => "RLSE",
        Some(R::NoHealthyUpstream) => "UH",
        Some(R::NoRoute) => "NR",
        Some(R::FaultAborted) => "FI",
        Some(R::FaultDelayed) => "DI",
        Some(R::UpstreamOverflow | R::SourceOverloaded | R::NodeOverloaded) => "UO",
        Some(R::RequestTimeout) => "UT",
        Some(R::UpstreamReset) => "UC",
        Some(R::CallerGone) => "DC",
        Some(R::BadRequest) => "DPE",
        Some(_) => "UF",
    }
}

/// The same of a request that had to wait on purpose.
fn flags_of_delayed(code: Option<ReasonCode>) -> &'static str {
    match flags(code) {
        "FI" => "DI,FI",
        "UH" => "UH,DI",
        "UO" => "UO,DI",
        "UT" => "UT,DI",
        "UC" => "UC,DI",
        "UF" => "UF,DI",
        "DC" => "DC,DI",
        _ => "DI",
    }
}

/// The rule that a request follows, as logs and refusals name it.
pub(crate) struct Followed {
    route: NamespacedName,
    rule: Arc<str>,
    mirror: bool,
}

impl Followed {
    /// By the request itself.
    pub(crate) fn new(rule: &Rule) -> Self {
        Self { route: rule.route.clone(), rule: rule.name.clone(), mirror: false }
    }

    /// By a copy of it.
    pub(crate) fn by_mirror(rule: &Rule) -> Self {
        Self { mirror: true, ..Self::new(rule) }
    }
}

impl Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.route, self.rule, if self.mirror { " (mirror)" } else { "" })
    }
}

/// Counts the bytes of a request's body.
pub(crate) struct Received(pub(crate) Rc<Cell<u64>>);

impl Watch for Received {
    fn passed(&mut self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }

    fn trailers(&mut self, _: &HeaderMap) {}

    fn ended(&mut self, _: Option<&(dyn Error + 'static)>) {}
}
