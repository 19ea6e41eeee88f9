//! The node's L4 proxy: takes this node's pods from the node agent, captures their TCP connections inside their
//! network namespaces, and carries them to their peers over HBONE. What it is not: it knows no Kubernetes, writes no
//! redirection rules, and parses no application protocol.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | what was set → what it means |
//! | [`app`] | the parts, wired in order |
//! | `pods` | this node's pods, handed over by the agent |
//! | `worker` | what the threads that move bytes do |
//! | `serving` | what one of them serves |
//! | `pod` | a pod as its connections see it, and the tasks that end with it |
//! | `sockets` | sockets in a pod's namespace |
//! | `listeners` | which listeners a pod has |
//! | `own` | pods that live where ztunnel does |
//! | `outbound` | connections that pods open: `plan` (pure), then carry |
//! | `carried` | what waypoints' pods carry of them |
//! | `inbound` | connections that come to pods: `admit` (pure), then carry; `plaintext` for those without a tunnel |
//! | [`dns`] | the DNS proxy: names of the mesh from the tables, all others forwarded |
//! | [`socks`] | what a SOCKS client says |
//! | [`local_xds`] | tables from a file |
//! | `pages` | what the admin port shows besides |
//! | `metrics`, `context` | counters, what workers read |
//!
//! To follow a byte, begin with `outbound`; `docs/flows/byte.md` has the whole way.

pub mod app;
mod carried;
pub mod config;
mod context;
mod dialler;
pub mod dns;
mod inbound;
mod listeners;
pub mod local_xds;
mod metrics;
mod outbound;
mod own;
mod pages;
mod pod;
mod pods;
mod serving;
pub mod sockets;
pub mod socks;
mod worker;
