//! Which requests have a line in the access log, and the expressions by which users say so.
//!
//! | file | holds |
//! |---|---|
//! | here | what users have set ([`AccessLogging`]), and what is known of a request when it has ended ([`Seen`]) |
//! | `attribute` | the names by which expressions speak of it: Envoy's |
//! | `expression` | an expression, ready to be asked |
//! | `node`, `value` | its parts, and what they come to |
//! | `parse`, `lex`, `invalid` | from its text, or why not; types are checked, so that nothing is left to fail but what a request does not have |

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

use crate::identity::SpiffeId;

mod attribute;
mod expression;
mod invalid;
mod lex;
mod node;
mod parse;
mod value;

pub use expression::Expression;
pub use invalid::InvalidExpression;

/// Most expressions of one service: one for each provider that writes there.
pub const MOST_FILTERS: usize = 16;

/// Which requests of a service have a line in the access log. A service without one: all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AccessLogging {
    /// Those of which one of these holds. Empty: none.
    pub filters: Vec<Expression>,
}

impl AccessLogging {
    /// Whether there is a line. What an expression cannot be asked of, because it has no such attribute, is logged: a filter hides what
    /// its author knows, never what he did not think of. (Envoy hides it.)
    pub fn logs(&self, seen: &Seen<'_>) -> bool {
        self.filters.iter().any(|filter| filter.holds(seen).unwrap_or(true))
    }

    /// The headers of requests that have to be kept until then.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.filters.iter().flat_map(Expression::headers)
    }
}

/// What is known of a request, or of a connection that is no HTTP, when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Where it came from.
    pub source: SocketAddr,
    /// What was dialled.
    pub destination: SocketAddr,
    /// The endpoint that it was sent to.
    pub upstream: Option<SocketAddr>,
    /// The identity that the caller has proven.
    pub peer: Option<&'a SpiffeId>,
    /// The request.
    pub request: Option<SeenRequest<'a>>,
}

/// A request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct SeenRequest<'a> {
    /// Its method.
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// `Host` or `:authority`.
    pub host: &'a str,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// At least those of [`AccessLogging::headers`].
    pub headers: &'a HeaderMap,
    /// What was answered, if anything was.
    pub code: Option<u16>,
    /// gRPC's own, of a call that was told one.
    pub grpc_status: Option<u8>,
    /// Envoy's words for how it ended, with commas; `-` if well.
    pub flags: &'a str,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's.
    pub sent: u64,
    /// From its first byte to the last of its answer.
    pub duration: Duration,
}

#[cfg(test)]
mod tests;
