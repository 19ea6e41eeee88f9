//! Redirection: the rules in a pod's network namespace that make its TCP pass through ztunnel.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | what of a pod's annotations and probes and of the node's defaults bears on its rules (pure) |
//! | [`rules`] | the rules, as data and as text (pure) |
//! | [`apply`] | install, check and remove them over netlink |

pub mod apply;
mod lower;
pub mod rules;
pub mod settings;

pub use settings::{ProbePorts, Settings};
