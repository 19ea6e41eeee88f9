//! What is counted of fetches. Names are istiod's.

use mesh_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::cluster::Fetched;

/// Handles into the registry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct JwksMetrics {
    pub(super) succeeded: Counter,
    pub(super) failed: Counter,
    sources: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl JwksMetrics {
    /// Registers them.
    pub fn register(&self, metrics: &mut Metrics) {
        self.count([].into_iter());
        let registry = metrics.registry_mut();
        let help = "Fetches of key sets (jwksUri, or an issuer's OpenID configuration) that succeeded";
        registry.register("pilot_jwks_resolver_network_fetch_success", help, self.succeeded.clone());
        let help = "Fetches of key sets that failed";
        registry.register("pilot_jwks_resolver_network_fetch_fail", help, self.failed.clone());
        let help = "Addresses that key sets are fetched from, by state: fetched, stale (the last fetch failed, and the keys before \
                    it are used), and missing (none was ever fetched: tokens of that issuer are refused)";
        registry.register("ambit_jwks_sources", help, self.sources.clone());
    }

    /// How many there are of each state.
    pub(super) fn count<'a>(&self, all: impl Iterator<Item = &'a Fetched>) {
        let [mut fetched, mut stale, mut missing] = [0, 0, 0];
        for one in all {
            *match (&one.keys, &one.trouble) {
                (Some(_), None) => &mut fetched,
                (Some(_), Some(_)) => &mut stale,
                (None, _) => &mut missing,
            } += 1;
        }
        for (state, count) in [("fetched", fetched), ("stale", stale), ("missing", missing)] {
            self.sources.get_or_create(&[("state", state)]).set(count);
        }
    }
}
