//! Delta xDS as two state machines without sockets or clock: what a message means, and what follows.
//!
//! Both count in names and versions. The client knows what it holds and declares that on a new stream; the server
//! knows what a client has, by declaration or because it was sent, and owes the difference to what there is.

pub mod client;
pub mod measure;
pub mod server;

pub use client::{Client, Unsubscribed};
pub use server::Subscriber;

/// Stands for everything in a list of names.
pub const WILDCARD: &str = "*";
