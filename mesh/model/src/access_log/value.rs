//! What parts of an expression come to.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What a part of an expression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Text,
    Duration,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false",
            Self::Int => "a number",
            Self::Text => "a text",
            Self::Duration => "a length of time, as duration('1s')",
        })
    }
}

/// What a part of it comes to.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    Duration(Duration),
}

impl Value<'_> {
    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Text(_) => Type::Text,
            Self::Duration(_) => Type::Duration,
        }
    }
}
