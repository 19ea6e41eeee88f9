//! The machine's network: a fabric, nodes on it, pods behind nodes, and service addresses translated on each node.
//!
//! | file | question |
//! |---|---|
//! | `addressing` | which address does everything have? (pure) |
//! | `links` | making the wires over netlink |
//! | `services` | which endpoints does a service address stand for? (pure) |
//! | `kube_proxy` | the rules on each node that translate service addresses |
pub(crate) mod addressing;
pub(crate) mod kube_proxy;
pub(crate) mod links;
pub(crate) mod services;
