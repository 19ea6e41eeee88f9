//! Telemetry and the mesh configuration → what becomes of traces at the waypoint of a service. Pure.
//!
//! Less specific first: `defaultProviders.tracing`; the Telemetry of the root namespace; that of the waypoint's namespace; that of the
//! waypoint's GatewayClass, of its Gateway, of the Service. Each says again only what it sets, as in Istio; of several in one place the
//! oldest counts.

use std::cmp::Ordering;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::trace::{Tag, TagValue, Tracing};

use super::bound::Bound;
use super::condition::Condition;
use super::names;
use super::world::World;
use crate::cluster::attachments::{Target, refs_of_telemetry, target};
use crate::resources::Telemetry;
use crate::resources::mesh_config::{Host, MeshConfig, Provider};
use crate::resources::telemetry as written;

/// Of 10,000 traces, where nothing is said: Istio's one of a hundred.
const SAMPLING: u16 = 100;

/// One of them, with its key.
type Named<'a> = (&'a NamespacedName, &'a Arc<Telemetry>);

/// What becomes of traces at a service behind a waypoint, for which a Telemetry may have these targets: the least specific last.
pub(super) fn of_service(targets: &[Target], waypoint: &NamespacedName, world: &World<'_>) -> Option<Arc<Tracing>> {
    let root = &world.mesh.root_namespace;
    let own = (waypoint.namespace != *root).then(|| of_namespace(&waypoint.namespace, world)).flatten();
    let targeted = targets.iter().rev().filter_map(|target| of_target(target, world));
    let layers = of_namespace(root, world).into_iter().chain(own).chain(targeted);
    let config = config(world);
    let mut provider = config.and_then(|config| config.tracing.first()).map(String::as_str);
    let (mut sampling, mut disabled, mut istio_tags, mut tags) = (SAMPLING, false, true, None);
    for entry in layers.filter_map(|(_, object)| entry(object)) {
        provider = entry.providers.first().map(|provider| &*provider.name).or(provider);
        sampling = entry.sampling().unwrap_or(sampling);
        disabled = entry.disable_span_reporting.unwrap_or(disabled);
        istio_tags = entry.enable_istio_tags.unwrap_or(istio_tags);
        tags = entry.custom_tags.as_ref().or(tags);
    }
    let provider = provider?;
    let collector = collector(config?, provider, world).ok()?;
    let tag = |(name, tag): (&String, &written::CustomTag)| Tag { name: name.as_str().into(), value: value(tag) };
    Some(Arc::new(Tracing {
        provider: provider.into(),
        collector: (!disabled).then_some(collector),
        sampling,
        tags: tags.into_iter().flatten().map(tag).collect(),
        istio_tags,
    }))
}

fn value(tag: &written::CustomTag) -> TagValue {
    match (&tag.header, &tag.literal) {
        (Some(header), _) => TagValue::Header {
            name: header.name.to_ascii_lowercase().into(),
            default: header.default_value.as_deref().map(Into::into),
        },
        (None, literal) => TagValue::Literal(literal.as_ref().map_or("", |literal| &literal.value).into()),
    }
}

/// What it says of traces, if that is about requests that come to a waypoint.
fn entry(object: &Telemetry) -> Option<&written::Tracing> {
    object.spec.tracing.iter().find(|entry| entry.is_for_servers())
}

fn config<'a>(world: &World<'a>) -> Option<&'a MeshConfig> {
    world.cluster.mesh_config(&world.mesh.config_map).map(|config| &**config)
}

/// The service that takes a provider's spans.
fn collector(config: &MeshConfig, provider: &str, world: &World<'_>) -> Result<(NamespacedName, u16), String> {
    match config.extension_providers.get(provider) {
        Some(Provider::OpenTelemetry(otel)) => service(&otel.host, world).map(|service| (service, otel.host.port)),
        Some(Provider::Unusable(why)) => Err(format!("the provider {provider} cannot be used: {why}")),
        Some(_) => Err(format!("the provider {provider} takes no spans: name one of kind opentelemetry")),
        None => Err(format!("the mesh configuration has no extensionProvider {provider}")),
    }
}

/// A host as tables have it. One that is no Service's is a ServiceEntry's, whose namespace has to be said.
fn service(host: &Host, world: &World<'_>) -> Result<NamespacedName, String> {
    let Host { namespace, name, .. } = host;
    match (host.service(&world.mesh.domain), namespace) {
        (Some(key), _) => Ok(names::hostname(&key, world.mesh)),
        (None, Some(namespace)) => Ok(NamespacedName::new(namespace.as_str(), name.as_str())),
        (None, None) => Err(format!(
            "{name} is not known: write NAME.NAMESPACE.svc.{}, or NAMESPACE/HOST of a ServiceEntry",
            world.mesh.domain
        )),
    }
}

/// The one that counts in a namespace for whatever has none of its own.
fn of_namespace<'a>(namespace: &str, world: &World<'a>) -> Option<Named<'a>> {
    let all = world.cluster.telemetries_in(namespace);
    all.filter(|(_, object)| is_of_namespace(object) && entry(object).is_some()).min_by(older)
}

/// The one that counts of those with a target.
fn of_target<'a>(target: &Target, world: &World<'a>) -> Option<Named<'a>> {
    let root = &world.mesh.root_namespace;
    let keys = world.attachments.telemetries_of(target);
    // A class is targeted from the root namespace only.
    let counts = keys.filter(|key| !matches!(target, Target::Class(_)) || key.namespace == *root);
    let found = counts.filter_map(|key| world.cluster.telemetry_with_key(key));
    found.filter(|(_, object)| entry(object).is_some()).min_by(older)
}

fn is_of_namespace(object: &Telemetry) -> bool {
    object.spec.selector.is_none() && refs_of_telemetry(object).next().is_none()
}

fn older((key, object): &Named<'_>, (other_key, other): &Named<'_>) -> Ordering {
    let age = |object: &Telemetry| object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    age(object).cmp(&age(other)).then_with(|| key.cmp(other_key))
}

/// What its author is told.
pub(super) fn told(key: &NamespacedName, object: &Telemetry, world: &World<'_>) -> Condition {
    const UNSUPPORTED: &str = "UnsupportedValue";
    let spec = &object.spec;
    let other = [("metrics", &spec.metrics), ("accessLogging", &spec.access_logging)];
    let other: Vec<&str> = other.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| *name).collect();
    let unread = match &other[..] {
        [] => String::new(),
        names => format!("{} is not followed: metrics and logs are as docs/operations.md says", names.join(" and ")),
    };
    let refuse = |reason, message: String| {
        let unread = if unread.is_empty() { String::new() } else { format!(". Besides, {unread}") };
        Condition::waypoint(false, reason, message + &unread)
    };
    let Some(entry) = entry(object) else {
        let message = match (spec.tracing.is_empty(), unread.is_empty()) {
            (false, _) => "tracing is for CLIENT only, and a waypoint is on the server's side".to_owned(),
            (true, true) => "it says nothing of tracing".to_owned(),
            (true, false) => return Condition::waypoint(false, UNSUPPORTED, unread),
        };
        return refuse(UNSUPPORTED, message);
    };
    if spec.selector.is_some() {
        let message = "it has a selector, so NO waypoint follows it: with one it is for sidecars, as in Istio. Say by \
                       targetRefs which Services, Gateways or GatewayClass it is for";
        return refuse("AncestorNotBound", message.to_owned());
    }
    let root = &world.mesh.root_namespace;
    let (mut reason, mut message) = ("Accepted", String::new());
    if is_of_namespace(object) {
        if let Some((oldest, _)) = of_namespace(&key.namespace, world).filter(|(oldest, _)| *oldest != key) {
            return refuse("Conflicted", format!("Telemetry {oldest} is for the namespace, too, and older"));
        }
        message = match key.namespace == *root {
            true => "for the whole mesh, where nothing more specific says otherwise".to_owned(),
            false => format!("for waypoints of {}, where nothing more specific says otherwise", key.namespace),
        };
    } else {
        let bound = Bound::of(refs_of_telemetry(object), &key.namespace, world);
        let (status, why, text) = bound.told();
        if !status {
            return refuse(why, text);
        }
        let targets = refs_of_telemetry(object).map(|reference| target(reference, &key.namespace));
        let oldest = targets.filter_map(|target| of_target(&target, world)).find(|(oldest, _)| *oldest != key);
        if let Some((oldest, _)) = oldest {
            return refuse("Conflicted", format!("Telemetry {oldest} has the same target and is older"));
        }
        (reason, message) = (why, message + &text);
    }
    let config = config(world);
    let inherited = || {
        let own = of_namespace(&key.namespace, world);
        let objects = own.into_iter().chain(of_namespace(root, world));
        let of = |(_, object): Named<'_>| Some(self::entry(object)?.providers.first()?.name.clone());
        objects.filter_map(of).next().or_else(|| config?.tracing.first().cloned())
    };
    let provider = entry.providers.first().map(|provider| provider.name.clone()).or_else(inherited);
    let fault = match (provider, config) {
        (None, _) => {
            Some("no provider is named, here, in a less specific Telemetry or in defaultProviders.tracing".to_owned())
        }
        (Some(_), None) => Some(format!("there is no mesh configuration (ConfigMap {})", world.mesh.config_map)),
        (Some(provider), Some(config)) => collector(config, &provider, world).err(),
    };
    if let Some(fault) = fault {
        return refuse("InvalidProvider", format!("nothing is traced: {fault}"));
    }
    if !unread.is_empty() {
        (reason, message) = (UNSUPPORTED, format!("{message}. {unread}"));
    }
    Condition::waypoint(true, reason, message)
}
