//! What more than one program needs of a Kubernetes API server.
//!
//! | module | question |
//! |---|---|
//! | [`access`] | which API server, and how do we prove who we are? |
//! | [`resource`] | under which path does it serve a kind? (pure) |
//! | [`raw`] | which object is this text? (pure) |
//! | [`watch`] | what is there of a kind, and what changes? |
//! | [`mod@list`] | what is there of a kind now, for who asks once? |
//! | [`mod@write`] | how is an object made, or a part of it set? |
//!
//! Nothing here knows what an object says: objects are text with a name, and whoever asked for them reads them. So an object
//! that nobody can read is a value like any other, and never the end of a watch.

pub mod access;
pub mod list;
pub mod raw;
pub mod resource;
pub mod watch;
pub mod write;

pub use access::Access;
pub use kube::Client;
pub use raw::{Meta, Raw};
pub use resource::Resource;
pub use watch::{Event, Query, Watch, WatchMetrics};
