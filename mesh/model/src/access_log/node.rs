//! Parts of an expression, and what they say of a request.

use std::borrow::Cow;
use std::cmp::Ordering;

use http::HeaderMap;
use http::header::HeaderName;
use regex::bytes::Regex;

use super::Seen;
use super::attribute::Attribute;
use super::value::Value;

/// A part of an expression, whose own parts have the types that it needs.
pub(super) enum Node {
    Constant(Value<'static>),
    Attribute(Attribute),
    /// Its values, with commas; empty where it is not there.
    Header(HeaderName),
    Has(Attribute),
    HasHeader(HeaderName),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare(Box<Node>, Op, Box<Node>),
    OneOf(Box<Node>, Vec<Value<'static>>),
    Is(Box<Node>, Pattern),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is asked of a text.
pub(super) enum Pattern {
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Matches(Box<Regex>),
}

impl Node {
    /// Whether it holds; None where it is not known.
    pub(super) fn holds(&self, seen: &Seen<'_>) -> Option<bool> {
        match self.value(seen)? {
            Value::Bool(holds) => Some(holds),
            _ => None,
        }
    }

    fn value<'a>(&'a self, seen: &Seen<'a>) -> Option<Value<'a>> {
        let holds = match self {
            Self::Constant(value) => return Some(value.clone()),
            Self::Attribute(attribute) => return attribute.of(seen),
            Self::Header(name) => return Some(Value::Text(text(seen.request?.headers, name))),
            Self::Has(attribute) => attribute.of(seen).is_some(),
            Self::HasHeader(name) => seen.request.is_some_and(|request| request.headers.contains_key(name)),
            Self::Not(node) => !node.holds(seen)?,
            Self::All(nodes) => return settled(nodes, seen, false),
            Self::Any(nodes) => return settled(nodes, seen, true),
            Self::Compare(left, op, right) => op.is(left.value(seen)?.partial_cmp(&right.value(seen)?)?),
            Self::OneOf(node, values) => values.contains(&node.value(seen)?),
            Self::Is(node, pattern) => match node.value(seen)? {
                Value::Text(text) => pattern.is(&text),
                _ => return None,
            },
        };
        Some(Value::Bool(holds))
    }

    /// The headers that it looks at.
    pub(super) fn headers(&self, found: &mut Vec<HeaderName>) {
        match self {
            Self::Header(name) | Self::HasHeader(name) => found.push(name.clone()),
            Self::Not(node) | Self::OneOf(node, _) | Self::Is(node, _) => node.headers(found),
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().for_each(|node| node.headers(found)),
            Self::Compare(left, _, right) => [left, right].into_iter().for_each(|node| node.headers(found)),
            Self::Constant(_) | Self::Attribute(_) | Self::Has(_) => {}
        }
    }
}

/// One that is `by` settles it, whatever is not known of others (CEL's `&&` and `||`).
fn settled<'a>(nodes: &'a [Node], seen: &Seen<'a>, by: bool) -> Option<Value<'a>> {
    let mut known = true;
    for node in nodes {
        match node.holds(seen) {
            Some(holds) if holds == by => return Some(Value::Bool(by)),
            Some(_) => {}
            None => known = false,
        }
    }
    known.then_some(Value::Bool(!by))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, str> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(first) = values.next() else { return Cow::Borrowed("") };
    values.fold(first, |all, value| Cow::Owned(format!("{all},{value}")))
}

impl Op {
    fn is(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Pattern {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::StartsWith(part) => text.starts_with(&**part),
            Self::EndsWith(part) => text.ends_with(&**part),
            Self::Contains(part) => text.contains(&**part),
            Self::Matches(regex) => regex.is_match(text.as_bytes()),
        }
    }
}
