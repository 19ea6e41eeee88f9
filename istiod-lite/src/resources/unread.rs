//! Kinds that are not read, and what that means for who wrote them.

use serde::{Deserialize, Serialize};

/// What a kind that is not read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unread {
    /// One people keep in the same folder, which says nothing to a mesh: Deployment, ConfigMap.
    SaysNothing,
    /// One that says something, which Ambit does not do.
    NotEnforced,
    /// Nothing we have heard of.
    Unknown,
}

impl Unread {
    /// What it means that this kind is not read; `kind` with or without its `apiVersion` before it.
    pub fn meaning(self, kind: &str) -> String {
        let name = kind.rsplit(' ').next().unwrap_or(kind);
        match self {
            Self::SaysNothing => "it says nothing to the mesh".to_owned(),
            Self::Unknown => "this kind is not known here; is it spelt right?".to_owned(),
            Self::NotEnforced => {
                let what = match name {
                    "NetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => {
                        "what it forbids is NOT kept from happening here. On Kubernetes the network plugin enforces it; \
                         under `ambit up` nobody does. What must hold belongs into an AuthorizationPolicy, too"
                    }
                    "WorkloadGroup" => {
                        "it is a template by which Istio's sidecars on virtual machines register themselves. A WorkloadEntry \
                         for each of them says the same"
                    }
                    "Ingress" | "IngressClass" => "no gateway is run for it",
                    _ => "connections are carried as if it were not there",
                };
                format!("Ambit does not enforce {name}: {what}")
            }
        }
    }
}
