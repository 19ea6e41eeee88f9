//! The CONNECT request: authority, baggage, forwarded. Parse and build, no I/O.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use mesh_model::address::{Authority, canonical};
use mesh_model::workload::Workload;

/// Longest authority accepted, in bytes: a DNS name (RFC 1035: 253), brackets and a port fit.
const MAX_AUTHORITY: usize = 300;
/// Most baggage read from one request, in bytes.
const MAX_BAGGAGE: usize = 8192;
/// Header by which a refusing server of ours says why: a stable reason code, see `docs/reasons.md`.
pub const REASON_HEADER: &str = "x-ambit-reason";
/// Header that names the client's network, on the inner CONNECT of double HBONE only (trap 15).
pub const NETWORK_HEADER: &str = "x-forwarded-network";

// Names that are looked at once, not with every tunnel.
pub(crate) static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static FORWARDED_NETWORK: HeaderName = HeaderName::from_static(NETWORK_HEADER);

/// Why an authority was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// Longer than any host and port.
    #[error("longer than {MAX_AUTHORITY} bytes")]
    Length,
    /// No port, or port 0, or not a number.
    #[error("expected host:port with a port from 1 to 65535")]
    Port,
    /// Neither an IP address nor a DNS name.
    #[error("the host is neither an IP address nor a DNS name")]
    Host,
}

/// Reads `ip:port`, `[ipv6]:port` or `hostname:port`.
pub fn parse_authority(text: &str) -> Result<Authority, InvalidAuthority> {
    if text.len() > MAX_AUTHORITY {
        return Err(InvalidAuthority::Length);
    }
    let (host, port) = text.rsplit_once(':').ok_or(InvalidAuthority::Port)?;
    // `u16::from_str` takes a leading plus; a port does not.
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|p| digits && *p != 0).ok_or(InvalidAuthority::Port)?;
    let ip = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => Some(IpAddr::V6(v6.parse().map_err(|_| InvalidAuthority::Host)?)),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    };
    match ip {
        Some(ip) => Ok(Authority::Address(canonical(SocketAddr::new(ip, port)))),
        None if is_dns_name(host) => Ok(Authority::Hostname(host.to_ascii_lowercase().into(), port)),
        None => Err(InvalidAuthority::Host),
    }
}

/// Labels of letters, digits, dash and underscore, at most 63 bytes each, 253 in all, not all numeric.
fn is_dns_name(host: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // What looks like a number in its last label is a malformed IPv4 address, not a name (WHATWG URL, RFC 3986 3.2.2).
    let last_numeric = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && !last_numeric
}

/// Who is calling, as told by the caller. **Untrusted**: for telemetry only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: String,
    /// `k8s.namespace.name`
    pub namespace: String,
    /// `k8s.<type>.name`
    pub workload: String,
    /// `service.name`
    pub service_name: String,
    /// `service.version`
    pub service_version: String,
    /// `cloud.region`
    pub region: String,
    /// `cloud.availability_zone`
    pub zone: String,
}

impl Baggage {
    /// Reads every `baggage` line. Unknown keys are skipped, a later duplicate wins, nothing is decoded or trimmed.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut baggage = Self::default();
        let mut budget = MAX_BAGGAGE;
        for line in headers.get_all(&BAGGAGE) {
            let Ok(line) = line.to_str() else { continue };
            budget = match budget.checked_sub(line.len()) {
                Some(rest) => rest,
                None => break,
            };
            for member in line.split(',') {
                let mut parts = member.split('=');
                let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
                let field = match key {
                    "k8s.cluster.name" => &mut baggage.cluster,
                    "k8s.namespace.name" => &mut baggage.namespace,
                    "k8s.deployment.name" | "k8s.job.name" | "k8s.cronjob.name" | "k8s.pod.name" => {
                        &mut baggage.workload
                    }
                    "service.name" => &mut baggage.service_name,
                    "service.version" => &mut baggage.service_version,
                    "cloud.region" => &mut baggage.region,
                    "cloud.availability_zone" => &mut baggage.zone,
                    _ => continue,
                };
                value.clone_into(field);
            }
        }
        baggage
    }
}

/// The `baggage` value that describes a workload: comma-joined, not percent-encoded, empty values left out.
pub fn baggage_of(workload: &Workload) -> String {
    let kind = format!("k8s.{}.name", workload.workload_type.as_str());
    let mut text = String::with_capacity(256);
    for (key, value) in [
        ("k8s.cluster.name", &workload.cluster),
        ("k8s.namespace.name", &workload.namespace),
        (kind.as_str(), &workload.workload_name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
        ("cloud.region", &workload.locality.region),
        ("cloud.availability_zone", &workload.locality.zone),
    ] {
        if !value.is_empty() {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{key}={value}");
        }
    }
    text
}

/// What a CONNECT says besides its target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// [`baggage_of`] the source.
    pub baggage: &'a str,
    /// The application's own address.
    pub client: Option<SocketAddr>,
    /// Hostname of the service that was dialled.
    pub host: Option<&'a str>,
    /// W3C trace context.
    pub traceparent: &'a str,
    /// The source's network, for somebody on another one; `None` everywhere but in an inner tunnel.
    pub network: Option<&'a str>,
}

/// Builds a CONNECT for `target`, which is `ip:port`, `[ipv6]:port` or `hostname:port`.
///
/// # Errors
/// When `target` is no authority.
pub fn request(target: &str, context: &Context<'_>) -> Result<Request<()>, http::Error> {
    let mut request = Request::builder().method(Method::CONNECT).uri(Uri::builder().authority(target).build()?);
    // A value that no header can hold (a control character in a name) is left out: it is telemetry only.
    let mut put = |name: &HeaderName, value: &str| {
        if let (Some(headers), Ok(value)) = (request.headers_mut(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    if !context.baggage.is_empty() {
        put(&BAGGAGE, context.baggage);
    }
    if let Some(client) = context.client {
        match context.host {
            Some(host) => put(&FORWARDED, &format!("for=\"{client}\";host={host}")),
            None => put(&FORWARDED, &format!("for=\"{client}\"")),
        }
    }
    if !context.traceparent.is_empty() {
        put(&TRACEPARENT, context.traceparent);
    }
    if let Some(network) = context.network {
        put(&FORWARDED_NETWORK, network);
    }
    request.body(())
}

/// The trace context of the caller (W3C Trace Context), as it was sent. **Untrusted**: for telemetry only.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get(&TRACEPARENT)?.to_str().ok()
}

/// The service hostname in a `forwarded` header (RFC 7239), if it names one. **Untrusted**: for telemetry only.
pub fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(&FORWARDED)?.to_str().ok()?;
    let host = value.split(';').find_map(|part| part.trim().strip_prefix("host="))?;
    Some(host.trim_matches('"'))
}

/// The application's own address in a `forwarded` header (RFC 7239), if it names one. **Untrusted**: a wish for a port, no
/// more.
pub fn forwarded_for(headers: &HeaderMap) -> Option<SocketAddr> {
    let value = headers.get(&FORWARDED)?.to_str().ok()?;
    let client = value.split(';').find_map(|part| part.trim().strip_prefix("for="))?;
    client.trim_matches('"').parse().ok().map(canonical)
}

/// Whether the caller says that it is on another network than `own`: then its address is none of ours, whatever our
/// tables say of it. **Untrusted**: for telemetry only.
pub fn from_another_network(headers: &HeaderMap, own: &str) -> bool {
    headers.get(&FORWARDED_NETWORK).is_some_and(|network| !network.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row I2: what is no authority.
    #[test]
    fn authorities() {
        let address = |s: &str| Ok(Authority::Address(s.parse().unwrap()));
        let host = |s: &str, p| Ok(Authority::Hostname(s.into(), p));
        let long = format!("{}:80", "a.".repeat(200));
        for (text, expected) in [
            ("10.0.0.1:80", address("10.0.0.1:80")),
            ("[fd00::1]:8080", address("[fd00::1]:8080")),
            ("[::ffff:10.0.0.1]:80", address("10.0.0.1:80")),
            ("Cart.shop.svc.cluster.local:80", host("cart.shop.svc.cluster.local", 80)),
            ("localhost:1", host("localhost", 1)),
            ("10.0.0.1", Err(InvalidAuthority::Port)),
            ("10.0.0.1:0", Err(InvalidAuthority::Port)),
            ("10.0.0.1:65536", Err(InvalidAuthority::Port)),
            ("10.0.0.1:+80", Err(InvalidAuthority::Port)),
            ("10.0.0.1:", Err(InvalidAuthority::Port)),
            ("", Err(InvalidAuthority::Port)),
            ("fd00::1:80", Err(InvalidAuthority::Host)),
            ("[10.0.0.1]:80", Err(InvalidAuthority::Host)),
            ("[fd00::1:80", Err(InvalidAuthority::Host)),
            ("10.0.0.256:80", Err(InvalidAuthority::Host)),
            ("0x7f.1:80", Err(InvalidAuthority::Host)),
            ("a b:80", Err(InvalidAuthority::Host)),
            ("user@host:80", Err(InvalidAuthority::Host)),
            ("a..b:80", Err(InvalidAuthority::Host)),
            (":80", Err(InvalidAuthority::Host)),
            (&long, Err(InvalidAuthority::Length)),
        ] {
            assert_eq!(parse_authority(text), expected, "{text}");
        }
    }

    /// Trap 17: not percent-encoded; nothing but telemetry reads it.
    #[test]
    fn baggage_says_who_and_reads_back() {
        let mut workload = Workload::empty("u");
        workload.namespace = "shop".into();
        workload.workload_name = "cart".into();
        workload.canonical_name = "cart".into();
        let text = baggage_of(&workload);
        assert_eq!(
            text,
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart"
        );
        let mut headers = HeaderMap::new();
        headers.append("baggage", text.parse().unwrap());
        // A later line wins, even an empty value; only the text between the first and second `=` counts.
        headers.append("baggage", "service.name=,k8s.namespace.name=a=b,unknown=1,service.version".parse().unwrap());
        let read = Baggage::parse(&headers);
        assert_eq!(
            read,
            Baggage {
                cluster: "Kubernetes".into(),
                namespace: "a".into(),
                workload: "cart".into(),
                ..Default::default()
            }
        );
    }

    #[test]
    fn a_request_is_a_plain_connect() {
        let context = Context {
            baggage: "k8s.namespace.name=a",
            client: Some("10.0.0.9:4000".parse().unwrap()),
            host: Some("b.c.svc.cluster.local"),
            traceparent: "00-0-0-00",
            network: None,
        };
        let request = request("[fd00::1]:80", &context).unwrap();
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().to_string(), "[fd00::1]:80");
        assert!(request.uri().scheme().is_none() && request.uri().path_and_query().is_none());
        assert_eq!(request.headers()["forwarded"], "for=\"10.0.0.9:4000\";host=b.c.svc.cluster.local");
        assert_eq!(forwarded_host(request.headers()), Some("b.c.svc.cluster.local"));
        assert_eq!(traceparent(request.headers()), Some("00-0-0-00"));
        assert_eq!(forwarded_for(request.headers()), Some("10.0.0.9:4000".parse().unwrap()));
        assert!(!request.headers().contains_key("x-forwarded-network"), "trap 15: only on the inner CONNECT");
        // A name that no header can hold is dropped, not sent broken.
        let odd = Context { baggage: "k8s.namespace.name=a\nb", ..Default::default() };
        assert!(super::request("10.0.0.1:80", &odd).unwrap().headers().is_empty());
    }

    #[test]
    fn the_address_of_the_application() {
        for (value, client) in [
            ("for=\"10.0.0.9:4000\"", Some("10.0.0.9:4000")),
            ("host=cart;for=10.0.0.9:4000", Some("10.0.0.9:4000")),
            ("for=\"[fd00::9]:4000\";host=cart", Some("[fd00::9]:4000")),
            ("for=\"[::ffff:10.0.0.9]:4000\"", Some("10.0.0.9:4000")),
            ("for=10.0.0.9", None),
            ("for=_hidden", None),
            ("host=cart", None),
            ("", None),
        ] {
            let headers: HeaderMap = [(FORWARDED, value.parse().unwrap())].into_iter().collect();
            assert_eq!(forwarded_for(&headers), client.map(|text| text.parse().unwrap()), "{value}");
        }
        assert_eq!(forwarded_for(&HeaderMap::new()), None);
    }

    #[test]
    fn the_network_of_the_caller() {
        for (told, own, another) in [
            (None, "a", false),
            (Some("a"), "a", false),
            (Some("A"), "a", false),
            (Some("b"), "a", true),
            (Some(""), "a", true),
            (Some("a"), "", true),
            (Some(""), "", false),
        ] {
            let context = Context { network: told, ..Context::default() };
            let request = request("b.c.svc.cluster.local:80", &context).unwrap();
            let header = request.headers().get("x-forwarded-network").map(|v| v.to_str().unwrap());
            assert_eq!(header, told, "trap 15: its name, and it is there even for the default network");
            assert_eq!(from_another_network(request.headers(), own), another, "{told:?} at {own:?}");
        }
    }
}
