//! The L7 proxy of a Gateway: takes the tunnels that ztunnels open to services behind it, reads the requests in them, and sends
//! each on to an endpoint, as the service's routes and policies say. What it is not: it knows no Kubernetes, captures no
//! traffic, and serves nobody but whom the control plane has put behind it.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | what was set → what it means |
//! | [`app`] | the parts, wired in order |
//! | `context` | what data threads read |
//! | `serving`, `worker` | what the tasks of a data thread share, and what it does |
//! | `routers` | what holds for what is behind this waypoint, or was until lately |
//! | `target` | which service a tunnel asks for (pure) |
//! | `tunnel` | one tunnel from its CONNECT to its end: what is spoken in it, and who speaks it here |
//! | `sniff` | the first bytes of a tunnel of which nobody has said what is spoken in it |
//! | `client_hello` | the name that a TLS client asks for, for TLSRoutes |
//! | `judge`, `asking` | what the policies of a service say; how much may be asked of others at once |
//! | `tokens` | the keys of issuers, and tokens that they have signed |
//! | `rate_limit` | how many requests pass, counted by all threads together |
//! | `ends` | when a caller's connection is ended in order |
//! | `leaving` | how long the waypoint is still open after it was told to end |
//! | `http` | requests: `pipeline` is the order of all that happens to one |
//! | `body`, `kept`, `limits` | bodies that pass through; those that may have to be sent again; the bounds |
//! | `room` | what a data thread may hold of something, shared by callers |
//! | `upstream` | connections to endpoints, kept for the next request |
//! | `spans` | spans of requests, brought to their collectors |
//! | `tcp` | what is no HTTP: where TCPRoutes and TLSRoutes send it, carried |
//!
//! To follow a request, begin with `tunnel`, then `http/pipeline.rs`.

pub mod app;
mod asking;
mod body;
mod client_hello;
pub mod config;
mod context;
mod ends;
mod http;
mod judge;
mod kept;
mod leaving;
mod limits;
mod rate_limit;
mod room;
mod routers;
mod serving;
mod sniff;
mod spans;
mod target;
mod tcp;
mod tokens;
mod tunnel;
mod upstream;
mod worker;

#[cfg(test)]
mod tests;
