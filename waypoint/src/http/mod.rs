//! Requests in a tunnel: who speaks HTTP with the caller, and what happens to each request.
//!
//! | file | holds |
//! |---|---|
//! | `serve` | a connection of a caller, HTTP/1 or HTTP/2 |
//! | `caller` | who speaks in it, and to whom |
//! | `pipeline` | the order of all that happens to a request |
//! | `form` | the canonical form of a request |
//! | `authenticate` | its tokens |
//! | `ask`, `coming` | somebody else who is asked about it, and what is shown of its body |
//! | `fault` | what is done to it on purpose |
//! | `limit` | how many of its kind pass |
//! | `call` | a question to another service, for `ask` and `limit` |
//! | `hop`, `mirror` | the service that a backend is; copies |
//! | `forward` | a request to one of its endpoints, and its answer |
//! | `hashed` | what a consistent hash takes of a request |
//! | `heads` | heads of requests that are not whole yet |
//! | `held` | what it is counted by meanwhile |
//! | `replay` | what may be sent again |
//! | `written` | how a request is written to an endpoint |
//! | `headers` | what may not pass, and what the waypoint says of the caller |
//! | `answer`, `denied` | what the waypoint answers itself; a no of the policies |
//! | `upgrade` | what follows when both ends have agreed on another protocol |
//! | `report` | metrics and access log of each request |
//! | `logging` | whether it has a line there |
//! | `trace` | what the next hop is told of its trace; its spans |
//! | `counted` | the label sets of requests' metrics |

mod answer;
mod ask;
mod authenticate;
mod call;
mod caller;
mod coming;
mod counted;
mod denied;
mod fault;
mod form;
mod forward;
mod grpc;
mod hashed;
mod headers;
mod heads;
mod held;
mod hop;
mod limit;
mod logging;
mod mirror;
mod pipeline;
mod replay;
mod report;
mod serve;
mod trace;
mod upgrade;
mod written;

pub(crate) use caller::Caller;
pub(crate) use hop::{behind_us, dialled};
pub(crate) use serve::{http1, http2};
