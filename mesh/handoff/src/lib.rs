//! The node agent gives ztunnel a pod and its network namespace: ZDS, both ends.
//!
//! The agent listens, ztunnels connect. One protobuf message is one packet of a `SOCK_SEQPACKET` Unix socket, one
//! message is outstanding at a time, and every message is acknowledged. The words are those of the node: `add` a pod
//! with the descriptor of its network namespace, `del` it, `keep` one whose descriptor is not at hand.
//!
//! ```text
//! ztunnel                         node agent
//!   ── hello ───────────────────────▶
//!   ◀── add pod A  + descriptor ─────
//!   ── ack ─────────────────────────▶
//!   ◀── snapshot sent ───────────────   what was not named until now is stopped
//!   ── ack ─────────────────────────▶
//!   ◀── add / del, as they happen ───
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | what is said, to and from bytes (pure) |
//! | [`ztunnel_end`] | [`ZtunnelEnd`]: connect, take requests, acknowledge |
//! | [`agent_end`] | [`AgentEnd`]: the pods of the node, told to every ztunnel that connects |
//!
//! Not here: what ztunnel does with a pod, and how the agent finds one. Begin with [`message`].

pub mod agent_end;
pub mod message;
mod socket;
pub mod ztunnel_end;

pub use agent_end::AgentEnd;
pub use message::Request;
pub use ztunnel_end::ZtunnelEnd;
