//! VirtualService → Rules.
//!
//! Of those that name a service one counts for the same callers, the oldest, as in Istio; and none where a route of Gateway API is for them,
//! too (Istio leaves open what then happens). One of the Service's namespace is for all callers, one of another for callers from there, as
//! with routes of Gateway API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::Service as KubernetesService;
use mesh_model::address::NamespacedName;
use mesh_model::route::{
    Abort, Backend, BackendTarget, Condition, Cors, Delay, Fault, Filter, HeaderEdit, Mirror, PathEdit, PathMatch,
    Redirect, RequestMatch, Retry, Rewrite, Rule, TextMatch,
};

use super::service_spec::{has_port, is_external_name, tcp_ports};
use super::world::World;
use super::{names, ports, traffic, waypoint};
use crate::cluster::relations::{Named, named, namespace};
use crate::resources::destination_rule::parse_duration;
use crate::resources::virtual_service::{self as written, HttpMatch, HttpRule, StringMatch, VirtualService, retry_on};
use crate::resources::{Key, Kind};

/// All of them.
const MILLION: u32 = 1_000_000;

/// The one that counts for callers of a namespace, or, if that is the service's own, for everybody.
pub(super) fn counts<'a>(
    service: &NamespacedName,
    callers: &str,
    world: &World<'a>,
) -> Option<(NamespacedName, &'a Arc<VirtualService>)> {
    let own = world.attachments.routes_of(service).filter(|key| *key.namespace == *callers);
    let own: Vec<&Key> = own.collect();
    if own.iter().any(|key| is_of_gateway_api(key)) {
        return None;
    }
    let own = own.into_iter().filter(|key| key.kind == Kind::VirtualService);
    let found = own.filter_map(|key| Some((key.object(), world.cluster.virtual_service(&key.object())?)));
    let found = found.filter(|(_, object)| names_it(object, service, world));
    let age = |object: &VirtualService| object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    found.min_by(|(a, one), (b, other)| age(one).cmp(&age(other)).then_with(|| a.cmp(b)))
}

/// Whether a route is of the kinds that count before.
pub(super) fn is_of_gateway_api(key: &Key) -> bool {
    matches!(key.kind, Kind::HttpRoute | Kind::GrpcRoute)
}

fn names_it(object: &VirtualService, service: &NamespacedName, world: &World<'_>) -> bool {
    let own = namespace(&object.metadata);
    object.spec.hosts.iter().any(|host| service_named(host, own, world).as_ref() == Some(service))
}

/// The Service that a host names, which may not be there; a full name has to end with the cluster's domain.
pub(super) fn service_named(host: &str, own: &str, world: &World<'_>) -> Option<NamespacedName> {
    let Named::Service(service) = named(host, own) else { return None };
    let host = crate::resources::host::normal(host);
    (!host.contains('.') || *host == *names::hostname(&service, world.mesh).name).then_some(service)
}

/// The rules of all that count for a service, as `blank` but for what they say themselves.
pub(super) fn rules(
    service: &NamespacedName,
    object: &KubernetesService,
    blank: &Rule,
    world: &World<'_>,
) -> Vec<Rule> {
    let of = world.attachments.routes_of(service).filter(|key| key.kind == Kind::VirtualService);
    let namespaces: BTreeSet<&Arc<str>> = of.map(|key| &key.namespace).collect();
    let mut rules = Vec::new();
    for callers in namespaces {
        let Some((key, found)) = counts(service, callers, world) else { continue };
        let blank =
            Rule { route: key, callers: (*callers != service.namespace).then(|| callers.clone()), ..blank.clone() };
        for (_, port) in tcp_ports(object) {
            let at = At { service, port: ports::number(port.port), namespace: &blank.route.namespace, world };
            let blank = Rule { port: Some(at.port), ..blank.clone() };
            let all = found.spec.http.iter().enumerate();
            rules.extend(all.filter_map(|(i, written)| at.rule(i, written, &blank)));
        }
    }
    rules
}

/// Where a rule is asked: what a destination without a port means depends on it.
struct At<'a> {
    service: &'a NamespacedName,
    port: u16,
    /// The object's.
    namespace: &'a str,
    world: &'a World<'a>,
}

/// Where a destination points, or why it does not.
pub(super) fn resolve(
    to: &written::Destination,
    (service, port): (&NamespacedName, u16),
    own: &str,
    world: &World<'_>,
) -> Result<BackendTarget, String> {
    let named = service_named(&to.host, own, world);
    let named = named.ok_or_else(|| format!("the host {} is no Service's", to.host))?;
    let object = world.cluster.service(&named).ok_or_else(|| format!("there is no Service {named}"))?;
    if is_external_name(object) {
        return Err(format!("the Service {named} is of type ExternalName: a waypoint dials no names"));
    }
    let mut all = tcp_ports(object).map(|(_, port)| ports::number(port.port));
    let only = all.next().filter(|_| all.next().is_none());
    let wanted = match to.port {
        Some(port) => u16::try_from(port.number).unwrap_or_default(),
        None => only.unwrap_or(port),
    };
    if !has_port(object, wanted) {
        return Err(format!("the Service {named} has no TCP port {wanted}: say which is meant"));
    }
    let key = names::service(object, world.mesh);
    let Some(subset) = &to.subset else { return Ok(BackendTarget::Service(key, wanted)) };
    let rule = traffic::rule_for(&named, world);
    if !rule.is_some_and(|(_, rule)| rule.spec.subsets.iter().any(|one| one.name == *subset)) {
        return Err(format!("no DestinationRule that counts for the Service {named} has a subset {subset}"));
    }
    let of = |service: &NamespacedName| {
        let verdict = waypoint::of_service(world.cluster.service(service)?, world)?;
        verdict.is_served.then_some(verdict.asked)
    };
    if named != *service && of(&named) != of(service) {
        return Err(format!("the Service {named} is behind another waypoint, and only that knows its subset {subset}"));
    }
    Ok(BackendTarget::Subset(key, wanted, subset.as_str().into()))
}

impl At<'_> {
    /// None where none of its matches is for this port.
    fn rule(&self, number: usize, rule: &HttpRule, blank: &Rule) -> Option<Rule> {
        let matches = match rule.matches.is_empty() {
            true => vec![RequestMatch::default()],
            false => rule.matches.iter().filter(|one| self.is_asked(one)).map(request_match).collect(),
        };
        if matches.is_empty() {
            return None;
        }
        let retries = rule.retries.as_ref();
        Some(Rule {
            name: rule.name.as_deref().map_or_else(|| format!("http[{number}]").into(), Into::into),
            matches,
            filters: self.filters(rule),
            backends: self.backends(rule),
            request_timeout: time(rule.timeout.as_deref()),
            backend_timeout: retries.and_then(|retries| time(retries.per_try_timeout.as_deref())),
            retry: retries.map(retry),
            fault: rule.fault.as_ref().map(fault),
            ..blank.clone()
        })
    }

    fn is_asked(&self, one: &HttpMatch) -> bool {
        one.is_for_mesh() && one.port.is_none_or(|port| port == u32::from(self.port))
    }

    fn target(&self, to: &written::Destination) -> BackendTarget {
        let found = resolve(to, (self.service, self.port), self.namespace, self.world);
        found.unwrap_or_else(|why| BackendTarget::Invalid(why.into()))
    }

    fn backends(&self, rule: &HttpRule) -> Vec<Backend> {
        let only = rule.route.len() == 1;
        let one = |route: &written::RouteDestination| Backend {
            target: self.target(&route.destination),
            // The only one gets everything, whatever it says.
            weight: if only { 1 } else { route.weight.unwrap_or_default() },
            filters: headers(route.headers.as_ref()),
        };
        rule.route.iter().map(one).collect()
    }

    fn filters(&self, rule: &HttpRule) -> Vec<Filter> {
        let mut filters = headers(rule.headers.as_ref());
        filters.extend(rule.cors_policy.as_ref().map(|policy| Filter::Cors(cors(policy))));
        filters.extend(rule.redirect.as_ref().map(|to| Filter::Redirect(redirect(to, self.port))));
        if let Some(rewrite) = &rule.rewrite {
            let path = rewrite.uri.as_deref().map(|uri| PathEdit::Matched(uri.into()));
            filters.push(Filter::Rewrite(Rewrite { hostname: rewrite.authority.as_deref().map(Into::into), path }));
        }
        let mirror =
            |to: &written::Destination, millionths| Filter::Mirror(Mirror { backend: self.target(to), millionths });
        let share = share(rule.mirror_percentage, rule.mirror_percent);
        filters.extend(rule.mirror.as_ref().map(|to| mirror(to, share)));
        let others = rule.mirrors.iter().map(|one| mirror(&one.destination, self::share(one.percentage, None)));
        filters.extend(others);
        filters
    }
}

fn request_match(one: &HttpMatch) -> RequestMatch {
    let any_case = one.ignore_uri_case == Some(true);
    let path = one.uri.as_ref().and_then(|uri| match (&uri.exact, &uri.prefix, &uri.regex) {
        (Some(exact), ..) if any_case => Some(PathMatch::ExactAnyCase(exact.as_str().into())),
        (Some(exact), ..) => Some(PathMatch::Exact(exact.as_str().into())),
        (_, Some(prefix), _) if any_case => Some(PathMatch::BeginningAnyCase(prefix.as_str().into())),
        (_, Some(prefix), _) => Some(PathMatch::Beginning(prefix.as_str().into())),
        (.., Some(regex)) => Some(PathMatch::Regex(regex.as_str().into())),
        (None, None, None) => None,
    });
    let lower = |name: &String| Arc::from(name.to_ascii_lowercase());
    let headers = one.headers.iter().map(|(name, value)| Condition::Header(lower(name), text(value)));
    let without = one.without_headers.iter().map(|(name, value)| Condition::WithoutHeader(lower(name), text(value)));
    let query = one.query_params.iter().map(|(name, value)| Condition::Query(name.as_str().into(), text(value)));
    let others = [
        one.method.as_ref().map(|method| Condition::Method(text(method))),
        one.authority.as_ref().map(|authority| Condition::Authority(text(authority))),
        one.scheme.as_ref().map(|scheme| Condition::Scheme(text(scheme))),
        one.source_namespace.as_deref().map(|namespace| Condition::SourceNamespace(namespace.into())),
    ];
    let conditions = others.into_iter().flatten().chain(headers).chain(without).chain(query).collect();
    RequestMatch { path, conditions, ..RequestMatch::default() }
}

fn text(of: &StringMatch) -> TextMatch {
    match (&of.exact, &of.prefix, &of.regex) {
        (Some(exact), ..) => TextMatch::Exact(exact.as_str().into()),
        (_, Some(prefix), _) => TextMatch::Prefix(prefix.as_str().into()),
        (.., Some(regex)) => TextMatch::Regex(regex.as_str().into()),
        (None, None, None) => TextMatch::Present,
    }
}

/// 0 is no limit.
fn time(text: Option<&str>) -> Option<Duration> {
    text.and_then(parse_duration).filter(|length| !length.is_zero())
}

fn retry(written: &written::Retries) -> Retry {
    // Words that are not followed were refused when it was read.
    let on = retry_on(written.retry_on.as_deref()).unwrap_or_default();
    Retry {
        codes: on.codes,
        grpc_codes: on.grpc_codes,
        // Without it nothing is tried again, as in Istio.
        attempts: written.attempts.unwrap_or(0),
        backoff: time(written.backoff.as_deref()),
    }
}

fn share(percentage: Option<written::Percent>, old: Option<u32>) -> u32 {
    let Some(percentage) = percentage else { return old.map_or(MILLION, |percent| percent.saturating_mul(10_000)) };
    // 0 to 100, or it was refused when it was read.
    (percentage.value * 10_000.0).round() as u32
}

fn fault(written: &written::Fault) -> Fault {
    let delay = written.delay.as_ref().and_then(|delay| {
        let length = time(delay.fixed_delay.as_deref())?;
        Some(Delay { length, millionths: share(delay.percentage, delay.percent) })
    });
    let abort = written.abort.as_ref().and_then(|abort| {
        let status = abort.http_status.and_then(|status| u16::try_from(status).ok())?;
        Some(Abort { status: StatusCode::from_u16(status).ok()?, millionths: share(abort.percentage, abort.percent) })
    });
    Fault { delay, abort }
}

fn headers(written: Option<&written::Headers>) -> Vec<Filter> {
    let edit = |operations: &written::HeaderOperations| {
        let name = |name: &String| {
            let lower = name.to_ascii_lowercase();
            Arc::from(if lower == ":authority" { "host" } else { &*lower })
        };
        let pair = |(of, value): (&String, &String)| (name(of), Arc::from(value.as_str()));
        HeaderEdit {
            set: operations.set.iter().map(pair).collect(),
            add: operations.add.iter().map(pair).collect(),
            remove: operations.remove.iter().map(name).collect(),
        }
    };
    let Some(written) = written else { return Vec::new() };
    let request = written.request.as_ref().map(|operations| Filter::RequestHeaders(edit(operations)));
    let response = written.response.as_ref().map(|operations| Filter::ResponseHeaders(edit(operations)));
    request.into_iter().chain(response).collect()
}

/// What is not said stays as the request has it, which came to `dialled`; the port of another host is its scheme's own.
fn redirect(written: &written::Redirect, dialled: u16) -> Redirect {
    let of_scheme = if written.scheme.as_deref() == Some("https") { 443 } else { 80 };
    let derived = match written.derive_port {
        Some(written::DerivePort::FromProtocolDefault) => Some(of_scheme),
        Some(written::DerivePort::FromRequestPort) => Some(dialled),
        None => (written.authority.is_some() || written.scheme.is_some()).then_some(of_scheme),
    };
    Redirect {
        scheme: written.scheme.as_deref().map(Into::into),
        hostname: written.authority.as_deref().map(Into::into),
        path: written.uri.as_deref().map(|uri| PathEdit::Whole(uri.into())),
        port: written.port.and_then(|port| u16::try_from(port).ok()).or(derived),
        status: written.redirect_code.and_then(|code| u16::try_from(code).ok()).unwrap_or(301),
    }
}

fn cors(written: &written::CorsPolicy) -> Cors {
    let list = |values: &[String]| values.iter().map(|value| value.as_str().into()).collect();
    let origins = written.allow_origins.iter().filter_map(|origin| origin.exact.as_deref());
    Cors {
        allow_origins: written.allow_origin.iter().map(String::as_str).chain(origins).map(Into::into).collect(),
        allow_credentials: written.allow_credentials.unwrap_or(false),
        allow_methods: list(&written.allow_methods),
        allow_headers: list(&written.allow_headers),
        expose_headers: list(&written.expose_headers),
        // What browsers take where nothing is said.
        max_age: time(written.max_age.as_deref()).and_then(|age| u32::try_from(age.as_secs()).ok()).unwrap_or(5),
    }
}

/// Whether a route of Gateway API is for the same callers as a VirtualService of this namespace.
pub(super) fn other_route(service: &NamespacedName, callers: &str, world: &World<'_>) -> Option<Key> {
    let mut routes = world.attachments.routes_of(service).filter(|key| *key.namespace == *callers);
    routes.find(|key| is_of_gateway_api(key)).cloned()
}
