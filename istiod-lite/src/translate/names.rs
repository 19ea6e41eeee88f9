//! What objects are called in proxies' tables.

use k8s_openapi::api::core::v1::Service as KubernetesService;
use mesh_model::address::NamespacedName;

use super::mesh::Mesh;
use super::service_spec;

/// The uid of a pod's workload.
pub(super) fn uid(NamespacedName { namespace, name }: &NamespacedName, cluster_id: &str) -> String {
    format!("{cluster_id}//Pod/{namespace}/{name}")
}

/// The key of a service: `namespace/hostname`.
pub(super) fn service(service: &KubernetesService, mesh: &Mesh) -> NamespacedName {
    let name = service.metadata.name.as_deref().unwrap_or("");
    hostname(&NamespacedName::new(service_spec::namespace(service), name), mesh)
}

/// The same, of a service that may be gone.
pub(super) fn hostname(object: &NamespacedName, mesh: &Mesh) -> NamespacedName {
    let NamespacedName { namespace, name } = object;
    NamespacedName::new(namespace.clone(), format!("{name}.{namespace}.svc.{}", mesh.domain))
}

/// Every name under which a service may be published.
pub(super) fn of_service(object: &NamespacedName, mesh: &Mesh) -> [NamespacedName; 2] {
    let plain = hostname(object, mesh);
    [external(&plain), plain]
}

/// An ExternalName's: the last dot hides it from DNS proxies that do not know what is special about it.
pub(super) fn external(NamespacedName { namespace, name }: &NamespacedName) -> NamespacedName {
    NamespacedName::new(namespace.clone(), format!("{name}."))
}
