//! A pod, as whoever runs beside it knows it: by the names that the control plane's tables have it under.

use std::fmt;

/// Which workload a pod is: what joins a pod of this node, or a proxy's own pod, with a workload of the control plane
/// ([`Tables::workload_of_pod`](crate::tables::Tables::workload_of_pod)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodInfo {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The service account the pod runs as.
    pub service_account: String,
}

impl fmt::Display for PodInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
