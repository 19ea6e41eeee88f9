//! What becomes of traces. Each Telemetry says again only what it sets.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::trace::{Tag, TagValue, Tracing};

use super::layers::{Named, Part, config, layers, of_namespace};
use crate::cluster::attachments::Target;
use crate::resources::Telemetry;
use crate::resources::mesh_config::{Host, MeshConfig, Provider};
use crate::resources::telemetry as written;
use crate::translate::names;
use crate::translate::world::World;

/// Of 10,000 traces, where nothing is said: Istio's one of a hundred.
const SAMPLING: u16 = 100;

/// What becomes of traces at a service behind a waypoint, for which a Telemetry may have these targets: the least specific last.
pub(crate) fn of_service(targets: &[Target], waypoint: &NamespacedName, world: &World<'_>) -> Option<Arc<Tracing>> {
    let config = config(world);
    let mut provider = config.and_then(|config| config.tracing.first()).map(String::as_str);
    let (mut sampling, mut disabled, mut istio_tags, mut tags) = (SAMPLING, false, true, None);
    for entry in layers(Part::Tracing, targets, waypoint, world).into_iter().filter_map(|(_, object)| entry(object)) {
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

/// Why nothing of it is followed, where the spans have nobody to go to.
pub(super) fn fault(key: &NamespacedName, object: &Telemetry, world: &World<'_>) -> Option<String> {
    let (entry, config) = (entry(object)?, config(world));
    let inherited = || {
        let own = of_namespace(Part::Tracing, &key.namespace, world);
        let objects = own.into_iter().chain(of_namespace(Part::Tracing, &world.mesh.root_namespace, world));
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
    fault.map(|fault| format!("nothing is traced: {fault}"))
}
