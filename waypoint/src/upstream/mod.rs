//! Connections to endpoints: the way to each, and those that are kept for the next request.
//!
//! An endpoint is reached as ztunnel would reach it: through a tunnel if it is in the mesh, as the waypoint's own identity, else
//! plainly. What is spoken inside is HTTP/1 or HTTP/2.
//!
//! | file | holds |
//! |---|---|
//! | `way` | the way to one endpoint, and why there is none |
//! | `open` | goes it |
//! | `stream` | what is at its end |
//! | `connection` | HTTP on a stream |
//! | `pool` | connections that are kept |

mod connection;
mod open;
mod pool;
mod stream;
mod way;

pub(crate) use connection::{Connection, Handed, HttpVersion, LocalExecutor};
pub(crate) use open::open;
pub(crate) use pool::{Key, Lent, Pool};
pub(crate) use way::{Unreachable, Way};
