//! The mesh's own programs on this machine, and the files through which we and they understand each other.
//!
//! | file | question |
//! |---|---|
//! | `programs` | which programs run, with which settings? |
//! | `supervise` | start, restart, say how it is |
//! | `readiness` | where does it say that it is ready, and why is it not? |
//! | `token` | what a ztunnel or waypoint proves itself with |
//! | `node_files` | what a node's agent is told, and what it answers |
//! | `plugin` | how a new pod is announced |
//! | `setting` | which settings does the user add? |
//! | `policies` | what the control plane says about policies |
//! | `waypoints` | what is made for a Gateway? (pure) |
//! | `overlay` | what the control plane is told beyond the user's files |
//! | `overlay_files` | in which files? (pure) |
//! | `held` | what of it everybody's tables hold |
pub(crate) mod held;
pub(crate) mod node_files;
pub(crate) mod overlay;
pub(crate) mod overlay_files;
pub(crate) mod plugin;
pub(crate) mod policies;
pub(crate) mod programs;
pub(crate) mod readiness;
pub(crate) mod setting;
pub(crate) mod supervise;
pub(crate) mod token;
pub(crate) mod waypoints;
