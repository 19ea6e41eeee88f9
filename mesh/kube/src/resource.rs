//! Under which path an API server serves a kind. Pure.

use std::fmt;

/// A kind, as the API server calls it in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its API group; empty for the core group.
    pub group: &'static str,
    /// The versions we can read, the best first: an older definition of a kind serves an older one only.
    pub versions: &'static [&'static str],
    /// Its plural, in lower case.
    pub plural: &'static str,
}

impl Resource {
    /// A kind of the core group.
    pub const fn core(plural: &'static str) -> Self {
        Self { group: "", versions: &["v1"], plural }
    }

    /// The path of all objects of a version, or of those of a namespace.
    pub fn path(&self, version: &str, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace {
            None => format!("{root}/{version}/{}", self.plural),
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{}", self.plural),
        }
    }

    /// The path of one object, in the best version. `namespace` is empty for kinds above namespaces.
    pub fn path_of(&self, namespace: &str, name: &str) -> String {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        format!("{}/{name}", self.path(self.versions[0], namespace))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let policies =
            Resource { group: "security.istio.io", versions: &["v1", "v1beta1"], plural: "authorizationpolicies" };
        let pods = Resource::core("pods");
        assert_eq!(pods.path("v1", None), "/api/v1/pods");
        assert_eq!(pods.path_of("shop", "a"), "/api/v1/namespaces/shop/pods/a");
        assert_eq!(Resource::core("nodes").path_of("", "n1"), "/api/v1/nodes/n1");
        let path = policies.path("v1beta1", Some("shop"));
        assert_eq!(path, "/apis/security.istio.io/v1beta1/namespaces/shop/authorizationpolicies");
        assert_eq!(
            (pods.to_string(), policies.to_string()),
            ("pods".into(), "authorizationpolicies.security.istio.io".into())
        );
    }
}
