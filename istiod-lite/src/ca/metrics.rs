//! What the CA counts. Names are istiod's.

use mesh_runtime::metrics::{BareCounter, Metrics};
use prometheus_client::metrics::gauge::Gauge;

/// Handles into the registry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct CaMetrics {
    /// Requests for certificates.
    pub requests: BareCounter,
    /// Those that were signed.
    pub signed: BareCounter,
    /// Those of callers whose token was not good, or who may not have what they asked for.
    pub not_allowed: BareCounter,
    /// Those whose CSR could not be read.
    pub malformed: BareCounter,
    /// Those that were not signed for another reason.
    pub not_signed: BareCounter,
    /// 1 while what is plugged in cannot be used, and what was before signs.
    pub plugged_in_refused: Gauge,
}

impl CaMetrics {
    /// Registers them.
    pub fn register(&self, metrics: &mut Metrics) {
        let registry = metrics.registry_mut();
        for (name, help, counter) in [
            ("csr_count", "Requests for certificates", &self.requests),
            ("success_cert_issuance_count", "Certificates that were issued", &self.signed),
            (
                "authentication_failure_count",
                "Requests of callers who did not prove who they are, or may not have what they ask for",
                &self.not_allowed,
            ),
            ("csr_parsing_err_count", "Requests whose CSR cannot be read", &self.malformed),
            ("csr_sign_err_count", "Requests that were good and not signed", &self.not_signed),
        ] {
            registry.register(format!("citadel_server_{name}"), help, counter.clone());
        }
        let help = "1 while the CA that is plugged in cannot be used, and the one before it signs";
        registry.register("ambit_ca_plugged_in_refused", help, self.plugged_in_refused.clone());
    }
}
