//! Metrics of what a proxy does with connections, beside the traffic metrics that all programs share. Names are
//! upstream's where upstream has them.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_hbone::unfinished;
use mesh_model::reason::ReasonCode;
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Metrics, Reporter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// How much is held of what is bounded ([`crate::quota`]).
#[derive(Clone, Debug, Default)]
pub struct QuotaMetrics {
    /// Connections and tunnels open now.
    pub connections: Gauge,
    /// TLS handshakes of callers under way.
    pub handshakes: Gauge,
}

impl QuotaMetrics {
    /// Registers them, with nothing counted yet.
    pub fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "Connections and tunnels open now, of those that ZTUNNEL_MAX_CONNECTIONS allows";
        registry.register("ambit_connections_held", help, this.connections.clone());
        let help = "TLS handshakes of callers under way, of those that ZTUNNEL_MAX_HANDSHAKES allows";
        registry.register("ambit_handshakes_held", help, this.handshakes.clone());
        this
    }
}

/// What data threads hold for HBONE: connections kept for reuse, and messages that are not whole
/// ([`mesh_hbone::unfinished`]).
#[derive(Clone, Debug, Default)]
pub struct HboneMetrics {
    pooled: Gauge,
    unfinished_held: Gauge,
    unfinished_shed: Counter,
}

impl HboneMetrics {
    /// Registers them, with nothing counted yet.
    pub fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "HBONE connections kept for reuse, as of the last few seconds";
        registry.register("ambit_hbone_pooled_connections", help, this.pooled.clone());
        let help = "Bytes kept of handshake messages and header blocks that are not whole, as of the last few seconds";
        registry.register("ambit_unfinished_bytes_held", help, this.unfinished_held.clone());
        let help = "Connections ended because others needed the memory of what they left unfinished";
        registry.register("ambit_unfinished_shed", help, this.unfinished_shed.clone());
        this
    }

    /// The part of the thread that calls, which has added nothing yet.
    pub fn of_thread(&self) -> ThreadHbone {
        ThreadHbone { metrics: self.clone(), pooled: 0, held: 0, shed: 0 }
    }
}

/// What one thread has added to [`HboneMetrics`], which are the sums over all threads.
pub struct ThreadHbone {
    metrics: HboneMetrics,
    pooled: i64,
    held: i64,
    shed: u64,
}

impl ThreadHbone {
    /// Adds what has changed since the last time; `pooled` is how many connections the thread keeps for reuse now.
    pub fn update(&mut self, pooled: usize) {
        let pooled = pooled as i64;
        self.metrics.pooled.inc_by(pooled - std::mem::replace(&mut self.pooled, pooled));
        let held = unfinished::held() as i64;
        self.metrics.unfinished_held.inc_by(held - std::mem::replace(&mut self.held, held));
        let shed = unfinished::shed();
        self.metrics.unfinished_shed.inc_by(shed - std::mem::replace(&mut self.shed, shed));
    }
}

/// The reason codes that connections may end with.
fn connection_reasons() -> impl Iterator<Item = ReasonCode> {
    ReasonCode::ALL.iter().copied().filter(|code| !code.is_of_dns())
}

/// Connections that did not end well, by reason code: those of `docs/reasons.md`, so there are few.
#[derive(Clone, Debug, Default)]
pub struct ReasonMetrics(Family<[(&'static str, &'static str); 2], Counter>);

impl ReasonMetrics {
    /// Registers them, with nothing counted yet.
    pub fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let help = "Connections refused, failed or cut, by reason code";
        metrics.registry_mut().register("ambit_connections_not_served", help, this.0.clone());
        for direction in ["inbound", "outbound"] {
            for reason in connection_reasons() {
                // Alerts need a 0 to compare with.
                drop(this.0.get_or_create(&[("direction", direction), ("reason", reason.as_str())]));
            }
        }
        this
    }

    /// Counts one more.
    pub fn count(&self, direction: Direction, reason: ReasonCode) {
        let direction = match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        self.0.get_or_create(&[("direction", direction), ("reason", reason.as_str())]).inc();
    }
}

/// What certificate revocation lists did. The label is the reporter's, as Istio's traffic metrics have it.
#[derive(Clone, Debug, Default)]
pub struct RevocationMetrics {
    rejections: Family<[(&'static str, &'static str); 1], Counter>,
    untracked: Family<[(&'static str, &'static str); 1], Counter>,
}

impl RevocationMetrics {
    /// Registers them, with nothing counted yet.
    pub fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "Connections refused or cut because the peer's certificate is revoked";
        registry.register("istio_crl_policy_rejections", help, this.rejections.clone());
        let help = "Connections that stay when the peer's certificate is revoked later: none";
        registry.register("istio_crl_untracked_connections", help, this.untracked.clone());
        for reporter in [Reporter::Source, Reporter::Destination] {
            // Alerts need a 0 to compare with.
            drop(this.untracked.get_or_create(&[("reporter", reporter.as_str())]));
            drop(this.rejections.get_or_create(&[("reporter", reporter.as_str())]));
        }
        this
    }

    /// Counts a revoked peer that was refused or cut.
    pub fn rejected(&self, reporter: Reporter) {
        self.rejections.get_or_create(&[("reporter", reporter.as_str())]).inc();
    }
}

/// When a drain ends.
#[derive(Clone, Debug, Default)]
pub struct DrainMetrics {
    deadline: Gauge<f64, AtomicU64>,
}

impl DrainMetrics {
    /// Registers them, with nothing counted yet.
    pub fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        metrics.registry_mut().register(
            "ambit_drain_deadline_timestamp_seconds",
            "When the connections of a ztunnel that drains are cut, in seconds since 1970; 0 while it serves",
            this.deadline.clone(),
        );
        this
    }

    /// Shows the deadline of the drain that begins.
    pub fn began(&self, deadline: SystemTime) {
        self.deadline.set(deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}
