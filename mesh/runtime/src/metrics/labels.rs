//! Istio's label words, and the full set every traffic metric carries.
//!
//! Values are shared `Arc<str>`: a program makes the [`WorkloadLabels`] of a workload once and every connection of it points there. An
//! empty value is reported as `unknown`.

use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock};

use prometheus_client::encoding::{EncodeLabelKey, EncodeLabelSet, LabelSetEncoder};

use super::sets::Labels;

/// Which side counted. Both ends of a connection report it, each from its own side, and a waypoint between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
    /// A waypoint between the two.
    Waypoint,
}

impl Reporter {
    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
            Reporter::Waypoint => "waypoint",
        }
    }
}

/// How the connection between the proxies was protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionSecurity {
    /// Both ends proved who they are.
    MutualTls,
    /// Plaintext, or not ours to know.
    Unknown,
}

impl ConnectionSecurity {
    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionSecurity::MutualTls => "mutual_tls",
            ConnectionSecurity::Unknown => "unknown",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    /// Well: `-`.
    None,
    /// An authorization policy refused it.
    Deny,
    /// The destination could not be reached, or anything not named otherwise.
    Connect,
    /// The TLS handshake failed.
    TlsFailure,
    /// The HTTP/2 handshake failed.
    H2HandshakeFailure,
    /// Something between the proxies (a NetworkPolicy, a firewall) drops HBONE.
    NetworkPolicy,
    /// No certificate for our own side.
    IdentityError,
    /// The peer's certificate is revoked.
    CertRevoked,
}

impl ResponseFlags {
    /// Every value, in the order of their numbers.
    pub(super) const ALL: [Self; 8] = [
        Self::None,
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
        Self::CertRevoked,
    ];

    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

/// What is said about a workload, on either side. Make it once per workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WorkloadLabels {
    /// `*_workload`: the Deployment or other owner. Empty if the workload is not known.
    pub workload: Arc<str>,
    /// `*_canonical_service`.
    pub canonical_service: Arc<str>,
    /// `*_canonical_revision`.
    pub canonical_revision: Arc<str>,
    /// `*_workload_namespace`.
    pub namespace: Arc<str>,
    /// `*_app`: the canonical service if the workload is in the table, the workload's name if only baggage told of it.
    pub app: Arc<str>,
    /// `*_version`: the canonical revision.
    pub version: Arc<str>,
    /// `*_cluster`.
    pub cluster: Arc<str>,
    /// `*_region`.
    pub region: Arc<str>,
    /// `*_zone`.
    pub zone: Arc<str>,
}

/// What is said about the service addressed. Make it once per service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceLabels {
    /// `destination_service`: the hostname.
    pub hostname: Arc<str>,
    /// `destination_service_name`: the object's name.
    pub name: Arc<str>,
    /// `destination_service_namespace`: the object's namespace.
    pub namespace: Arc<str>,
}

/// The full label set of Istio's TCP metrics, but for `response_flags`, which is known only at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrafficLabels {
    /// Which side counts.
    pub reporter: Reporter,
    /// Who connects.
    pub source: Arc<WorkloadLabels>,
    /// `spiffe://…` of who connects, only if proven by mTLS.
    pub source_principal: Arc<str>,
    /// The service addressed, if any.
    pub service: Arc<ServiceLabels>,
    /// Who is connected to: on a hop to a waypoint, the waypoint.
    pub destination: Arc<WorkloadLabels>,
    /// `spiffe://…` of who is connected to.
    pub destination_principal: Arc<str>,
    /// How the hop is protected.
    pub security: ConnectionSecurity,
}

static OTHER: LazyLock<Arc<str>> = LazyLock::new(|| "other".into());
static OTHER_WORKLOAD: LazyLock<Arc<WorkloadLabels>> = LazyLock::new(|| {
    let other = || OTHER.clone();
    Arc::new(WorkloadLabels {
        workload: other(),
        canonical_service: other(),
        canonical_revision: other(),
        namespace: other(),
        app: other(),
        version: other(),
        cluster: other(),
        region: other(),
        zone: other(),
    })
});
static OTHER_SERVICE: LazyLock<Arc<ServiceLabels>> = LazyLock::new(|| {
    Arc::new(ServiceLabels { hostname: OTHER.clone(), name: OTHER.clone(), namespace: OTHER.clone() })
});

impl Labels for TrafficLabels {
    /// The same side and protection, everything else `other`. There are only as many of these as sides times protections.
    fn collapsed(&self) -> Self {
        Self {
            reporter: self.reporter,
            source: OTHER_WORKLOAD.clone(),
            source_principal: OTHER.clone(),
            service: OTHER_SERVICE.clone(),
            destination: OTHER_WORKLOAD.clone(),
            destination_principal: OTHER.clone(),
            security: self.security,
        }
    }
}

/// A label set and how the connection ended: what is written to the scrape.
#[derive(Debug)]
pub(super) struct Flagged<'a>(pub(super) &'a TrafficLabels, pub(super) ResponseFlags);

impl EncodeLabelSet for Flagged<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder, "tcp", &[("response_flags", self.1.as_str())])
    }
}

impl TrafficLabels {
    /// Writes them in Istio's order; `more` stands where that has what is known only at the end.
    pub(super) fn encode(
        &self,
        encoder: &mut LabelSetEncoder<'_>,
        protocol: &str,
        more: &[(&str, &str)],
    ) -> fmt::Result {
        let labels = self;
        let (source, destination, service) = (&labels.source, &labels.destination, &labels.service);
        let mut put = |key: &str, value: &str| put(encoder, key, value);
        put("reporter", labels.reporter.as_str())?;
        put("source_workload", &source.workload)?;
        put("source_canonical_service", &source.canonical_service)?;
        put("source_canonical_revision", &source.canonical_revision)?;
        put("source_workload_namespace", &source.namespace)?;
        put("source_principal", &labels.source_principal)?;
        put("source_app", &source.app)?;
        put("source_version", &source.version)?;
        put("source_cluster", &source.cluster)?;
        put("destination_service", &service.hostname)?;
        put("destination_service_namespace", &service.namespace)?;
        put("destination_service_name", &service.name)?;
        put("destination_workload", &destination.workload)?;
        put("destination_canonical_service", &destination.canonical_service)?;
        put("destination_canonical_revision", &destination.canonical_revision)?;
        put("destination_workload_namespace", &destination.namespace)?;
        put("destination_principal", &labels.destination_principal)?;
        put("destination_app", &destination.app)?;
        put("destination_version", &destination.version)?;
        put("destination_cluster", &destination.cluster)?;
        put("request_protocol", protocol)?;
        for (key, value) in more {
            put(key, value)?;
        }
        put("connection_security_policy", labels.security.as_str())?;
        // Istio leaves the localities out when neither side is known.
        if !source.workload.is_empty() || !destination.workload.is_empty() {
            put("source_region", &source.region)?;
            put("source_zone", &source.zone)?;
            put("destination_region", &destination.region)?;
            put("destination_zone", &destination.zone)?;
        }
        Ok(())
    }
}

/// One label; empty is `unknown`.
pub(super) fn put(encoder: &mut LabelSetEncoder<'_>, key: &str, value: &str) -> fmt::Result {
    let mut label = encoder.encode_label();
    let mut key_encoder = label.encode_label_key()?;
    EncodeLabelKey::encode(&key, &mut key_encoder)?;
    let mut value_encoder = key_encoder.encode_label_value()?;
    value_encoder.write_str(if value.is_empty() { "unknown" } else { value })?;
    value_encoder.finish()
}
