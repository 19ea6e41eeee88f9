//! RequestAuthentication: whose tokens of requests are taken (`security.istio.io`).

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::authorization_policy::{TargetRef, WorkloadSelector, null_as_default};
use super::field::{FieldError, FieldPath};
use super::gateway_api::parse_duration;
use super::key_source::{self, KeySource};

/// Most bytes of a JWKS: some hundred keys.
pub const MAX_JWKS: usize = 64 << 10;
/// Longest that fetching a JWKS may take.
const MAX_FETCH: Duration = Duration::from_secs(30);
/// Most rules of one object. Istio's definition allows 4096; each may cost a look at every request.
const MAX_RULES: usize = 64;

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestAuthentication {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: RequestAuthenticationSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestAuthenticationSpec {
    /// Pods with a sidecar: there are none here.
    pub selector: Option<WorkloadSelector>,
    /// What it is for.
    pub target_ref: Option<TargetRef>,
    /// What it is for.
    #[serde(default, deserialize_with = "null_as_default")]
    pub target_refs: Vec<TargetRef>,
    /// Issuers, any of them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub jwt_rules: Vec<JwtRule>,
}

/// One issuer, and its tokens.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtRule {
    /// The claim `iss`.
    pub issuer: String,
    /// One of them must be in `aud`; none is any.
    #[serde(default, deserialize_with = "null_as_default")]
    pub audiences: Vec<String>,
    /// Where its keys are; without this and `jwks`, its OpenID configuration says so.
    pub jwks_uri: Option<String>,
    /// Its keys.
    pub jwks: Option<String>,
    /// Headers that hold a token. Without these, params and cookies: `Authorization: Bearer` and `access_token` of the query.
    #[serde(default, deserialize_with = "null_as_default")]
    pub from_headers: Vec<JwtHeader>,
    /// Parameters of the query that hold one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub from_params: Vec<String>,
    /// Cookies that hold one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub from_cookies: Vec<String>,
    /// A header in which the application gets the payload.
    pub output_payload_to_header: Option<String>,
    /// Headers in which it gets claims.
    #[serde(default, deserialize_with = "null_as_default")]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// The application gets the token, too.
    #[serde(default, deserialize_with = "null_as_default")]
    pub forward_original_token: bool,
    /// How long fetching the keys may take.
    pub timeout: Option<String>,
    /// Claims that are lists, whose items spaces part.
    #[serde(default, deserialize_with = "null_as_default")]
    pub space_delimited_claims: Vec<String>,
}

impl JwtRule {
    /// Where its keys are; None: it has them itself.
    pub fn key_source(&self) -> Option<KeySource> {
        match (&self.jwks, &self.jwks_uri) {
            (Some(_), _) => None,
            (None, Some(uri)) => Some(KeySource::Uri(uri.as_str().into())),
            (None, None) => Some(KeySource::Issuer(self.issuer.as_str().into())),
        }
    }

    /// How long fetching them may take: what it says, else 5 s as Istio has it, and no longer than 30 s.
    pub fn fetch_timeout(&self) -> Duration {
        self.timeout.as_deref().and_then(parse_duration).unwrap_or(Duration::from_secs(5)).min(MAX_FETCH)
    }
}

/// A header that holds a token.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token.
    #[serde(default, deserialize_with = "null_as_default")]
    pub prefix: String,
}

/// A header in which the application gets a claim.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct ClaimToHeader {
    /// Its name.
    pub header: String,
    /// The claim; dots part the names of the objects around it.
    pub claim: String,
}

/// Checks what the type alone does not.
///
/// # Errors
/// Names the first field that is wrong.
pub fn validate(object: &RequestAuthentication) -> Result<(), FieldError> {
    let (spec, path) = (&object.spec, FieldPath::of("spec"));
    if let Some(selector) = &spec.selector {
        selector.validate(&path.field("selector"))?;
    }
    if (spec.target_ref.is_some() || !spec.target_refs.is_empty()) && spec.selector.is_some() {
        return Err(path.field("selector").error("selector and targetRefs exclude each other: keep one"));
    }
    if spec.target_ref.is_some() && !spec.target_refs.is_empty() {
        return Err(path.field("targetRef").error("targetRef and targetRefs exclude each other: keep one"));
    }
    let rules = path.field("jwtRules");
    if spec.jwt_rules.len() > MAX_RULES {
        return Err(rules.error(format!("more than {MAX_RULES} rules")));
    }
    for (i, rule) in spec.jwt_rules.iter().enumerate() {
        validate_rule(rule, &rules.index(i))?;
    }
    Ok(())
}

fn validate_rule(rule: &JwtRule, path: &FieldPath) -> Result<(), FieldError> {
    not_empty(&rule.issuer, &path.field("issuer"))?;
    for (name, texts) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (i, text) in texts.iter().enumerate() {
            not_empty(text, &path.field(name).index(i))?;
        }
    }
    if rule.jwks.is_some() && rule.jwks_uri.is_some() {
        return Err(path.field("jwks").error("jwks and jwksUri exclude each other: keep one"));
    }
    if let Some(uri) = &rule.jwks_uri {
        validate_uri(uri, &path.field("jwksUri"))?;
    }
    if let Some(jwks) = &rule.jwks {
        key_set(jwks).map_err(|why| path.field("jwks").error(why))?;
    }
    for (i, header) in rule.from_headers.iter().enumerate() {
        header_name(&header.name, &path.field("fromHeaders").index(i).field("name"))?;
    }
    if let Some(name) = &rule.output_payload_to_header {
        output_header(name, &path.field("outputPayloadToHeader"))?;
    }
    for (i, told) in rule.output_claim_to_headers.iter().enumerate() {
        let path = path.field("outputClaimToHeaders").index(i);
        output_header(&told.header, &path.field("header"))?;
        if told.claim.split('.').any(str::is_empty) {
            return Err(path.field("claim").error("must name a claim, or name.name for one inside of another"));
        }
    }
    let Some(timeout) = &rule.timeout else { return Ok(()) };
    match parse_duration(timeout) {
        Some(time) if time >= Duration::from_millis(1) => Ok(()),
        _ => Err(path.field("timeout").error(format!("{timeout:?} is no time: write for example 5s or 250ms"))),
    }
}

/// What is wrong with a text as a JWKS (RFC 7517), if anything is.
///
/// # Errors
/// Says what.
pub fn key_set(text: &str) -> Result<(), String> {
    if text.len() > MAX_JWKS {
        return Err(format!("longer than {MAX_JWKS} bytes"));
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    match value.get("keys").and_then(|keys| keys.as_array()) {
        Some(keys) if keys.iter().all(|key| key.get("kty").is_some_and(serde_json::Value::is_string)) => Ok(()),
        Some(_) => Err("a key of it has no kty".to_owned()),
        None => Err("it is no key set: write {\"keys\": [...]}, or give its address as jwksUri".to_owned()),
    }
}

fn validate_uri(text: &str, path: &FieldPath) -> Result<(), FieldError> {
    if key_source::address(text).is_some() {
        return Ok(());
    }
    Err(path.error(format!("{text:?} is no address of a key set: write https://HOST/PATH")))
}

fn not_empty(text: &str, path: &FieldPath) -> Result<(), FieldError> {
    if text.is_empty() { Err(path.error("must not be empty")) } else { Ok(()) }
}

fn header_name(name: &str, path: &FieldPath) -> Result<(), FieldError> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(path.error(format!("{name:?} is no name of a header"))),
    }
}

/// A header that the waypoint writes: not one that says how a message is framed, where it goes, or who calls.
fn output_header(name: &str, path: &FieldPath) -> Result<(), FieldError> {
    const FIXED: [&str; 13] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-proto",
    ];
    header_name(name, path)?;
    // Istio's rule: names that every application can tell apart.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(path.error(format!("{name:?}: write letters, digits, - and _")));
    }
    if FIXED.contains(&&*name.to_ascii_lowercase()) {
        return Err(path.error(format!("{name} is the connection's own, or says who calls: choose another")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::resources::{Kind, Object};

    fn read(rule: &Value) -> Result<(), String> {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"jwtRules": [rule]}});
        Object::from_value(Kind::RequestAuthentication, &object).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let full = json!({
            "issuer": "https://issuer.example", "audiences": ["shop"], "jwks": r#"{"keys": [{"kty": "RSA"}]}"#,
            "fromHeaders": [{"name": "x-token", "prefix": "Token "}], "fromParams": ["t"], "fromCookies": ["c"],
            "outputPayloadToHeader": "x-payload", "outputClaimToHeaders": [{"header": "x-sub", "claim": "a.sub"}],
            "forwardOriginalToken": true, "timeout": "250ms", "spaceDelimitedClaims": ["roles"],
        });
        assert_eq!(read(&full), Ok(()));
        for (field, value, expected) in [
            ("issuer", json!(""), "issuer: must not be empty"),
            ("jwks", json!("{}"), "jwks: it is no key set"),
            ("jwks", json!("keys"), "jwks: it is no JSON"),
            ("jwks", json!(r#"{"keys": [{}]}"#), "jwks: a key of it has no kty"),
            ("jwks", json!(format!(r#"{{"keys": [], "x": "{}"}}"#, "x".repeat(70_000))), "jwks: longer than"),
            ("jwksUri", json!("https://a/keys"), "jwks: jwks and jwksUri exclude each other"),
            ("audiences", json!([""]), "audiences[0]: must not be empty"),
            ("fromHeaders", json!([{"name": "a b"}]), "fromHeaders[0].name: \"a b\" is no name of a header"),
            ("fromHeader", json!([]), "fromHeader: unknown field"),
            ("outputPayloadToHeader", json!("Host"), "outputPayloadToHeader: Host is the connection's own"),
            ("outputPayloadToHeader", json!("x.y"), "outputPayloadToHeader: \"x.y\": write letters"),
            (
                "outputClaimToHeaders",
                json!([{"header": "x-a", "claim": "a..b"}]),
                "outputClaimToHeaders[0].claim: must name",
            ),
            ("timeout", json!("0s"), "timeout: \"0s\" is no time"),
        ] {
            let mut rule = full.clone();
            rule[field] = value;
            let error = read(&rule).unwrap_err();
            let expected = format!("spec.jwtRules[0].{expected}");
            assert!(error.starts_with(&expected), "{error} instead of {expected}");
        }
        for uri in ["ftp://a/keys", "/keys", "keys", "https://"] {
            let error = read(&json!({"issuer": "a", "jwksUri": uri})).unwrap_err();
            assert!(error.contains("is no address of a key set"), "{uri}: {error}");
        }
    }
}
