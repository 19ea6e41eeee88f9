//! Authorizers ↔ `ambit.v1.Authorizer`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_proto::ambit as pb;
use mesh_proto::policy::StringMatch as WireString;

use super::{Authorizer, BodyInCheck, HttpCheck, Protocol};
use crate::address::{NamespacedName, is_key_part};
use crate::policy::strings::{self, StringMatch};
use crate::shared::text;

/// None when any of it cannot be read: nobody is asked in another way than was meant.
pub(crate) fn read(wire: pb::Authorizer) -> Option<Authorizer> {
    let service = wire.service?;
    if wire.name.is_empty() || !is_key_part(&service.namespace) || !is_key_part(&service.hostname) {
        return None;
    }
    Some(Authorizer {
        name: text(&wire.name),
        service: NamespacedName::new(text(&service.namespace), text(&service.hostname.to_ascii_lowercase())),
        port: u16::try_from(service.port).ok().filter(|port| *port != 0)?,
        timeout: Duration::try_from(wire.timeout?).ok()?,
        fail_open: wire.fail_open,
        status_on_error: StatusCode::from_u16(u16::try_from(wire.status_on_error).ok()?).ok()?,
        body: wire.body.map(|body| BodyInCheck {
            most: body.most,
            allow_partial: body.allow_partial,
            as_bytes: body.as_bytes,
        }),
        protocol: match wire.http {
            None => Protocol::Grpc,
            Some(http) => Protocol::Http(http_check(http)?),
        },
    })
}

fn http_check(wire: pb::HttpAuthorizer) -> Option<HttpCheck> {
    let patterns = |list: Vec<WireString>| list.into_iter().map(strings::read).collect::<Option<Vec<_>>>();
    Some(HttpCheck {
        path_prefix: text(&wire.path_prefix),
        request_headers: patterns(wire.request_headers)?,
        additional_headers: wire.additional_headers.iter().map(|h| (text(&h.name), text(&h.value))).collect(),
        upstream_on_allow: patterns(wire.upstream_on_allow)?,
        downstream_on_deny: patterns(wire.downstream_on_deny)?,
        downstream_on_allow: patterns(wire.downstream_on_allow)?,
    })
}

pub(crate) fn write(authorizer: &Authorizer) -> pb::Authorizer {
    pb::Authorizer {
        name: authorizer.name.to_string(),
        service: Some(pb::ServicePort {
            namespace: authorizer.service.namespace.to_string(),
            hostname: authorizer.service.name.to_string(),
            port: authorizer.port.into(),
        }),
        timeout: authorizer.timeout.try_into().ok(),
        fail_open: authorizer.fail_open,
        status_on_error: authorizer.status_on_error.as_u16().into(),
        body: authorizer.body.map(|body| pb::BodyInCheck {
            most: body.most,
            allow_partial: body.allow_partial,
            as_bytes: body.as_bytes,
        }),
        http: match &authorizer.protocol {
            Protocol::Grpc => None,
            Protocol::Http(check) => Some(check_to_wire(check)),
        },
    }
}

fn check_to_wire(check: &HttpCheck) -> pb::HttpAuthorizer {
    let patterns = |list: &[StringMatch]| list.iter().map(strings::write).collect();
    let header = |(name, value): &(Arc<str>, Arc<str>)| pb::Header { name: name.to_string(), value: value.to_string() };
    pb::HttpAuthorizer {
        path_prefix: check.path_prefix.to_string(),
        request_headers: patterns(&check.request_headers),
        additional_headers: check.additional_headers.iter().map(header).collect(),
        upstream_on_allow: patterns(&check.upstream_on_allow),
        downstream_on_deny: patterns(&check.downstream_on_deny),
        downstream_on_allow: patterns(&check.downstream_on_allow),
    }
}
