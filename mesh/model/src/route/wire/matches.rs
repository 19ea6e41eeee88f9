//! Matches of a rule ↔ `ambit.v1.RequestMatch`.

use mesh_proto::ambit as pb;
use pb::path_match::Kind;

use super::parts::{InvalidRule, or_empty, set};
use crate::route::{PathMatch, RequestMatch, ValueMatch};
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
    })
}

fn path(wire: pb::PathMatch) -> Result<PathMatch, InvalidRule> {
    Ok(match wire.kind.ok_or(InvalidRule::Unsupported("a path match"))? {
        Kind::Exact(path) => PathMatch::Exact(path.into()),
        Kind::Prefix(path) => PathMatch::Prefix(path.into()),
        Kind::Beginning(path) => PathMatch::Beginning(path.into()),
        Kind::Regex(path) => PathMatch::Regex(path.into()),
    })
}

pub(super) fn write(m: &RequestMatch) -> pb::RequestMatch {
    let values = |list: &[ValueMatch]| list.iter().map(value_to_wire).collect();
    pb::RequestMatch {
        path: m.path.as_ref().map(path_to_wire),
        method: or_empty(m.method.as_ref()),
        headers: values(&m.headers),
        query: values(&m.query),
    }
}

fn path_to_wire(path: &PathMatch) -> pb::PathMatch {
    let kind = match path {
        PathMatch::Exact(path) => Kind::Exact(path.to_string()),
        PathMatch::Prefix(path) => Kind::Prefix(path.to_string()),
        PathMatch::Beginning(path) => Kind::Beginning(path.to_string()),
        PathMatch::Regex(path) => Kind::Regex(path.to_string()),
    };
    pb::PathMatch { kind: Some(kind) }
}

fn value_to_wire(v: &ValueMatch) -> pb::ValueMatch {
    pb::ValueMatch { name: v.name.to_string(), value: v.value.to_string(), regex: v.regex }
}
