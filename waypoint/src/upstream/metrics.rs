//! Metrics of limits and ejections. Label sets are as many as services behind the waypoint, and go with them.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::traffic::outlier::Cause;
use mesh_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::circuit::Limit;

/// Limits and ejections, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamMetrics {
    overflows: Family<Overflow, Counter>,
    ejections: Family<Ejection, Counter>,
    ejected: Family<Port, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Overflow {
    destination_service: Arc<str>,
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ejection {
    destination_service: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Port {
    destination_service: Arc<str>,
    port: u16,
}

impl UpstreamMetrics {
    /// Registers them, with nothing counted yet.
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "Requests and connections refused because a limit of a DestinationRule was reached, by its field";
        registry.register("ambit_upstream_overflows", help, this.overflows.clone());
        let help = "Endpoints ejected by outlier detection, by Envoy's word for the reason";
        registry.register("ambit_outlier_ejections", help, this.ejections.clone());
        let help = "Endpoints ejected now";
        registry.register("ambit_outlier_ejected", help, this.ejected.clone());
        this
    }

    /// A limit was reached.
    pub(super) fn overflow(&self, service: &NamespacedName, limit: Limit) {
        let labels = Overflow { destination_service: service.name.clone(), limit: limit.field() };
        self.overflows.get_or_create(&labels).inc();
    }

    /// An endpoint was ejected.
    pub(super) fn ejection(&self, service: &NamespacedName, cause: Cause) {
        let labels = Ejection { destination_service: service.name.clone(), reason: cause.as_str() };
        self.ejections.get_or_create(&labels).inc();
    }

    /// So many more are ejected, or fewer.
    pub(super) fn ejected(&self, service: &NamespacedName, port: u16, more: i64) {
        // Most services never have one.
        if more != 0 {
            let labels = Port { destination_service: service.name.clone(), port };
            self.ejected.get_or_create(&labels).inc_by(more);
        }
    }

    /// A port is gone.
    pub(super) fn forget(&self, service: &NamespacedName, port: u16) {
        let destination_service = service.name.clone();
        self.ejected.remove(&Port { destination_service: destination_service.clone(), port });
        for limit in Limit::ALL {
            let limit = limit.field();
            self.overflows.remove(&Overflow { destination_service: destination_service.clone(), limit });
        }
        for cause in [Cause::ServerErrors, Cause::GatewayErrors, Cause::LocalFailures] {
            let reason = cause.as_str();
            self.ejections.remove(&Ejection { destination_service: destination_service.clone(), reason });
        }
    }
}
