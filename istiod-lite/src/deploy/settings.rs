//! What is the same for all waypoints.

/// Who owns what is made for them.
pub(super) const MANAGER: &str = "ambit.dev/waypoint-controller";

/// How waypoints run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `WAYPOINT_IMAGE`.
    pub image: String,
    /// Where they find us.
    pub control_plane: String,
    /// `CLUSTER_ID`.
    pub cluster_id: String,
    /// `PILOT_CA_CERT_CONFIGMAP`.
    pub root_map: String,
    /// `WAYPOINT_CLASSES`: classes whose Gateways are ours to run.
    pub classes: Vec<String>,
}
