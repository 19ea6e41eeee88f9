//! backendRef: the object that requests are sent to.

use serde::{Deserialize, Serialize};

/// The group of Istio's kinds of networking.
pub(crate) const ISTIO: &str = "networking.istio.io";

/// Another object, or a host.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct BackendRef {
    /// Empty when left out: a Service.
    pub group: Option<String>,
    /// `Service` when left out.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// The route's own when left out.
    pub namespace: Option<String>,
    /// A Service needs it.
    pub port: Option<i64>,
}

impl BackendRef {
    /// Its group.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or("")
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Service")
    }

    /// A Service.
    pub fn is_service(&self) -> bool {
        self.group() == "" && self.kind() == "Service"
    }

    /// Istio's `Hostname`: no object, but whoever has the name, a ServiceEntry or a Service.
    pub fn is_hostname(&self) -> bool {
        self.group() == ISTIO && self.kind() == "Hostname"
    }
}
