//! Pods as processes.
//!
//! | file | question |
//! |---|---|
//! | `plan` | what does the spec ask to be run? (pure) |
//! | `hosts` | which names does a pod resolve? (pure) |
//! | `sandbox` | its network, its files |
//! | `life` | in which order containers start and end |
//! | `container` | one container: start, ask how it is, restart, stop |
//! | `state` | how a pod and its programs are |
//! | `probe` | what a probe over the network answers |
//! | `output` | its log |
pub(crate) mod container;
pub(crate) mod hosts;
pub(crate) mod life;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod sandbox;
pub(crate) mod state;
