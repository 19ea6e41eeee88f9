//! Spans as collectors take them: messages of OTLP.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_proto::otlp as pb;
use prost::Message;
use prost::bytes::Bytes;

use super::span::{Kind, Span, Value};

/// The call by which a collector takes them.
pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The message of one call. `resource` says whose spans they are, `scope` which program has made them, and its version.
pub fn request(resource: &[(&'static str, String)], scope: (&str, &str), spans: Vec<Span>) -> Bytes {
    let own = |(key, value): &(&'static str, String)| attribute(((*key).into(), Value::Text(value.clone())));
    let of_scope = pb::ScopeSpans {
        scope: Some(pb::InstrumentationScope { name: scope.0.to_owned(), version: scope.1.to_owned() }),
        spans: spans.into_iter().map(span).collect(),
    };
    let of_resource = pb::ResourceSpans {
        resource: Some(pb::Resource { attributes: resource.iter().map(own).collect() }),
        scope_spans: vec![of_scope],
    };
    pb::ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec().into()
}

/// How many spans a collector has not taken, and why: what its answer to a call says, if that is one.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let said = pb::ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
    Some((u64::try_from(said.rejected_spans).ok().filter(|count| *count > 0)?, said.error_message))
}

fn span(span: Span) -> pb::Span {
    use pb::span::Kind as WireKind;
    let id = |id: u64| Bytes::copy_from_slice(&id.to_be_bytes());
    pb::Span {
        trace_id: Bytes::copy_from_slice(&span.trace_id.to_be_bytes()),
        span_id: id(span.id),
        trace_state: String::new(),
        parent_span_id: span.parent.map(id).unwrap_or_default(),
        name: span.name,
        kind: match span.kind {
            Kind::Server => WireKind::Server,
            Kind::Client => WireKind::Client,
        }
        .into(),
        start_time_unix_nano: nanoseconds(span.began),
        end_time_unix_nano: nanoseconds(span.began + span.took),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        status: span.failed.then(|| pb::Status { message: String::new(), code: pb::status::Code::Error.into() }),
        flags: span.flags.into(),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn attribute((key, value): (Cow<'static, str>, Value)) -> pb::KeyValue {
    use pb::any_value::Value as WireValue;
    let value = match value {
        Value::Text(text) => WireValue::StringValue(text),
        Value::Number(number) => WireValue::IntValue(number),
    };
    pb::KeyValue { key: key.into_owned(), value: Some(pb::AnyValue { value: Some(value) }) }
}
