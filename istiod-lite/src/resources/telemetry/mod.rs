//! Telemetry: what becomes of traces, and which requests are logged (`telemetry.istio.io`). Metrics are there in any case: what would
//! change them is told.

mod access_logging;
mod common;
mod metrics;

use std::collections::BTreeMap;

pub use access_logging::{AccessLogging, Filter};
pub use common::{Match, Mode, ProviderRef};
use http::header::HeaderName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use metrics::Metrics;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::authorization_policy::{TargetRef, WorkloadSelector, null_as_default};
use super::field::{FieldError, FieldPath};

/// Most tags of one object: each is a part of every span.
const MOST_TAGS: usize = 64;
/// Most bytes of a tag's name, literal or default.
const MOST_TAG_BYTES: usize = 256;

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: TelemetrySpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TelemetrySpec {
    /// Pods with a sidecar: there are none here.
    pub selector: Option<WorkloadSelector>,
    /// What it is for.
    pub target_ref: Option<TargetRef>,
    /// What it is for.
    #[serde(default, deserialize_with = "null_as_default")]
    pub target_refs: Vec<TargetRef>,
    /// Traces: one, as Istio follows no more.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tracing: Vec<Tracing>,
    /// What is counted.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metrics: Vec<Metrics>,
    /// Which requests have a line in the access log. In order: the last that is about a provider counts for it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub access_logging: Vec<AccessLogging>,
}

/// What becomes of traces. What is not set is as a less specific Telemetry says.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Which side of a request it is about.
    #[serde(rename = "match")]
    pub matches: Option<Match>,
    /// Who takes spans: one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub providers: Vec<ProviderRef>,
    /// Of traces that begin here, so many of a hundred are sampled.
    pub random_sampling_percentage: Option<f64>,
    /// No spans.
    pub disable_span_reporting: Option<bool>,
    /// What spans say besides.
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    /// Not followed where it is true: the id of the trace decides.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Spans have tags of Istio's own.
    pub enable_istio_tags: Option<bool>,
}

/// What a span says: one of them.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct CustomTag {
    /// This.
    pub literal: Option<Literal>,
    /// What a variable of the proxy's environment says: not followed.
    pub environment: Option<Named>,
    /// What a header of the request says.
    pub header: Option<Named>,
}

/// A text.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Literal {
    /// It.
    pub value: String,
}

/// What has a name, and may not be there.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Where it is not there.
    pub default_value: Option<String>,
}

impl Tracing {
    /// It is about requests that come to a waypoint.
    pub fn is_for_servers(&self) -> bool {
        Match::is_for_servers(self.matches.as_ref())
    }

    /// `randomSamplingPercentage`, of 10,000.
    pub fn sampling(&self) -> Option<u16> {
        // Checked to be from 0 to 100; what is finer than a hundredth is rounded.
        self.random_sampling_percentage.map(|percentage| (percentage * 100.0).round() as u16)
    }
}

/// Checks what the type alone does not.
///
/// # Errors
/// Names the field and what is wrong.
pub fn validate(object: &Telemetry) -> Result<(), FieldError> {
    let (spec, path) = (&object.spec, FieldPath::of("spec"));
    let targets = spec.target_ref.iter().chain(&spec.target_refs).count();
    if spec.selector.is_some() && targets > 0 {
        return Err(path.field("selector").error("selector and targetRefs exclude each other"));
    }
    metrics::validate(&spec.metrics, &path.field("metrics"))?;
    access_logging::validate(&spec.access_logging, &path.field("accessLogging"))?;
    let path = path.field("tracing");
    if spec.tracing.len() > 1 {
        return Err(path.index(1).error("one entry is followed, as in Istio: keep one"));
    }
    spec.tracing.iter().try_for_each(|tracing| tracing_entry(tracing, &path.index(0)))
}

fn tracing_entry(tracing: &Tracing, path: &FieldPath) -> Result<(), FieldError> {
    if tracing.providers.len() > 1 {
        return Err(path.field("providers").index(1).error("spans are sent to one provider: keep one"));
    }
    if tracing.providers.iter().any(|provider| provider.name.is_empty()) {
        return Err(path.field("providers").index(0).field("name").error("must not be empty"));
    }
    if let Some(percentage) = tracing.random_sampling_percentage
        && !(0.0..=100.0).contains(&percentage)
    {
        let path = path.field("randomSamplingPercentage");
        return Err(path.error(format!("{percentage} is no percentage: write 0 to 100, to two decimals")));
    }
    if tracing.use_request_id_for_trace_sampling == Some(true) {
        let path = path.field("useRequestIdForTraceSampling");
        return Err(
            path.error("true is not followed: the id of the trace decides, so that all hops agree; write false")
        );
    }
    let (tags, path) = (tracing.custom_tags.iter().flatten(), path.field("customTags"));
    if tags.clone().count() > MOST_TAGS {
        return Err(path.error(format!("at most {MOST_TAGS} tags")));
    }
    tags.clone().try_for_each(|(name, tag)| custom_tag(name, tag, &path.field(name)))
}

fn custom_tag(name: &str, tag: &CustomTag, path: &FieldPath) -> Result<(), FieldError> {
    let short = |text: &str, path: &FieldPath| match text.len() <= MOST_TAG_BYTES {
        true => Ok(()),
        false => Err(path.error(format!("longer than {MOST_TAG_BYTES} bytes"))),
    };
    if name.is_empty() {
        return Err(path.error("a tag has a name"));
    }
    short(name, path)?;
    match tag {
        CustomTag { environment: Some(_), .. } => Err(path
            .field("environment")
            .error("a waypoint has no environment of yours, so it is not followed: write a literal, or a header")),
        CustomTag { literal: Some(literal), header: None, .. } => short(&literal.value, &path.field("literal")),
        CustomTag { literal: None, header: Some(header), .. } => {
            let path = path.field("header");
            if HeaderName::from_bytes(header.name.as_bytes()).is_err() {
                return Err(path.field("name").error(format!("{:?} is no name of a header", header.name)));
            }
            short(header.default_value.as_deref().unwrap_or_default(), &path.field("defaultValue"))
        }
        _ => Err(path.error("write one of literal and header")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::resources::{Kind, Object};

    fn read(spec: &Value) -> Result<(), String> {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec});
        Object::from_value(Kind::Telemetry, &object).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let entry = json!({
            "match": {"mode": "SERVER"}, "providers": [{"name": "otel"}], "randomSamplingPercentage": 12.5,
            "disableSpanReporting": false, "enableIstioTags": true, "useRequestIdForTraceSampling": false,
            "customTags": {"a": {"literal": {"value": "x"}}, "b": {"header": {"name": "x-user", "defaultValue": "-"}}},
        });
        assert_eq!(read(&json!({"tracing": [entry]})), Ok(()));
        assert_eq!(read(&json!({"metrics": [{}]})), Ok(()), "its author is told");
        for (field, value, expected) in [
            ("providers", json!([{"name": "a"}, {"name": "b"}]), "providers[1]: spans are sent to one"),
            ("providers", json!([{"name": ""}]), "providers[0].name: must not be empty"),
            ("randomSamplingPercentage", json!(101), "randomSamplingPercentage: 101 is no percentage"),
            ("randomSamplingPercentage", json!(-0.1), "randomSamplingPercentage: -0.1 is no percentage"),
            ("useRequestIdForTraceSampling", json!(true), "useRequestIdForTraceSampling: true is not followed"),
            ("match", json!({"mode": "ALL"}), "match.mode: "),
            ("samplingPercentage", json!(1), "samplingPercentage: unknown field"),
            ("customTags", json!({"a": {}}), "customTags.a: write one of"),
            (
                "customTags",
                json!({"a": {"literal": {"value": "x"}, "header": {"name": "x"}}}),
                "customTags.a: write one of",
            ),
            (
                "customTags",
                json!({"a": {"environment": {"name": "HOME"}}}),
                "customTags.a.environment: a waypoint has no",
            ),
            ("customTags", json!({"a": {"header": {"name": "x y"}}}), "customTags.a.header.name: \"x y\" is no name"),
            ("customTags", json!({"a": {"literal": {"value": "x".repeat(257)}}}), "customTags.a.literal: longer than"),
            ("customTags", json!({"a": {"formatter": {"value": "x"}}}), "customTags.a.formatter: unknown field"),
        ] {
            let mut entry = entry.clone();
            entry[field] = value;
            let error = read(&json!({"tracing": [entry]})).unwrap_err();
            assert!(error.starts_with(&format!("spec.tracing[0].{expected}")), "{error} instead of {expected}");
        }
        let error = read(&json!({"tracing": [entry, entry]})).unwrap_err();
        assert!(error.starts_with("spec.tracing[1]: one entry is followed"), "{error}");
        let target = json!([{"kind": "Service", "name": "a"}]);
        let error = read(&json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": target})).unwrap_err();
        assert!(error.contains("exclude each other"), "{error}");
    }
}
