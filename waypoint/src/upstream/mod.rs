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
//! | `choose` | which endpoint |
//! | `acquire` | a connection to it: a kept one, a new one, or the next that is free |
//! | `service_port`, `ports` | what data threads share of a service's port, and of all of them |
//! | `endpoint_state` | what is known of an endpoint of such a port |
//! | `clock` | the time by which endpoints are judged |
//! | `circuit`, `permit` | how much there may be at once; one of it |
//! | `metrics` | limits and ejections, counted |

mod acquire;
mod choose;
mod circuit;
mod clock;
mod connection;
mod endpoint;
mod endpoint_state;
mod metrics;
mod open;
mod permit;
mod pool;
mod ports;
mod service_port;
mod stream;

pub(crate) use acquire::{acquire, give_back, shed, stream};
pub(crate) use choose::{Picked, choose, hash_of_address};
pub(crate) use circuit::Limit;
pub(crate) use clock::Clock;
pub(crate) use connection::{HttpVersion, LocalExecutor, SendError, UpgradedStream};
pub(crate) use endpoint::Unreachable;
pub(crate) use metrics::UpstreamMetrics;
pub(crate) use permit::Permit;
pub(crate) use pool::{Carried, Key, Pool, PooledConnection};
pub(crate) use ports::{KnownPorts, ServicePorts};
pub(crate) use service_port::Active;
