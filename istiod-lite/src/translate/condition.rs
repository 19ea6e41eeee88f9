//! What users are told about their policies, and about labels that cannot be followed, in the shape of Kubernetes
//! conditions.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::resources::Key;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::gateway_api::gateway::Address;
use crate::resources::service_entry::HostAddress;

/// One object and its conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Which object.
    #[serde(flatten)]
    pub key: Key,
    /// What is true of it.
    pub conditions: Vec<Condition>,
    /// Of a route, what is true of it at each parent that is a Service; of a traffic policy, at each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ParentStatus>,
    /// Of a Gateway that is a waypoint, or the gateway of another network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<WaypointStatus>,
    /// `metadata.generation` of the object that this is about; None of one that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Of a service entry, what its `status.addresses` has to say, if that is something else than it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<HostAddress>>,
}

/// What else the Gateway of a waypoint, or of another network, says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaypointStatus {
    /// Its class.
    pub class: String,
    /// The name of its listener.
    pub listener: String,
    /// Where it is; empty while it is nowhere.
    pub addresses: Vec<Address>,
}

/// What is true of a route at one parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParentStatus {
    /// As the route names it.
    pub parent: ParentRef,
    /// What is true there.
    pub conditions: Vec<Condition>,
}

impl PolicyStatus {
    /// Of an object that is no route.
    pub fn new(key: Key, conditions: Vec<Condition>) -> Self {
        Self { key, conditions, parents: Vec::new(), waypoint: None, generation: None, addresses: None }
    }
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// For example `ZtunnelAccepted`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Whether it is enforced, in full or in part.
    pub status: bool,
    /// One word.
    pub reason: Cow<'static, str>,
    /// What it means, and what to do.
    pub message: String,
}

/// The reason of what is enforced as written.
const ACCEPTED: &str = "Accepted";
/// The reason of what refuses tokens, because the keys of their issuer are not known.
pub(super) const JWKS_NOT_FETCHED: &str = "JwksNotFetched";
/// Type of the condition about ztunnel.
pub const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// Type of the condition about a policy for a waypoint.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
/// Type of the condition about a mesh configuration.
pub const MESH_CONFIG_READ: &str = "MeshConfigRead";
/// Type of the condition about the waypoint that an object names.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";

impl Condition {
    /// Enforced as written.
    pub(super) fn accepted() -> Self {
        Self::ztunnel(true, ACCEPTED, "attached to ztunnel")
    }

    /// Not enforced here, and another decides.
    pub(super) fn ignored(reason: &'static str, message: impl Into<String>) -> Self {
        Self::ztunnel(false, reason, message)
    }

    /// Something in it cannot be enforced; `status` says whether the rest is.
    pub(super) fn unsupported(status: bool, message: impl Into<String>) -> Self {
        Self::ztunnel(status, "UnsupportedValue", message)
    }

    /// What becomes of it at waypoints.
    pub(super) fn waypoint(status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: WAYPOINT_ACCEPTED.into(), status, reason: reason.into(), message: message.into() }
    }

    /// Something in a mesh configuration is not read.
    pub(super) fn mesh_config(message: String) -> Self {
        let (kind, reason) = (MESH_CONFIG_READ.into(), "UnsupportedValue".into());
        Self { kind, status: true, reason, message }
    }

    fn ztunnel(status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: ZTUNNEL_ACCEPTED.into(), status, reason: reason.into(), message: message.into() }
    }

    /// The object as it is now cannot be used; an earlier version of it may serve.
    pub fn rejected(message: String) -> Self {
        Self::ztunnel(false, "Invalid", message)
    }

    /// Nothing is to be done about it.
    pub fn is_accepted(&self) -> bool {
        self.status && !matches!(&*self.reason, "UnsupportedValue" | "PartiallyInvalid" | JWKS_NOT_FETCHED)
    }
}
