//! What the parts of routes have in common on the wire.

use std::sync::Arc;
use std::time::Duration;

use mesh_proto::ambit as pb;

use crate::address::{NamespacedName, is_key_part};
use crate::route::BackendTarget;
use crate::shared::text;

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// A kind of route this version does not know.
    #[error("route kind {0} is not supported")]
    Kind(i32),
    /// The route is not named by namespace and name.
    #[error("the route is not namespace/name")]
    Route,
    /// Nothing to match by.
    #[error("it has no match, and one that matches everything is one")]
    NoMatch,
    /// A TLSRoute without names, or a TCPRoute with some.
    #[error("hostnames are there for a TLSRoute, and for no other")]
    Hostnames,
    /// A part that holds none of what this version knows.
    #[error("{0} is of a kind that is not supported")]
    Unsupported(&'static str),
    /// A number out of its range.
    #[error("{0} {1} is out of range")]
    Range(&'static str, u32),
    /// A length of time that is negative or too long.
    #[error("{0} is no length of time")]
    Duration(&'static str),
}

pub(super) fn port(port: u32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// Hostnames are case-insensitive (RFC 1035) and kept in lower case.
pub(super) fn service(namespace: &str, hostname: &str) -> NamespacedName {
    NamespacedName::new(text(namespace), text(&hostname.to_ascii_lowercase()))
}

/// A text that is empty where nothing is set.
pub(super) fn set(wire: &str) -> Option<Arc<str>> {
    (!wire.is_empty()).then(|| text(wire))
}

pub(super) fn or_empty(text: Option<&Arc<str>>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

pub(super) fn target(wire: Option<pb::BackendTarget>) -> Result<BackendTarget, InvalidRule> {
    use pb::backend_target::Kind;
    let none = || InvalidRule::Unsupported("a backend");
    Ok(match wire.and_then(|target| target.kind).ok_or_else(none)? {
        Kind::Service(to) => {
            let (service, port) = service_port(&to)?;
            BackendTarget::Service(service, port)
        }
        Kind::Subset(to) => {
            let (service, port) = service_port(&to.service.ok_or_else(none)?)?;
            BackendTarget::Subset(service, port, set(&to.subset).ok_or_else(none)?)
        }
        Kind::Invalid(why) => BackendTarget::Invalid(text(&why)),
    })
}

fn service_port(to: &pb::ServicePort) -> Result<(NamespacedName, u16), InvalidRule> {
    if !is_key_part(&to.namespace) || !is_key_part(&to.hostname) {
        return Err(InvalidRule::Unsupported("a backend"));
    }
    let port = port(to.port).ok_or(InvalidRule::Range("a backend's port", to.port))?;
    Ok((service(&to.namespace, &to.hostname), port))
}

pub(super) fn target_to_wire(target: &BackendTarget) -> pb::BackendTarget {
    use pb::backend_target::Kind;
    let of = |service: &NamespacedName, port: u16| pb::ServicePort {
        namespace: service.namespace.to_string(),
        hostname: service.name.to_string(),
        port: port.into(),
    };
    let kind = match target {
        BackendTarget::Service(service, port) => Kind::Service(of(service, *port)),
        BackendTarget::Subset(service, port, subset) => {
            Kind::Subset(pb::SubsetPort { service: Some(of(service, *port)), subset: subset.to_string() })
        }
        BackendTarget::Invalid(why) => Kind::Invalid(why.to_string()),
    };
    pb::BackendTarget { kind: Some(kind) }
}

/// Zero is no limit, as in Gateway API.
pub(super) fn duration(
    what: &'static str,
    wire: Option<mesh_proto::Duration>,
) -> Result<Option<Duration>, InvalidRule> {
    let Some(wire) = wire else { return Ok(None) };
    let length = Duration::try_from(wire).map_err(|_| InvalidRule::Duration(what))?;
    Ok((!length.is_zero()).then_some(length))
}

/// One that is too long to be said is as good as for ever.
pub(super) fn duration_to_wire(length: Duration) -> mesh_proto::Duration {
    length.try_into().unwrap_or(mesh_proto::Duration { seconds: i64::MAX, nanos: 0 })
}
