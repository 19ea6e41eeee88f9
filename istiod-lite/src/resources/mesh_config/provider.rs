//! One of the `extensionProviders`: somebody outside of the proxy, and how they are spoken to.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, StatusCode};
use mesh_model::address::NamespacedName;
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::resources::destination_rule::duration;

/// Bytes of a request's body that a provider may ask to see. A waypoint holds them while it asks.
pub const MOST_BODY: u32 = 1 << 20;
/// How long a provider may take that says nothing of it, as in Istio.
const TIMEOUT: Duration = Duration::from_secs(600);
/// What a caller is answered when a provider fails that says nothing of it, as in Istio.
const STATUS: StatusCode = StatusCode::FORBIDDEN;

/// The provider of access logs that is there without being defined, as in Istio.
pub const BUILT_IN_LOG: &str = "envoy";

/// A provider.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// `envoyExtAuthzGrpc`: Envoy's `Check` is called.
    ExtAuthzGrpc(ExtAuthz),
    /// `envoyExtAuthzHttp`: a request like the one that is asked about.
    ExtAuthzHttp(ExtAuthz, ExtAuthzHttp),
    /// `opentelemetry`: takes traces by OTLP over gRPC.
    OpenTelemetry(OpenTelemetry),
    /// `envoyFileAccessLog`: the waypoint's own access log, on its standard output.
    FileAccessLog,
    /// `prometheus`: the waypoint's own metrics.
    Prometheus,
    /// Of a kind that is not followed, or with something that is not: why.
    Unusable(String),
}

/// A service: `[NAMESPACE/]HOST`, and its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// If it is said.
    pub namespace: Option<String>,
    /// In lower case.
    pub name: String,
    /// The service's port.
    pub port: u16,
}

impl Host {
    /// The Service that it is, by its name below `domain` (`cluster.local`); None of another host.
    pub fn service(&self, domain: &str) -> Option<NamespacedName> {
        let name = self.name.strip_suffix(domain).and_then(|name| name.strip_suffix('.')).unwrap_or(&self.name);
        let (name, namespace) = name.strip_suffix(".svc")?.split_once('.')?;
        let whole = !name.is_empty() && !namespace.is_empty() && !namespace.contains('.');
        whole.then(|| NamespacedName::new(namespace, name))
    }
}

impl Provider {
    /// Where it is, if it can be used.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::ExtAuthzGrpc(common) | Self::ExtAuthzHttp(common, _) => Some(&common.host),
            Self::OpenTelemetry(OpenTelemetry { host }) => Some(host),
            Self::FileAccessLog | Self::Prometheus | Self::Unusable(_) => None,
        }
    }
}

/// What authorizers of both kinds say.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtAuthz {
    /// Its service.
    pub host: Host,
    /// How long it may take.
    pub timeout: Duration,
    /// A request passes when it fails.
    pub fail_open: bool,
    /// What the caller is answered when it fails.
    pub status_on_error: StatusCode,
    /// How much of the body it is shown.
    pub body: Option<Body>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Body {
    /// Bytes.
    #[serde(deserialize_with = "number")]
    pub max_request_bytes: u32,
    /// A part of it will do.
    pub allow_partial_message: bool,
    /// Over gRPC: as bytes, not as text.
    pub pack_as_bytes: bool,
}

/// What authorizers say that are asked over HTTP. Names of headers are patterns: `*`, `x-*`, `*-x`.
#[derive(Clone, Debug, PartialEq, Default)]
#[allow(missing_docs, reason = "Istio's own field names; see its reference for MeshConfig")]
pub struct ExtAuthzHttp {
    pub path_prefix: String,
    pub include_request_headers_in_check: Vec<String>,
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    pub headers_to_upstream_on_allow: Vec<String>,
    pub headers_to_downstream_on_deny: Vec<String>,
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// A collector of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// Its service.
    pub host: Host,
}

/// A provider as it is written: its kind is the field that is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(rename = "name")]
    _name: String,
    envoy_ext_authz_grpc: Option<WrittenGrpc>,
    envoy_ext_authz_http: Option<WrittenHttp>,
    opentelemetry: Option<WrittenService>,
    envoy_file_access_log: Option<WrittenFile>,
    prometheus: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenFile {
    path: String,
    log_format: Option<IgnoredAny>,
    omit_empty_values: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenService {
    service: String,
    #[serde(deserialize_with = "number")]
    port: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenGrpc {
    service: String,
    #[serde(deserialize_with = "number")]
    port: u32,
    timeout: Option<String>,
    fail_open: bool,
    clear_route_cache: Option<bool>,
    status_on_error: Option<String>,
    include_request_body_in_check: Option<Body>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenHttp {
    service: String,
    #[serde(deserialize_with = "number")]
    port: u32,
    timeout: Option<String>,
    fail_open: bool,
    clear_route_cache: Option<bool>,
    status_on_error: Option<String>,
    include_request_body_in_check: Option<Body>,
    path_prefix: String,
    /// Its older name.
    include_headers_in_check: Vec<String>,
    include_request_headers_in_check: Vec<String>,
    include_additional_headers_in_check: BTreeMap<String, String>,
    headers_to_upstream_on_allow: Vec<String>,
    headers_to_downstream_on_deny: Vec<String>,
    headers_to_downstream_on_allow: Vec<String>,
}

impl Written {
    /// What it comes to.
    pub(super) fn provider(self) -> Provider {
        let kinds = [
            self.envoy_ext_authz_grpc.map(|grpc| grpc.read().map(Provider::ExtAuthzGrpc)),
            self.envoy_ext_authz_http
                .map(|http| http.read().map(|(common, http)| Provider::ExtAuthzHttp(common, http))),
            self.opentelemetry.map(WrittenService::read),
            self.envoy_file_access_log.map(WrittenFile::read),
            self.prometheus.map(|_| Ok(Provider::Prometheus)),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let read = match (kinds.next(), kinds.next()) {
            (Some(one), None) => one,
            (None, _) => Err("no kind that is followed: envoyExtAuthzGrpc, envoyExtAuthzHttp, opentelemetry, \
                              envoyFileAccessLog, prometheus"
                .to_owned()),
            _ => Err("of more than one kind: keep one of them".to_owned()),
        };
        read.unwrap_or_else(Provider::Unusable)
    }
}

impl WrittenService {
    fn read(self) -> Result<Provider, String> {
        let host = host(&self.service, self.port).map_err(|why| format!("opentelemetry.{why}"))?;
        Ok(Provider::OpenTelemetry(OpenTelemetry { host }))
    }
}

impl WrittenFile {
    fn read(self) -> Result<Provider, String> {
        let why = match self {
            Self { log_format: Some(_), .. } => {
                "logFormat is not followed: a waypoint's lines have a form of their own \
                                                 (docs/operations.md, Logs), text or JSON by LOG_FORMAT"
                    .to_owned()
            }
            Self { omit_empty_values: Some(false), .. } => {
                "omitEmptyValues: false is not followed: what is empty is left out".to_owned()
            }
            Self { path, .. } if path != "/dev/stdout" => {
                format!(
                    "path: {path:?} is not followed: a waypoint writes to its standard output, so write /dev/stdout"
                )
            }
            Self { .. } => return Ok(Provider::FileAccessLog),
        };
        Err(format!("envoyFileAccessLog.{why}"))
    }
}

impl WrittenGrpc {
    fn read(self) -> Result<ExtAuthz, String> {
        self.checked().map_err(|why| format!("envoyExtAuthzGrpc.{why}"))
    }

    fn checked(self) -> Result<ExtAuthz, String> {
        if self.clear_route_cache == Some(false) {
            return Err("clearRouteCache: false is not followed: a waypoint routes by the headers that the authorizer has left, \
                        so leave it out, or write true"
                .to_owned());
        }
        if let Some(body) = self.include_request_body_in_check
            && !(1..=MOST_BODY).contains(&body.max_request_bytes)
        {
            return Err(format!("includeRequestBodyInCheck.maxRequestBytes: write 1 to {MOST_BODY}"));
        }
        let timeout = match self.timeout.as_deref() {
            None => TIMEOUT,
            Some(text) => duration::parse(text)
                .filter(|length| !length.is_zero() && *length <= TIMEOUT)
                .ok_or_else(|| format!("timeout: {text:?} is not a length of time such as 0.5s, up to 600s"))?,
        };
        let status_on_error = match self.status_on_error.as_deref() {
            None => STATUS,
            Some(text) => text
                .parse::<u16>()
                .ok()
                .filter(|code| (400..=599).contains(code))
                .and_then(|code| StatusCode::from_u16(code).ok())
                .ok_or_else(|| format!("statusOnError: {text:?} is not an HTTP status of an error such as \"503\""))?,
        };
        Ok(ExtAuthz {
            host: host(&self.service, self.port)?,
            timeout,
            fail_open: self.fail_open,
            status_on_error,
            body: self.include_request_body_in_check,
        })
    }
}

impl WrittenHttp {
    fn read(self) -> Result<(ExtAuthz, ExtAuthzHttp), String> {
        self.checked().map_err(|why| format!("envoyExtAuthzHttp.{why}"))
    }

    fn checked(self) -> Result<(ExtAuthz, ExtAuthzHttp), String> {
        let mut include = self.include_request_headers_in_check;
        include.extend(self.include_headers_in_check);
        for (name, value) in &self.include_additional_headers_in_check {
            if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
                return Err(format!("includeAdditionalHeadersInCheck: {name:?} with this value is no header"));
            }
        }
        let prefix = &self.path_prefix;
        if !prefix.is_empty() && (!prefix.starts_with('/') || http::uri::PathAndQuery::try_from(&**prefix).is_err()) {
            return Err(format!("pathPrefix: {prefix:?} does not begin a path: write for example /check"));
        }
        let http = ExtAuthzHttp {
            path_prefix: self.path_prefix,
            include_request_headers_in_check: include,
            include_additional_headers_in_check: self.include_additional_headers_in_check,
            headers_to_upstream_on_allow: self.headers_to_upstream_on_allow,
            headers_to_downstream_on_deny: self.headers_to_downstream_on_deny,
            headers_to_downstream_on_allow: self.headers_to_downstream_on_allow,
        };
        let common = WrittenGrpc {
            service: self.service,
            port: self.port,
            timeout: self.timeout,
            fail_open: self.fail_open,
            clear_route_cache: self.clear_route_cache,
            status_on_error: self.status_on_error,
            include_request_body_in_check: self.include_request_body_in_check,
        };
        Ok((common.checked()?, http))
    }
}

/// A number, or its digits as text: Istio takes both, and its documentation writes the second.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::String(digits) => digits.parse().ok(),
        value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    number.ok_or_else(|| D::Error::custom(format!("{value} is not a number from 0 to {}", u32::MAX)))
}

fn host(service: &str, port: u32) -> Result<Host, String> {
    let (namespace, name) = match service.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, service),
    };
    let is_part = |part: &str| !part.is_empty() && !part.contains('/');
    if !is_part(name) || namespace.as_deref().is_some_and(|namespace| !is_part(namespace)) {
        return Err("service: write a host such as ext-authz.foo.svc.cluster.local, or NAMESPACE/HOST".to_owned());
    }
    let port = u16::try_from(port).ok().filter(|port| *port != 0).ok_or("port: write 1 to 65535")?;
    Ok(Host { namespace, name: name.to_ascii_lowercase(), port })
}
