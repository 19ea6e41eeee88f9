//! Filters of a rule or backend ↔ `ambit.v1.RouteFilter`.

use std::sync::Arc;

use mesh_proto::ambit as pb;
use pb::route_filter::Kind;

use super::parts::{InvalidRule, or_empty, port, set, target, target_to_wire};
use crate::route::{Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite};
use crate::shared::text;

/// All of them.
const MILLION: u32 = 1_000_000;

pub(super) fn read(wire: pb::RouteFilter) -> Result<Filter, InvalidRule> {
    Ok(match wire.kind.ok_or(InvalidRule::Unsupported("a filter"))? {
        Kind::RequestHeaders(edit) => Filter::RequestHeaders(header_edit(edit)),
        Kind::ResponseHeaders(edit) => Filter::ResponseHeaders(header_edit(edit)),
        Kind::Redirect(to) => Filter::Redirect(redirect(to)?),
        Kind::Rewrite(to) => {
            Filter::Rewrite(Rewrite { hostname: set(&to.hostname), path: to.path.map(path_edit).transpose()? })
        }
        Kind::Mirror(to) => match to.millionths {
            0..=MILLION => Filter::Mirror(Mirror { backend: target(to.backend)?, millionths: to.millionths }),
            too_many => return Err(InvalidRule::Range("a mirror's share in millionths", too_many)),
        },
        Kind::Cors(cors) => Filter::Cors(Cors {
            allow_origins: texts(cors.allow_origins),
            allow_credentials: cors.allow_credentials,
            allow_methods: texts(cors.allow_methods),
            allow_headers: texts(cors.allow_headers),
            expose_headers: texts(cors.expose_headers),
            max_age: cors.max_age,
        }),
    })
}

fn texts(wire: Vec<String>) -> Vec<Arc<str>> {
    wire.iter().map(|t| text(t)).collect()
}

fn header_edit(wire: pb::HeaderEdit) -> HeaderEdit {
    let pairs = |list: Vec<pb::Header>| {
        list.iter().map(|header| (text(&header.name.to_ascii_lowercase()), text(&header.value))).collect()
    };
    HeaderEdit {
        set: pairs(wire.set),
        add: pairs(wire.add),
        remove: wire.remove.iter().map(|name| text(&name.to_ascii_lowercase())).collect(),
    }
}

fn redirect(wire: pb::Redirect) -> Result<Redirect, InvalidRule> {
    Ok(Redirect {
        scheme: set(&wire.scheme),
        hostname: set(&wire.hostname),
        path: wire.path.map(path_edit).transpose()?,
        port: match wire.port {
            0 => None,
            number => Some(port(number).ok_or(InvalidRule::Range("a redirect's port", number))?),
        },
        status: match u16::try_from(wire.status) {
            Ok(status @ (301 | 302 | 303 | 307 | 308)) => status,
            _ => return Err(InvalidRule::Range("a redirect's status", wire.status)),
        },
    })
}

fn path_edit(wire: pb::PathEdit) -> Result<PathEdit, InvalidRule> {
    use pb::path_edit::Kind;
    Ok(match wire.kind.ok_or(InvalidRule::Unsupported("a path modifier"))? {
        Kind::Whole(path) => PathEdit::Whole(path.into()),
        Kind::Prefix(path) => PathEdit::Prefix(path.into()),
        Kind::Matched(path) => PathEdit::Matched(path.into()),
    })
}

pub(super) fn write(filter: &Filter) -> pb::RouteFilter {
    let kind = match filter {
        Filter::RequestHeaders(edit) => Kind::RequestHeaders(header_edit_to_wire(edit)),
        Filter::ResponseHeaders(edit) => Kind::ResponseHeaders(header_edit_to_wire(edit)),
        Filter::Redirect(to) => Kind::Redirect(pb::Redirect {
            scheme: or_empty(to.scheme.as_ref()),
            hostname: or_empty(to.hostname.as_ref()),
            path: to.path.as_ref().map(path_edit_to_wire),
            port: to.port.unwrap_or_default().into(),
            status: to.status.into(),
        }),
        Filter::Rewrite(to) => Kind::Rewrite(pb::Rewrite {
            hostname: or_empty(to.hostname.as_ref()),
            path: to.path.as_ref().map(path_edit_to_wire),
        }),
        Filter::Mirror(to) => {
            Kind::Mirror(pb::Mirror { backend: Some(target_to_wire(&to.backend)), millionths: to.millionths })
        }
        Filter::Cors(cors) => Kind::Cors(pb::Cors {
            allow_origins: strings(&cors.allow_origins),
            allow_credentials: cors.allow_credentials,
            allow_methods: strings(&cors.allow_methods),
            allow_headers: strings(&cors.allow_headers),
            expose_headers: strings(&cors.expose_headers),
            max_age: cors.max_age,
        }),
    };
    pb::RouteFilter { kind: Some(kind) }
}

fn strings(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn header_edit_to_wire(edit: &HeaderEdit) -> pb::HeaderEdit {
    let pairs = |list: &[(Arc<str>, Arc<str>)]| {
        list.iter().map(|(name, value)| pb::Header { name: name.to_string(), value: value.to_string() }).collect()
    };
    pb::HeaderEdit { set: pairs(&edit.set), add: pairs(&edit.add), remove: strings(&edit.remove) }
}

fn path_edit_to_wire(edit: &PathEdit) -> pb::PathEdit {
    use pb::path_edit::Kind;
    let kind = match edit {
        PathEdit::Whole(path) => Kind::Whole(path.to_string()),
        PathEdit::Prefix(path) => Kind::Prefix(path.to_string()),
        PathEdit::Matched(path) => Kind::Matched(path.to_string()),
    };
    pb::PathEdit { kind: Some(kind) }
}
