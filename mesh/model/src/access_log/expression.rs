//! An expression: yes or no, of a request that has ended. A part of CEL (the Common Expression Language): comparisons of attributes, texts,
//! numbers and lengths of time, `&&`, `||`, `!`, `in`, `has()`, and what is asked of texts.
//!
//! It costs what its text is long: there are no loops in it, and a regular expression takes time that grows with the value only.

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;

use super::Seen;
use super::invalid::InvalidExpression;
use super::node::Node;
use super::parse;

/// An expression, ready to be asked. Two of the same text are the same.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    root: Arc<Node>,
    headers: Arc<[HeaderName]>,
}

impl Expression {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is something else than a comparison, or about something that is not known, by name.
    pub fn compile(text: &str) -> Result<Self, InvalidExpression> {
        let root = parse::parse(text)?;
        let mut headers = Vec::new();
        root.headers(&mut headers);
        headers.sort_unstable_by(|a: &HeaderName, b| a.as_str().cmp(b.as_str()));
        headers.dedup();
        Ok(Self { source: text.into(), root: root.into(), headers: headers.into() })
    }

    /// As it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it holds of this request. `None`: that depends on something that the request does not have.
    pub fn holds(&self, seen: &Seen<'_>) -> Option<bool> {
        self.root.holds(seen)
    }

    /// The headers that it looks at.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}
