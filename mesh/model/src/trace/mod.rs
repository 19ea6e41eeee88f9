//! Traces of requests: what a request says of the trace that it belongs to, whether it is sampled, what the next hop is told, and
//! the spans that a waypoint makes of it.
//!
//! | file | holds |
//! |---|---|
//! | here | what users have set ([`Tracing`]) |
//! | `context` | what a request says and what is said to the next hop: [`Context`] |
//! | `w3c`, `b3` | the two ways to say it |
//! | `span` | a step of a trace that has ended |
//! | `otlp` | spans as collectors take them |

use std::sync::Arc;

use http::HeaderMap;

use crate::address::NamespacedName;

mod b3;
mod context;
pub mod otlp;
mod read;
pub mod span;
mod w3c;

pub use context::{Context, is_sampled, request_id};

/// Bytes of a header's value that become a tag: a stranger decides how long it is.
pub const MOST_TAG_BYTES: usize = 256;

/// What becomes of the traces of a service's requests. A service without one leaves traces alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The extensionProvider, by its name.
    pub provider: Arc<str>,
    /// Who takes spans: a service and its port. `None`: nobody (`disableSpanReporting`); traces are handed on all the same.
    pub collector: Option<(NamespacedName, u16)>,
    /// Of 10,000 traces that begin at the waypoint, so many are sampled: `randomSamplingPercentage`, to its two decimals.
    pub sampling: u16,
    /// What spans say besides.
    pub tags: Vec<Tag>,
    /// Spans say whose workloads they are about (`istio.*`).
    pub istio_tags: bool,
}

/// Ten thousand of ten thousand.
pub const EVERY_TRACE: u16 = 10_000;

/// One of `customTags`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: Arc<str>,
    /// Where its value comes from.
    pub value: TagValue,
}

/// Where the value of a tag comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    /// It is this.
    Literal(Arc<str>),
    /// It is what a header of the request says, else the default; without either there is no tag.
    Header {
        /// In lower case.
        name: Arc<str>,
        /// Where the request has no such header, or one that is no text.
        default: Option<Arc<str>>,
    },
}

impl Tag {
    /// What it says of a request with these headers.
    pub fn of(&self, headers: &HeaderMap) -> Option<Box<str>> {
        match &self.value {
            TagValue::Literal(text) => Some((**text).into()),
            TagValue::Header { name, default } => {
                let told = headers.get(&**name).and_then(|value| value.to_str().ok());
                // Values that are text have one byte to a character.
                let told = told.map(|value| &value[..value.len().min(MOST_TAG_BYTES)]);
                told.or(default.as_deref()).map(Into::into)
            }
        }
    }
}

#[cfg(test)]
mod tests;
