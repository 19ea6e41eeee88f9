//! What only a VirtualService asks of a request (HTTPMatchRequest), besides its path.

use std::sync::Arc;

/// One of its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A header is there, and its value so. The name is in lower case.
    Header(Arc<str>, TextMatch),
    /// A header is not there, or its value not so. The name is in lower case.
    WithoutHeader(Arc<str>, TextMatch),
    /// A parameter of the query is there, and its first value so.
    Query(Arc<str>, TextMatch),
    /// The method.
    Method(TextMatch),
    /// The host, and the port if one is named.
    Authority(TextMatch),
    /// `http` or `https`.
    Scheme(TextMatch),
    /// The namespace of the caller, as its certificate has it.
    SourceNamespace(Arc<str>),
}

/// How a text is matched (StringMatch).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// Whatever it is.
    Present,
    /// It is this.
    Exact(Arc<str>),
    /// It begins with this.
    Prefix(Arc<str>),
    /// All of it, by a regular expression.
    Regex(Arc<str>),
}
