//! What is refused of a DestinationRule although the types fit: what Istio refuses, and what no waypoint of ours follows. Nothing that
//! was written is left aside in silence.

use std::time::Duration;

use mesh_model::traffic::{MOST_MAGLEV, MOST_RING, is_prime};
use serde_json::Value;

use super::super::field::{FieldError, FieldPath};
use super::super::host;
use super::{
    ConnectionPool, ConsistentHash, DestinationRule, HttpCookie, HttpSettings, LoadBalancer, OutlierDetection,
    PortSettings, Simple, Subset, TcpSettings, Tls, TlsMode, TrafficPolicy, duration,
};

/// Checks what the types alone do not.
pub(in super::super) fn validate(object: &DestinationRule) -> Result<(), FieldError> {
    let (path, spec) = (FieldPath::of("spec"), &object.spec);
    let at = path.field("host");
    match spec.host.as_str() {
        "" => return Err(at.error("missing: write the name of a Service")),
        // Every name there is: for a policy of the whole mesh.
        "*" => {}
        name => host::name_or_wildcard(name, &at)?,
    }
    refuse(
        &path,
        "workloadSelector",
        &spec.workload_selector,
        "it is about sidecars, of which there are none: leave it out",
    )?;
    for (i, to) in spec.export_to.iter().enumerate() {
        if !matches!(to.as_str(), "*" | ".") {
            let why =
                "a rule counts for the waypoint of its own namespace's services: write \"*\" or \".\", or leave it out";
            return Err(path.field("exportTo").index(i).error(why));
        }
    }
    subsets(&spec.subsets, &path.field("subsets"))?;
    spec.traffic_policy.as_ref().map_or(Ok(()), |policy| traffic(policy, &path.field("trafficPolicy")))
}

/// Subsets of one rule: a service's waypoint is told who is in each.
const MOST_SUBSETS: usize = 64;

fn subsets(subsets: &[Subset], path: &FieldPath) -> Result<(), FieldError> {
    if subsets.len() > MOST_SUBSETS {
        return Err(
            path.error(format!("{} are more than a waypoint keeps: write at most {MOST_SUBSETS}", subsets.len()))
        );
    }
    for (i, subset) in subsets.iter().enumerate() {
        let path = path.index(i);
        let name = path.field("name");
        host::port_name(&subset.name, &name).map_err(|_| {
            name.error(format!("{:?} is not the name of a subset: letters, digits and '-', as in \"v1\"", subset.name))
        })?;
        if subsets[..i].iter().any(|other| other.name == subset.name) {
            return Err(name.error(format!("{:?} is there twice", subset.name)));
        }
        subset.traffic_policy.as_ref().map_or(Ok(()), |policy| traffic(policy, &path.field("trafficPolicy")))?;
    }
    Ok(())
}

fn refuse(path: &FieldPath, field: &str, value: &Option<Value>, why: &str) -> Result<(), FieldError> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(path.field(field).error(why)),
    }
}

fn traffic(policy: &TrafficPolicy, path: &FieldPath) -> Result<(), FieldError> {
    common(&policy.load_balancer, &policy.connection_pool, &policy.outlier_detection, &policy.tls, path)?;
    refuse(path, "tunnel", &policy.tunnel, "not followed: leave it out; the mesh's tunnels need nothing of it")?;
    refuse(path, "proxyProtocol", &policy.proxy_protocol, "not followed: leave it out")?;
    refuse(path, "retryBudget", &policy.retry_budget, "not followed: connectionPool.http.maxRetries bounds retries")?;
    let ports = path.field("portLevelSettings");
    for (i, settings) in policy.port_level_settings.iter().enumerate() {
        let path = ports.index(i);
        let number = path.field("port").field("number");
        host::port(settings.port.number, &number)?;
        if policy.port_level_settings[..i].iter().any(|other| other.port == settings.port) {
            return Err(number.error(format!("{} is there twice", settings.port.number)));
        }
        let PortSettings { load_balancer, connection_pool, outlier_detection, tls, .. } = settings;
        common(load_balancer, connection_pool, outlier_detection, tls, &path)?;
    }
    Ok(())
}

fn common(
    balancer: &Option<LoadBalancer>,
    pool: &Option<ConnectionPool>,
    outliers: &Option<OutlierDetection>,
    tls: &Option<Tls>,
    path: &FieldPath,
) -> Result<(), FieldError> {
    if let Some(balancer) = balancer {
        load_balancer(balancer, &path.field("loadBalancer"))?;
    }
    if let Some(pool) = pool {
        let path = path.field("connectionPool");
        pool.tcp.as_ref().map_or(Ok(()), |tcp| self::tcp(tcp, &path.field("tcp")))?;
        pool.http.as_ref().map_or(Ok(()), |http| self::http(http, &path.field("http")))?;
    }
    if let Some(detection) = outliers {
        outlier_detection(detection, &path.field("outlierDetection"))?;
    }
    tls.as_ref().map_or(Ok(()), |tls| self::tls(tls, &path.field("tls")))
}

fn load_balancer(balancer: &LoadBalancer, path: &FieldPath) -> Result<(), FieldError> {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        return Err(path.error("simple and consistentHash exclude each other: write one of them"));
    }
    if balancer.simple == Some(Simple::Passthrough) {
        let why =
            "PASSTHROUGH is not followed: a waypoint chooses the endpoint. Write LEAST_REQUEST, ROUND_ROBIN or RANDOM";
        return Err(path.field("simple").error(why));
    }
    let locality = "not followed: the Service's trafficDistribution says which endpoints are preferred";
    refuse(path, "localityLbSetting", &balancer.locality_lb_setting, locality)?;
    warmup(balancer, path)?;
    balancer.consistent_hash.as_ref().map_or(Ok(()), |hash| consistent_hash(hash, &path.field("consistentHash")))
}

/// The largest `aggression`: with it an endpoint has nine tenths of its weight after a thousandth of the time.
const MOST_AGGRESSION: f64 = 100.0;

fn warmup(balancer: &LoadBalancer, path: &FieldPath) -> Result<(), FieldError> {
    let field = match (&balancer.warmup, &balancer.warmup_duration_secs) {
        (Some(_), Some(_)) => {
            let why = "warmup says the same, and more: write one of them";
            return Err(path.field("warmupDurationSecs").error(why));
        }
        (Some(_), None) => "warmup",
        (None, Some(_)) => "warmupDurationSecs",
        (None, None) => return Ok(()),
    };
    let path = path.field(field);
    if balancer.consistent_hash.is_some() || balancer.simple == Some(Simple::Random) {
        return Err(path.error("it counts only with ROUND_ROBIN and LEAST_REQUEST"));
    }
    let Some(warmup) = &balancer.warmup else {
        return length(balancer.warmup_duration_secs.as_deref(), true, &path);
    };
    let at = path.field("duration");
    if warmup.duration.is_none() {
        return Err(at.error("missing: write how long an endpoint is new, for example 60s"));
    }
    length(warmup.duration.as_deref(), true, &at)?;
    if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        return Err(path.field("minimumPercent").error("a percentage: write 0 to 100"));
    }
    if warmup.aggression.is_some_and(|aggression| !(1.0..=MOST_AGGRESSION).contains(&aggression)) {
        return Err(path.field("aggression").error(format!("write 1, which is evenly, to {MOST_AGGRESSION}")));
    }
    Ok(())
}

fn consistent_hash(hash: &ConsistentHash, path: &FieldPath) -> Result<(), FieldError> {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip == Some(true),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.into_iter().filter(|is_set| *is_set).count() != 1 {
        let why =
            "write one of httpHeaderName, httpCookie, useSourceIp: true and httpQueryParameterName: what is hashed";
        return Err(path.error(why));
    }
    if let Some(name) = &hash.http_header_name {
        token(name, &path.field("httpHeaderName"))?;
    }
    if hash.http_query_parameter_name.as_deref() == Some("") {
        return Err(path.field("httpQueryParameterName").error("missing: write the parameter's name"));
    }
    if let Some(cookie) = &hash.http_cookie {
        http_cookie(cookie, &path.field("httpCookie"))?;
    }
    if hash.maglev.is_some() && (hash.ring_hash.is_some() || hash.minimum_ring_size.is_some()) {
        return Err(path.error("ringHash and maglev exclude each other: write one of them"));
    }
    let ring = hash.ring_hash.and_then(|ring| ring.minimum_ring_size).map(|size| ("ringHash.minimumRingSize", size));
    for (field, size) in ring.into_iter().chain(hash.minimum_ring_size.map(|size| ("minimumRingSize", size))) {
        if size > u64::from(MOST_RING) {
            return Err(path
                .field(field)
                .error(format!("{size} is more than a waypoint makes: write at most {MOST_RING}")));
        }
    }
    if let Some(size) = hash.maglev.and_then(|maglev| maglev.table_size) {
        let fits = u32::try_from(size).is_ok_and(|size| size <= MOST_MAGLEV && is_prime(size));
        if !fits {
            let why =
                format!("{size} is no prime of at most {MOST_MAGLEV}: 65537 is what is taken where nothing is said");
            return Err(path.field("maglev").field("tableSize").error(why));
        }
    }
    Ok(())
}

fn http_cookie(cookie: &HttpCookie, path: &FieldPath) -> Result<(), FieldError> {
    token(&cookie.name, &path.field("name"))?;
    if !cookie.attributes.is_empty() {
        return Err(path.field("attributes").error("not followed: leave them out"));
    }
    let at = path.field("path");
    if cookie.path.as_deref().is_some_and(|path| !path.bytes().all(|b| matches!(b, 0x20..=0x7e) && b != b';')) {
        return Err(at.error("a cookie's path holds no control characters and no ';'"));
    }
    length(cookie.ttl.as_deref(), false, &path.field("ttl"))
}

/// A token of HTTP (RFC 9110 5.6.2).
fn token(name: &str, path: &FieldPath) -> Result<(), FieldError> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match !name.is_empty() && name.bytes().all(is_token) {
        true => Ok(()),
        false => Err(path.error(format!("{name:?} is no name: letters, digits and !#$%&'*+-.^_`|~"))),
    }
}

fn tcp(tcp: &TcpSettings, path: &FieldPath) -> Result<(), FieldError> {
    length(tcp.connect_timeout.as_deref(), true, &path.field("connectTimeout"))?;
    let why = "not followed: connections last as long as both ends want";
    refuse(path, "maxConnectionDuration", &tcp.max_connection_duration, why)?;
    refuse(
        path,
        "idleTimeout",
        &tcp.idle_timeout,
        "not followed for TCP: connectionPool.http.idleTimeout is, for requests",
    )
}

fn http(http: &HttpSettings, path: &FieldPath) -> Result<(), FieldError> {
    length(http.idle_timeout.as_deref(), true, &path.field("idleTimeout"))?;
    match http.h2_upgrade_policy.as_deref() {
        None | Some("DEFAULT" | "DO_NOT_UPGRADE") => {}
        Some(_) => {
            let why = "not followed but for DEFAULT and DO_NOT_UPGRADE: say appProtocol: kubernetes.io/h2c on the Service's port";
            return Err(path.field("h2UpgradePolicy").error(why));
        }
    }
    if http.use_client_protocol == Some(true) {
        let why = "not followed: what is spoken to endpoints is said by the Service's port (appProtocol)";
        return Err(path.field("useClientProtocol").error(why));
    }
    refuse(path, "maxConcurrentStreams", &http.max_concurrent_streams, "not followed: leave it out")
}

fn outlier_detection(detection: &OutlierDetection, path: &FieldPath) -> Result<(), FieldError> {
    let why = "Istio has taken it back: write consecutive5xxErrors";
    refuse(path, "consecutiveErrors", &detection.consecutive_errors, why)?;
    length(detection.interval.as_deref(), true, &path.field("interval"))?;
    length(detection.base_ejection_time.as_deref(), true, &path.field("baseEjectionTime"))?;
    if detection.consecutive_local_origin_failures.is_some()
        && detection.split_external_local_origin_errors != Some(true)
    {
        let why = "it counts only with splitExternalLocalOriginErrors: true";
        return Err(path.field("consecutiveLocalOriginFailures").error(why));
    }
    for (field, percent) in
        [("maxEjectionPercent", detection.max_ejection_percent), ("minHealthPercent", detection.min_health_percent)]
    {
        if percent.is_some_and(|percent| percent > 100) {
            return Err(path.field(field).error("a percentage: write 0 to 100"));
        }
    }
    Ok(())
}

fn tls(tls: &Tls, path: &FieldPath) -> Result<(), FieldError> {
    if matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
        let why = "a waypoint begins no TLS of its own: write ISTIO_MUTUAL or DISABLE, and the mesh encrypts";
        return Err(path.field("mode").error(why));
    }
    let why = "the mesh has certificates of its own: leave it out";
    for (field, value) in [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
        ("caCrl", &tls.ca_crl),
        ("credentialName", &tls.credential_name),
        ("subjectAltNames", &tls.subject_alt_names),
        ("sni", &tls.sni),
        ("insecureSkipVerify", &tls.insecure_skip_verify),
    ] {
        refuse(path, field, value, why)?;
    }
    Ok(())
}

fn length(text: Option<&str>, positive: bool, path: &FieldPath) -> Result<(), FieldError> {
    /// Istio's bounds: times are whole milliseconds, and no longer than anybody waits for.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    let Some(text) = text else { return Ok(()) };
    match duration::parse(text) {
        Some(time) if positive && time < Duration::from_millis(1) => {
            Err(path.error(format!("{text:?} is too short: write at least 1ms")))
        }
        Some(time) if time <= LONGEST => Ok(()),
        _ => Err(path.error(format!("{text:?} is no length of time: write for example 250ms, 10s or 5m"))),
    }
}
