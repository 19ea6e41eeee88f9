//! Metrics of rate limits. Label sets are as many as TrafficPolicies that count here, and go with them.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::rate_limit::{Kind, RateLimit};
use mesh_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

const KINDS: [&str; 2] = ["local", "global"];
const OK: &str = "ok";
const OVER: &str = "over_limit";
const ERROR: &str = "error";

/// What became of requests, by policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateLimitMetrics(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    traffic_policy: Arc<str>,
    kind: &'static str,
    result: &'static str,
}

/// Those of one limit.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// It passed.
    pub(crate) ok: Counter,
    /// It was refused.
    pub(crate) over: Counter,
    /// Nobody has said which.
    pub(crate) error: Counter,
}

impl RateLimitMetrics {
    /// Registers them, with nothing counted yet.
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let help = "Requests that a rate limit of a TrafficPolicy was asked about, by who counts and Envoy's word for the result";
        metrics.registry_mut().register("ambit_rate_limit_requests", help, this.0.clone());
        this
    }

    /// Those of a limit.
    pub(super) fn of(&self, limit: &RateLimit) -> Counted {
        let [local, global] = KINDS;
        let kind = if matches!(limit.kind, Kind::Local(_)) { local } else { global };
        let traffic_policy: Arc<str> = limit.policy.to_string().into();
        let one = |result| {
            let traffic_policy = traffic_policy.clone();
            self.0.get_or_create(&Labels { traffic_policy, kind, result }).clone()
        };
        Counted { ok: one(OK), over: one(OVER), error: one(ERROR) }
    }

    /// A policy is gone.
    pub(super) fn forget(&self, policy: &NamespacedName) {
        let traffic_policy: Arc<str> = policy.to_string().into();
        for kind in KINDS {
            for result in [OK, OVER, ERROR] {
                self.0.remove(&Labels { traffic_policy: traffic_policy.clone(), kind, result });
            }
        }
    }
}
