//! The delta xDS protocol, both ends (Istio ambient contract, section 7).
//!
//! | module | holds |
//! |---|---|
//! | [`delta`] | who has what, who wants what, what is owed: the two ends as state machines (pure) |
//! | [`audience`] | who is told of a resource (pure) |
//! | [`published`] | what a control plane says now, and what changed since before |
//! | [`server`] | one subscriber's session over gRPC, and how much subscribers may hold |
//! | [`budget`] | an amount that callers share: each may hold as much as is left for the others |
//! | [`acknowledged`] | what every subscriber has taken in |
//! | [`follow`] | a proxy's tables: one writer, many readers |
//! | [`node`] | how a proxy introduces itself (pure) |
//! | [`demand`] | asks for what a decision lacks, when addresses come only on demand |
//! | [`client`] | keeps the tables following the control plane: stream, reconnects, apply, acknowledge |
//! | [`observe`] | what is counted |
//!
//! A proxy begins with [`follow::tables`] and hands the writer to [`client::run`]; a control plane begins with
//! [`published::Publisher`] and serves [`server::Discovery`].

pub mod acknowledged;
pub mod audience;
pub mod budget;
pub mod client;
pub mod delta;
pub mod demand;
pub mod follow;
pub mod node;
pub mod observe;
pub mod published;
pub mod server;

/// The service, both ends, generated from discovery.proto.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from discovery.proto, which documents it")]
pub mod service {
    tonic::include_proto!("envoy.service.discovery.v3");
}

#[cfg(test)]
mod tests;
