//! `provider` of a CUSTOM policy → whom its waypoints ask, by the mesh configuration. Pure.
//!
//! Whoever cannot be asked has not said yes: the waypoints are told why, and deny what they would ask about.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::authorizer::{Authorizer, BodyInCheck, HttpCheck, Protocol};
use mesh_model::policy::StringMatch;

use super::names;
use super::rules::string_match;
use super::service_spec::has_port;
use super::world::World;
use crate::resources::mesh_config::{ExtAuthz, ExtAuthzHttp, Host, Provider};

/// Who is asked, and what is wrong with that.
pub(super) struct Found {
    /// Else why nobody can be asked.
    pub(super) authorizer: Result<Arc<Authorizer>, Arc<str>>,
    /// For the policy's author; None: it is as it should be.
    pub(super) trouble: Option<String>,
}

/// The provider of this name.
pub(super) fn find(name: &str, world: &World<'_>) -> Found {
    match known(name, world) {
        Ok((authorizer, trouble)) => Found { authorizer: Ok(Arc::new(authorizer)), trouble },
        Err(why) => {
            let trouble = format!("What the policy would ask about is DENIED: {why}");
            Found { authorizer: Err(why.into()), trouble: Some(trouble) }
        }
    }
}

fn known(name: &str, world: &World<'_>) -> Result<(Authorizer, Option<String>), String> {
    let map = &world.mesh.config_map;
    let config = world.cluster.mesh_config(map);
    let provider = config.and_then(|config| config.extension_providers.get(name)).ok_or_else(|| {
        format!(
            "extension provider {name:?} is not in the mesh configuration (ConfigMap {map}, key mesh). Add it to \
             extensionProviders there, or correct provider.name"
        )
    })?;
    let (common, protocol) = match provider {
        Provider::ExtAuthzGrpc(common) => (common, Protocol::Grpc),
        Provider::ExtAuthzHttp(common, http) => (common, Protocol::Http(check(http))),
        Provider::OpenTelemetry(_) | Provider::FileAccessLog | Provider::Prometheus => {
            let does = match provider {
                Provider::OpenTelemetry(_) => "takes traces",
                Provider::FileAccessLog => "writes a log",
                _ => "takes metrics",
            };
            return Err(format!(
                "extension provider {name:?} {does}: name one of kind envoyExtAuthzGrpc or envoyExtAuthzHttp"
            ));
        }
        Provider::Unusable(why) => {
            return Err(format!("extension provider {name:?} cannot be used: {why} (ConfigMap {map})"));
        }
    };
    let (service, trouble) =
        service(&common.host, world).map_err(|why| format!("extension provider {name:?}: {why}"))?;
    Ok((authorizer(name, service, common, protocol), trouble.map(|why| format!("Extension provider {name:?}: {why}"))))
}

/// Its service as waypoints know it, and what is wrong with that one now.
fn service(host: &Host, world: &World<'_>) -> Result<(NamespacedName, Option<String>), String> {
    let Host { namespace, name, port } = host;
    if let Some(key) = host.service(&world.mesh.domain) {
        if namespace.as_deref().is_some_and(|said| *said != *key.namespace) {
            return Err(format!(
                "{name} is a service of namespace {}, not of {}",
                key.namespace,
                namespace.as_deref().unwrap_or_default()
            ));
        }
        let denied = "Until it is, what the policy would ask about is denied, unless the provider says failOpen";
        let trouble = match world.cluster.service(&key) {
            None => Some(format!("there is no Service {key}. {denied}")),
            Some(service) if !has_port(service, *port) => Some(format!("Service {key} has no port {port}. {denied}")),
            Some(_) => None,
        };
        return Ok((names::hostname(&key, world.mesh), trouble));
    }
    // Of several the oldest, as for whoever asks from another namespace.
    let mut entries: Vec<_> = world
        .cluster
        .service_entries()
        .filter(|(key, entry)| {
            namespace.as_deref().is_none_or(|said| *said == *key.namespace)
                && entry.spec.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
        })
        .collect();
    entries.sort_by_key(|(key, entry)| (entry.metadata.creation_timestamp.as_ref().map(|time| time.0), (*key).clone()));
    let Some((key, _)) = entries.first() else {
        return Err(format!(
            "its service {name} is neither a Service (NAME.NAMESPACE.svc.{}) nor a host of a ServiceEntry",
            world.mesh.domain
        ));
    };
    Ok((NamespacedName::new(key.namespace.clone(), name.as_str()), None))
}

fn authorizer(name: &str, service: NamespacedName, common: &ExtAuthz, protocol: Protocol) -> Authorizer {
    let body = common.body.map(|body| BodyInCheck {
        most: body.max_request_bytes,
        allow_partial: body.allow_partial_message,
        as_bytes: body.pack_as_bytes,
    });
    Authorizer {
        name: name.into(),
        service,
        port: common.host.port,
        timeout: common.timeout,
        fail_open: common.fail_open,
        status_on_error: common.status_on_error,
        body,
        protocol,
    }
}

fn check(http: &ExtAuthzHttp) -> HttpCheck {
    // Names of headers are compared in lower case.
    let patterns = |names: &[String]| {
        names.iter().map(|name| string_match(&name.to_ascii_lowercase())).collect::<Vec<StringMatch>>()
    };
    let added = http.include_additional_headers_in_check.iter();
    HttpCheck {
        path_prefix: http.path_prefix.as_str().into(),
        request_headers: patterns(&http.include_request_headers_in_check),
        additional_headers: added.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
        upstream_on_allow: patterns(&http.headers_to_upstream_on_allow),
        downstream_on_deny: patterns(&http.headers_to_downstream_on_deny),
        downstream_on_allow: patterns(&http.headers_to_downstream_on_allow),
    }
}
