//! What we ask of the kernel: namespaces, processes inside them, and their ends.
//!
//! The only `unsafe` of the crate lives here, each with its reason.
//!
//! | file | question |
//! |---|---|
//! | `namespace` | how do I make a namespace, enter it, keep it? |
//! | `caps` | what may a pod's process do to the kernel? |
//! | `launch` | how does a program start inside a pod or on a node? |
//! | `packets` | what passes on the wires? |
//! | `children` | which of our processes ended, and how? |
pub(crate) mod caps;
pub(crate) mod children;
pub(crate) mod launch;
pub(crate) mod namespace;
pub(crate) mod packets;
