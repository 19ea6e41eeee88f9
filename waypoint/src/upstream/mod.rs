//! Connections to endpoints, and those that are kept for the next request.
//!
//! An endpoint is reached as ztunnel would reach it: through a tunnel if it is in the mesh, as the waypoint's own identity, else
//! plainly. What is spoken inside is HTTP/1 or HTTP/2.
//!
//! | file | holds |
//! |---|---|
//! | `endpoint` | one endpoint as it is reached, and why it cannot be |
//! | `open` | opens a stream to it |
//! | `stream` | that stream: a tunnel, or plain TCP |
//! | `connection` | HTTP on a stream |
//! | `pool` | connections that are kept |

mod connection;
mod endpoint;
mod open;
mod pool;
mod stream;

pub(crate) use connection::{Connection, HttpVersion, LocalExecutor, UpgradedStream};
pub(crate) use endpoint::{Endpoint, Unreachable};
pub(crate) use open::open;
pub(crate) use pool::{Key, Pool, PooledConnection};
