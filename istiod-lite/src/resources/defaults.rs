//! What the API server fills in before anybody else reads an object, as far as somebody here depends on it.

use k8s_openapi::api::core::v1::Pod;

/// `spec.serviceAccount` is the deprecated alias of `spec.serviceAccountName`; where both are written, the newer name counts
/// (Kubernetes API, PodSpec). Without this a pod would run under the identity of `default`.
pub(super) fn pod(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    let written = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if !written(&spec.service_account_name) && written(&spec.service_account) {
        spec.service_account_name.clone_from(&spec.service_account);
    }
}

#[cfg(test)]
mod tests {
    use crate::resources::{Kind, Object};

    #[test]
    fn the_service_account_has_two_names() {
        for (spec, expected) in [
            ("{containers: []}", None),
            ("{containers: [], serviceAccountName: new}", Some("new")),
            ("{containers: [], serviceAccount: old}", Some("old")),
            ("{containers: [], serviceAccount: old, serviceAccountName: ''}", Some("old")),
            ("{containers: [], serviceAccount: old, serviceAccountName: new}", Some("new")),
        ] {
            let value: serde_json::Value =
                serde_saphyr::from_str(&format!("{{metadata: {{name: p}}, spec: {spec}}}")).unwrap();
            let Object::Pod(pod) = Object::from_value(Kind::Pod, &value).unwrap() else { panic!("{spec}: not a pod") };
            let name = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref());
            assert_eq!(name, expected, "{spec}");
        }
    }
}
