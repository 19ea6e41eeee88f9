//! What the agent has of a Kubernetes API server, and what it says there. Everything else works as with a file of pods.
//!
//! | module | question |
//! |---|---|
//! | [`objects`] | what does an object say, as far as the agent wants to know? (pure) |
//! | [`pods`] | which pods does this node have, and which labels have their namespaces? |
//! | `report` | what do the pods' annotations and events say? |
//! | [`owner`] | is the agent being uninstalled, or only replaced? |

pub mod objects;
pub mod owner;
pub mod pods;
pub(crate) mod report;
