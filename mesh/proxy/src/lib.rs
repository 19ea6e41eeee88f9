//! What any HBONE proxy is, whoever it serves: ztunnel serves the pods of its node, a waypoint the one that it is. What
//! it is not: it captures no traffic, knows no network namespaces, and parses no application protocol.
//!
//! | module | holds |
//! |---|---|
//! | [`local_workload`] | the workload of a pod that is served, awaited |
//! | [`judge`] | what the policies say: when a connection comes, and when they change |

pub mod judge;
pub mod local_workload;
