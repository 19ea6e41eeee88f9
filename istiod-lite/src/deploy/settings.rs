//! What is the same for all waypoints.

use crate::mode::{Mode, WAYPOINT_CONTROLLER};

/// Who owns what is made for them.
pub(super) const MANAGER: &str = WAYPOINT_CONTROLLER;

/// How waypoints run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `WAYPOINT_IMAGE`.
    pub image: String,
    /// Where they find us.
    pub control_plane: String,
    /// Where they find who signs their certificates: us, or istiod.
    pub ca: String,
    /// Whether all of the mesh is ours.
    pub mode: Mode,
    /// PEM of the root that our own certificate leads to, where it is another than the mesh's.
    pub serving_root: Option<String>,
    /// `CLUSTER_ID`.
    pub cluster_id: String,
    /// `PILOT_CA_CERT_CONFIGMAP`.
    pub root_map: String,
    /// `WAYPOINT_CLASSES`: classes whose Gateways are ours to run.
    pub classes: Vec<String>,
}
