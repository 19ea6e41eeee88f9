//! What becomes of the trace of a request: the next hop is told of it, and its spans are made. One span is the request at the
//! waypoint, below it is one for each try to send it on.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_model::reason::ReasonCode;
use mesh_model::service::Service;
use mesh_model::trace::span::{Kind, Span, Value};
use mesh_model::trace::{Context, MOST_TAG_BYTES, Tracing, request_id};
use mesh_model::workload::Workload;
use tokio::time::Instant;

use super::caller::Caller;
use crate::spans::Finished;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Tries that have a span of their own. A route may ask for any number of them.
const MOST_TRIES: usize = 32;

type Attributes = Vec<(Cow<'static, str>, Value)>;

/// The trace of a request, at a service whose requests are traced.
pub(crate) struct Trace {
    settings: Arc<Tracing>,
    context: Context,
    /// What the next hop is told where no span is made: who came before us.
    before: u64,
    recorded: Option<Recorded>,
}

/// What spans are made of.
struct Recorded {
    /// The id of the request's own span.
    own: u64,
    /// A copy for a mirror: the request's span is the original's to report.
    copy: bool,
    started: Instant,
    began: SystemTime,
    attributes: Attributes,
    tries: Vec<Span>,
    open: Option<Try>,
}

/// A try that has not ended.
struct Try {
    id: u64,
    started: Instant,
    number: usize,
    service: Arc<Service>,
    port: u16,
    endpoint: SocketAddr,
    workload: Option<Arc<Workload>>,
    status: Option<u16>,
    failed: Option<ReasonCode>,
}

/// How a request has ended.
pub(super) struct Told<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) authority: &'a str,
    pub(super) protocol: &'static str,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u8>,
    pub(super) code: Option<ReasonCode>,
    pub(super) flags: &'static str,
    pub(super) route: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) took: Duration,
}

impl Trace {
    /// Of a request with these headers, which has come at `started`.
    pub(super) fn begin(settings: &Arc<Tracing>, headers: &HeaderMap, started: Instant) -> Self {
        let context = Context::begin(headers, settings, rand::random);
        let recorded = (context.sampled && settings.collector.is_some()).then(|| {
            let tag = |tag: &mesh_model::trace::Tag| {
                Some((Cow::Owned(tag.name.to_string()), Value::Text(tag.of(headers)?.into_string())))
            };
            let mut attributes: Attributes = settings.tags.iter().filter_map(tag).collect();
            if let Some(agent) = text(headers.get(USER_AGENT)) {
                attributes.push(("user_agent.original".into(), agent.into()));
            }
            Recorded {
                own: new_id(),
                copy: false,
                started,
                began: SystemTime::now(),
                attributes,
                tries: Vec::new(),
                open: None,
            }
        });
        Self { settings: settings.clone(), context, before: context.parent.unwrap_or_else(new_id), recorded }
    }

    /// That of a copy of the request, whose tries are reported below the request's own span.
    pub(super) fn of_copy(&self) -> Self {
        let recorded = self.recorded.as_ref().map(|recorded| Recorded {
            own: recorded.own,
            copy: true,
            started: recorded.started,
            began: recorded.began,
            attributes: Vec::new(),
            tries: Vec::new(),
            open: None,
        });
        Self { settings: self.settings.clone(), recorded, ..*self }
    }

    /// The id of the trace.
    pub(super) fn id(&self) -> u128 {
        self.context.trace_id
    }

    /// Sees to it that the request has an id.
    pub(super) fn name(&mut self, headers: &mut HeaderMap) {
        request_id(headers, rand::random());
        if let Some(recorded) = &mut self.recorded
            && let Some(id) = text(headers.get(REQUEST_ID))
        {
            recorded.attributes.push(("guid:x-request-id".into(), id.into()));
        }
    }

    /// It is about to be sent to an endpoint, which is told by these headers.
    pub(super) fn next_try(
        &mut self,
        (service, port): (&Arc<Service>, u16),
        (endpoint, workload): (SocketAddr, Option<&Arc<Workload>>),
        headers: &mut HeaderMap,
    ) {
        let Some(recorded) = &mut self.recorded else {
            return self.context.write(headers, self.before, None);
        };
        recorded.close(&self.context, recorded.started.elapsed());
        let id = new_id();
        self.context.write(headers, id, Some(recorded.own));
        let number = recorded.tries.len();
        let (service, workload) = (service.clone(), workload.cloned());
        let started = Instant::now();
        recorded.open =
            Some(Try { id, started, number, service, port, endpoint, workload, status: None, failed: None });
    }

    /// The endpoint has answered.
    pub(super) fn answered(&mut self, status: u16) {
        if let Some(open) = self.recorded.as_mut().and_then(|recorded| recorded.open.as_mut()) {
            open.status = Some(status);
        }
    }

    /// It has not.
    pub(super) fn failed(&mut self, code: ReasonCode) {
        if let Some(recorded) = &mut self.recorded {
            if let Some(open) = &mut recorded.open {
                open.failed = Some(code);
            }
            recorded.close(&self.context, recorded.started.elapsed());
        }
    }

    /// The spans of a request that has ended, if they are reported.
    pub(super) fn end(self, caller: &Caller, told: &Told<'_>) -> Option<Finished> {
        let (mut recorded, collector) = (self.recorded?, self.settings.collector.clone()?);
        if let Some(open) = &mut recorded.open
            && open.status.is_some()
        {
            // What has broken its answer off has broken this off.
            open.failed = told.code.filter(|_| told.status < 400);
        }
        recorded.close(&self.context, told.took);
        let Recorded { own, copy, began, mut attributes, tries: mut spans, .. } = recorded;
        if !copy {
            about(caller, told, self.settings.istio_tags, &mut attributes);
            spans.push(Span {
                trace_id: self.context.trace_id,
                id: own,
                parent: self.context.parent,
                flags: self.context.flags(),
                kind: Kind::Server,
                name: format!("{}:{}/*", caller.target.service.hostname, caller.target.port),
                began,
                took: told.took,
                attributes,
                failed: told.status >= 500 || told.code.is_some() && told.status < 400,
            });
        }
        (!spans.is_empty()).then_some(Finished { collector, spans })
    }
}

impl Recorded {
    /// The try that is under way has ended, so long after the request has come.
    fn close(&mut self, context: &Context, after: Duration) {
        let Some(open) = self.open.take() else { return };
        if self.tries.len() >= MOST_TRIES {
            return;
        }
        let Try { id, started, number, service, port, endpoint, workload, status, failed } = open;
        let before = started - self.started;
        let cluster = format!("inbound-vip|{port}|http|{}", service.hostname);
        let mut attributes: Attributes = vec![
            ("server.address".into(), (*service.hostname).into()),
            ("server.port".into(), port.into()),
            ("network.peer.address".into(), endpoint.ip().to_string().into()),
            ("network.peer.port".into(), endpoint.port().into()),
            ("upstream_cluster".into(), cluster.clone().into()),
        ];
        if let Some(workload) = workload {
            attributes.push(("istio.destination_workload".into(), (*workload.workload_name).into()));
            attributes.push(("istio.destination_pod".into(), (*workload.name).into()));
        }
        if number > 0 {
            attributes.push(("http.request.resend_count".into(), (number as u64).into()));
        }
        if let Some(status) = status {
            attributes.push(("http.response.status_code".into(), status.into()));
        }
        if let Some(code) = failed {
            attributes.push(("error.type".into(), code.as_str().into()));
        }
        self.tries.push(Span {
            trace_id: context.trace_id,
            id,
            parent: Some(self.own),
            flags: context.flags(),
            kind: Kind::Client,
            name: format!("router {cluster} egress"),
            began: self.began + before,
            took: after.saturating_sub(before),
            attributes,
            failed: failed.is_some() || status.is_some_and(|status| status >= 400),
        });
    }
}

/// What the span of a request says of it: OpenTelemetry's names, and Istio's of what has no such name.
fn about(caller: &Caller, told: &Told<'_>, istio_tags: bool, attributes: &mut Attributes) {
    let mut say = |name: &'static str, value: Value| attributes.push((name.into(), value));
    let service = &caller.target.service;
    say("http.request.method", told.method.into());
    say("url.scheme", "http".into());
    // Without the query, which may hold what nobody should read.
    say("url.path", shortened(told.path).into());
    say("http.response.status_code", told.status.into());
    say("network.protocol.version", told.protocol.into());
    say("server.address", shortened(told.authority).into());
    say("server.port", caller.target.port.into());
    say("client.address", caller.from.ip().to_string().into());
    say("http.request.body.size", told.received.into());
    say("http.response.body.size", told.sent.into());
    say("response_flags", told.flags.into());
    if let Some(status) = told.grpc_status {
        say("rpc.grpc.status_code", u64::from(status).into());
    }
    if let Some(route) = &told.route {
        say("route_name", (&**route).into());
    }
    if let Some(policy) = &told.policy {
        say("ambit.policy", (&**policy).into());
    }
    match told.code {
        Some(code) => say("error.type", code.as_str().into()),
        None if told.status >= 500 => say("error.type", told.status.to_string().into()),
        None => {}
    }
    if !istio_tags {
        return;
    }
    let own = &caller.waypoint;
    say("istio.canonical_service", (*own.canonical_name).into());
    say("istio.canonical_revision", (*own.canonical_revision).into());
    say("istio.namespace", (*own.namespace).into());
    say("istio.cluster_id", (*own.cluster).into());
    say("istio.source_principal", caller.identity.to_string().into());
    say("istio.source_namespace", (**caller.identity.namespace()).into());
    if let Some(source) = &caller.workload {
        say("istio.source_workload", (*source.workload_name).into());
        say("istio.source_canonical_service", (*source.canonical_name).into());
        say("istio.source_canonical_revision", (*source.canonical_revision).into());
    }
    say("istio.destination_service", (*service.hostname).into());
    say("istio.destination_service_name", (*service.name).into());
    say("istio.destination_service_namespace", (*service.namespace).into());
}

/// The id of a new span: never 0, which means "none".
fn new_id() -> u64 {
    rand::random::<u64>().max(1)
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok().map(shortened)
}

/// As much of what a stranger has written as a span says.
fn shortened(text: &str) -> &str {
    let end = (0..=MOST_TAG_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
