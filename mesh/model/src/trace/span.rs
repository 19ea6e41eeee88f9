//! A step of a trace that has ended.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// A step of a trace that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace_id: u128,
    /// Its own id: never 0.
    pub id: u64,
    /// The step that led to it; none if the trace begins with it.
    pub parent: Option<u64>,
    /// The trace's W3C flags.
    pub flags: u8,
    /// Which side of a request it is.
    pub kind: Kind,
    /// What it is about; few of them, so that spans can be counted by it.
    pub name: String,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What there is to say of it.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
    /// It failed.
    pub failed: bool,
}

/// Which side of a request a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of who was asked.
    Server,
    /// Of who asked.
    Client,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}
