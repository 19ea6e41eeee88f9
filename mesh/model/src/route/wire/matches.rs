//! Matches of a rule ↔ `ambit.v1.RequestMatch`.

use mesh_proto::ambit as pb;
use pb::condition::What;
use pb::path_match::Kind;
use pb::text_match::Kind as TextKind;

use super::parts::{InvalidRule, or_empty, set};
use crate::route::{Condition, PathMatch, RequestMatch, TextMatch, ValueMatch};
use crate::shared::text;

pub(super) fn read(wire: pb::RequestMatch) -> Result<RequestMatch, InvalidRule> {
    let value = |v: pb::ValueMatch, name: &str| ValueMatch { name: text(name), value: text(&v.value), regex: v.regex };
    // Names of headers are case-insensitive (RFC 9110); those of query parameters are not.
    let header = |v: pb::ValueMatch| {
        let name = v.name.to_ascii_lowercase();
        value(v, &name)
    };
    let parameter = |v: pb::ValueMatch| {
        let name = v.name.clone();
        value(v, &name)
    };
    Ok(RequestMatch {
        path: wire.path.map(path).transpose()?,
        method: set(&wire.method),
        headers: wire.headers.into_iter().map(header).collect(),
        query: wire.query.into_iter().map(parameter).collect(),
        conditions: wire.conditions.into_iter().map(condition).collect::<Result<_, _>>()?,
    })
}

fn path(wire: pb::PathMatch) -> Result<PathMatch, InvalidRule> {
    Ok(match wire.kind.ok_or(InvalidRule::Unsupported("a path match"))? {
        Kind::Exact(path) => PathMatch::Exact(path.into()),
        Kind::Prefix(path) => PathMatch::Prefix(path.into()),
        Kind::Beginning(path) => PathMatch::Beginning(path.into()),
        Kind::Regex(path) => PathMatch::Regex(path.into()),
        Kind::ExactAnyCase(path) => PathMatch::ExactAnyCase(path.into()),
        Kind::BeginningAnyCase(path) => PathMatch::BeginningAnyCase(path.into()),
    })
}

fn condition(wire: pb::Condition) -> Result<Condition, InvalidRule> {
    let unsupported = InvalidRule::Unsupported("a condition");
    let value = |wire: Option<pb::TextMatch>| text_match(wire).ok_or(InvalidRule::Unsupported("a condition's text"));
    let lower = |name: &str| text(&name.to_ascii_lowercase());
    Ok(match wire.what.ok_or(unsupported)? {
        What::Header(of) => Condition::Header(lower(&of.name), value(of.text)?),
        What::WithoutHeader(of) => Condition::WithoutHeader(lower(&of.name), value(of.text)?),
        What::Query(of) => Condition::Query(text(&of.name), value(of.text)?),
        What::Method(of) => Condition::Method(value(Some(of))?),
        What::Authority(of) => Condition::Authority(value(Some(of))?),
        What::Scheme(of) => Condition::Scheme(value(Some(of))?),
        What::SourceNamespace(namespace) => Condition::SourceNamespace(text(&namespace)),
    })
}

fn text_match(wire: Option<pb::TextMatch>) -> Option<TextMatch> {
    Some(match wire?.kind? {
        TextKind::Present(_) => TextMatch::Present,
        TextKind::Exact(exact) => TextMatch::Exact(text(&exact)),
        TextKind::Prefix(prefix) => TextMatch::Prefix(text(&prefix)),
        TextKind::Regex(regex) => TextMatch::Regex(text(&regex)),
    })
}

fn condition_to_wire(condition: &Condition) -> pb::Condition {
    let named = |name: &str, text: &TextMatch| pb::NamedText { name: name.to_owned(), text: Some(text_to_wire(text)) };
    let what = match condition {
        Condition::Header(name, text) => What::Header(named(name, text)),
        Condition::WithoutHeader(name, text) => What::WithoutHeader(named(name, text)),
        Condition::Query(name, text) => What::Query(named(name, text)),
        Condition::Method(text) => What::Method(text_to_wire(text)),
        Condition::Authority(text) => What::Authority(text_to_wire(text)),
        Condition::Scheme(text) => What::Scheme(text_to_wire(text)),
        Condition::SourceNamespace(namespace) => What::SourceNamespace(namespace.to_string()),
    };
    pb::Condition { what: Some(what) }
}

fn text_to_wire(text: &TextMatch) -> pb::TextMatch {
    let kind = match text {
        TextMatch::Present => TextKind::Present(true),
        TextMatch::Exact(exact) => TextKind::Exact(exact.to_string()),
        TextMatch::Prefix(prefix) => TextKind::Prefix(prefix.to_string()),
        TextMatch::Regex(regex) => TextKind::Regex(regex.to_string()),
    };
    pb::TextMatch { kind: Some(kind) }
}

pub(super) fn write(m: &RequestMatch) -> pb::RequestMatch {
    let values = |list: &[ValueMatch]| list.iter().map(value_to_wire).collect();
    pb::RequestMatch {
        path: m.path.as_ref().map(path_to_wire),
        method: or_empty(m.method.as_ref()),
        headers: values(&m.headers),
        query: values(&m.query),
        conditions: m.conditions.iter().map(condition_to_wire).collect(),
    }
}

fn path_to_wire(path: &PathMatch) -> pb::PathMatch {
    let kind = match path {
        PathMatch::Exact(path) => Kind::Exact(path.to_string()),
        PathMatch::Prefix(path) => Kind::Prefix(path.to_string()),
        PathMatch::Beginning(path) => Kind::Beginning(path.to_string()),
        PathMatch::Regex(path) => Kind::Regex(path.to_string()),
        PathMatch::ExactAnyCase(path) => Kind::ExactAnyCase(path.to_string()),
        PathMatch::BeginningAnyCase(path) => Kind::BeginningAnyCase(path.to_string()),
    };
    pb::PathMatch { kind: Some(kind) }
}

fn value_to_wire(v: &ValueMatch) -> pb::ValueMatch {
    pb::ValueMatch { name: v.name.to_string(), value: v.value.to_string(), regex: v.regex }
}
