//! What becomes of traces ↔ `ambit.v1.Tracing`.

use http::header::HeaderName;
use mesh_proto::ambit as pb;
use pb::span_tag::Value as WireValue;

use super::parts::{port, service};
use crate::address::is_key_part;
use crate::shared::text;
use crate::trace::{EVERY_TRACE, Tag, TagValue, Tracing};

/// None when it names a collector or a header that is none, or samples more than everything.
pub(super) fn read(wire: &pb::Tracing) -> Option<Tracing> {
    let collector = match &wire.collector {
        Some(to) if is_key_part(&to.namespace) && is_key_part(&to.hostname) => {
            Some((service(&to.namespace, &to.hostname), port(to.port)?))
        }
        Some(_) => return None,
        None => None,
    };
    Some(Tracing {
        provider: text(&wire.provider),
        collector,
        sampling: u16::try_from(wire.sampling).ok().filter(|sampling| *sampling <= EVERY_TRACE)?,
        tags: wire.tags.iter().map(tag).collect::<Option<_>>()?,
        istio_tags: wire.istio_tags,
    })
}

fn tag(wire: &pb::SpanTag) -> Option<Tag> {
    let value = match wire.value.as_ref()? {
        WireValue::Literal(literal) => TagValue::Literal(text(literal)),
        WireValue::Header(header) => TagValue::Header {
            name: HeaderName::from_bytes(header.name.as_bytes()).ok().map(|name| text(name.as_str()))?,
            default: header.default.as_deref().map(text),
        },
    };
    (!wire.name.is_empty()).then(|| Tag { name: text(&wire.name), value })
}

pub(super) fn write(tracing: &Tracing) -> pb::Tracing {
    let collector = tracing.collector.as_ref().map(|(service, port)| pb::ServicePort {
        namespace: service.namespace.to_string(),
        hostname: service.name.to_string(),
        port: (*port).into(),
    });
    let tag = |tag: &Tag| pb::SpanTag {
        name: tag.name.to_string(),
        value: Some(match &tag.value {
            TagValue::Literal(literal) => WireValue::Literal(literal.to_string()),
            TagValue::Header { name, default } => WireValue::Header(pb::TagHeader {
                name: name.to_string(),
                default: default.as_ref().map(ToString::to_string),
            }),
        }),
    };
    pb::Tracing {
        provider: tracing.provider.to_string(),
        collector,
        sampling: tracing.sampling.into(),
        tags: tracing.tags.iter().map(tag).collect(),
        istio_tags: tracing.istio_tags,
    }
}
