//! Rules of TCPRoutes and TLSRoutes ↔ `ambit.v1.StreamRule`.

use mesh_proto::ambit as pb;
use pb::stream_rule::Kind;

use super::parts::{InvalidRule, or_empty, port, set, target, target_to_wire};
use crate::address::NamespacedName;
use crate::route::{StreamBackend, StreamKind, StreamRule};
use crate::shared::text;

pub(super) fn read(wire: pb::StreamRule) -> Result<StreamRule, InvalidRule> {
    let kind = match Kind::try_from(wire.kind) {
        Ok(Kind::Tcp) => StreamKind::Tcp,
        Ok(Kind::Tls) => StreamKind::Tls,
        Ok(Kind::Unspecified) | Err(_) => return Err(InvalidRule::Kind(wire.kind)),
    };
    if (kind == StreamKind::Tls) == wire.hostnames.is_empty() {
        return Err(InvalidRule::Hostnames);
    }
    let backend = |wire: pb::StreamBackend| Ok(StreamBackend { target: target(wire.target)?, weight: wire.weight });
    Ok(StreamRule {
        kind,
        route: NamespacedName::parse_shared(&wire.route).ok_or(InvalidRule::Route)?,
        name: text(&wire.name),
        port: match wire.port {
            0 => None,
            number => Some(port(number).ok_or(InvalidRule::Range("port", number))?),
        },
        callers: set(&wire.callers),
        hostnames: wire.hostnames.iter().map(|name| text(&name.to_ascii_lowercase())).collect(),
        backends: wire.backends.into_iter().map(backend).collect::<Result<_, _>>()?,
    })
}

pub(super) fn write(rule: &StreamRule) -> pb::StreamRule {
    let backend =
        |of: &StreamBackend| pb::StreamBackend { target: Some(target_to_wire(&of.target)), weight: of.weight };
    pb::StreamRule {
        kind: match rule.kind {
            StreamKind::Tcp => Kind::Tcp,
            StreamKind::Tls => Kind::Tls,
        }
        .into(),
        route: rule.route.to_string(),
        name: rule.name.to_string(),
        port: rule.port.unwrap_or_default().into(),
        callers: or_empty(rule.callers.as_ref()),
        hostnames: rule.hostnames.iter().map(ToString::to_string).collect(),
        backends: rule.backends.iter().map(backend).collect(),
    }
}
