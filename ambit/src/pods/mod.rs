//! Pods as processes.
//!
//! | file | question |
//! |---|---|
//! | `plan` | what does the spec ask to be run? (pure) |
//! | `hosts` | which names does a pod resolve? (pure) |
//! | `sandbox` | its network, its files |
//! | `life` | start, watch, restart, stop |
//! | `probe` | is it ready? |
//! | `output` | its log |
pub(crate) mod hosts;
pub(crate) mod life;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod sandbox;
