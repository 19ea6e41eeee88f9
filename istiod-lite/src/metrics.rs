//! What is measured of the control plane: names that istiod's users know where one fits, `ambit_*` for the rest.
//!
//! Label values are words of ours (kinds that we read, states, types of resources), so the number of lines has an end whatever
//! users write and subscribers send.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_kube::WatchMetrics;
use mesh_runtime::metrics::{Metrics, XdsServerMetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use tokio::sync::watch;

use crate::admission::metrics::AdmissionMetrics;
use crate::ca::material::Current;
use crate::ca::metrics::CaMetrics;
use crate::cluster::Cluster;
use crate::jwks::metrics::JwksMetrics;
use crate::leader::LeaderMetrics;
use crate::status::Status;

/// What the parts count in, before and after it is registered.
#[derive(Clone, Debug, Default)]
pub struct ControlMetrics {
    /// Of subscribers.
    pub xds: XdsServerMetrics,
    /// Of watches on an API server.
    pub watches: WatchMetrics,
    /// Of the CA.
    pub ca: CaMetrics,
    /// Of fetches of keys.
    pub jwks: JwksMetrics,
    /// Of the validating webhook, where there is one: registered apart.
    pub admission: AdmissionMetrics,
    /// Of the election, where there is a cluster: registered apart.
    pub leader: LeaderMetrics,
}

/// What is looked at when somebody scrapes.
pub(crate) struct Seen {
    pub(crate) cluster: watch::Receiver<Option<Arc<Cluster>>>,
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) material: Current,
}

impl ControlMetrics {
    /// All of them that there are for any source, and what is `seen`.
    pub(crate) fn register(&self, seen: Seen) -> Metrics {
        let version = env!("CARGO_PKG_VERSION");
        // istiod's name for itself: dashboards count control planes by it.
        let mut metrics = Metrics::new("pilot", version);
        let info = Family::<[(&str, &str); 1], Gauge>::default();
        info.get_or_create(&[("version", version)]).set(1);
        metrics.registry_mut().register("pilot_info", "Version and build of the control plane", info);
        metrics.watch_runtime(tokio::runtime::Handle::current());
        mesh_xds::observe::register(&self.xds, &mut metrics);
        self.watches.register(&mut metrics);
        self.ca.register(&mut metrics);
        self.jwks.register(&mut metrics);
        metrics.registry_mut().register_collector(Box::new(Objects { cluster: seen.cluster, status: seen.status }));
        metrics.registry_mut().register_collector(Box::new(Expiry(seen.material)));
        metrics
    }
}

/// `ambit_objects`.
struct Objects {
    cluster: watch::Receiver<Option<Arc<Cluster>>>,
    status: watch::Receiver<Arc<Status>>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

impl Objects {
    /// By kind and state.
    fn counts(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut counts = BTreeMap::new();
        let Some(cluster) = self.cluster.borrow().clone() else { return counts };
        let status = self.status.borrow().clone();
        for (kind, count) in cluster.counts() {
            counts.insert((kind.as_str(), "serving"), count as u64);
            counts.insert((kind.as_str(), "rejected"), 0);
        }
        for rejected in &status.rejected {
            // What was written in a file may be of any kind, or of none.
            let kinds = cluster.counts().map(|(kind, _)| kind.as_str());
            let known = kinds.into_iter().find(|kind| rejected.kind.as_deref() == Some(kind)).unwrap_or("other");
            *counts.entry((known, "rejected")).or_default() += 1;
        }
        for policy in &status.policies {
            let waits = counts.entry((policy.key.kind.as_str(), "not_accepted")).or_default();
            *waits += u64::from(!policy.conditions.iter().all(|condition| condition.is_accepted()));
        }
        counts
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Objects by kind and state: serving (in force; of a rejected one, its last good version), rejected, and \
                    not_accepted (a condition of it says that it is not enforced in full)";
        let mut encoder = encoder.encode_descriptor("ambit_objects", help, None, MetricType::Gauge)?;
        for ((kind, state), count) in self.counts() {
            let labels = [("kind", kind), ("state", state)];
            ConstGauge::new(count).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// When the CA's own certificates end.
struct Expiry(Current);

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expiry")
    }
}

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let material = self.0.borrow().clone();
        for (name, help, ends) in [
            (
                "citadel_server_root_cert_expiry_timestamp",
                "When the root ends that what is signed leads to, in seconds since 1970",
                material.root_ends(),
            ),
            (
                "citadel_server_cert_chain_expiry_timestamp",
                "When the first of the CA's own certificates ends, in seconds since 1970",
                material.chain_ends(),
            ),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&seconds(ends))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::metrics::TextFormat;
    use serde_json::json;

    use super::*;
    use crate::ca::material::Material;
    use crate::resources::{Key, Kind, Object};
    use crate::source::{Origin, Rejected};
    use crate::translate::condition::{Condition, PolicyStatus};

    #[tokio::test]
    async fn objects_are_counted_by_kind_and_state_and_by_nothing_that_users_choose() {
        let directory = tempfile::tempdir().unwrap();
        let material = Arc::new(Material::kept_in(directory.path(), "td").unwrap());
        let mut cluster = Cluster::default();
        cluster.apply(Object::from_value(Kind::Namespace, &json!({"metadata": {"name": "shop"}})).unwrap());
        let rejected = |kind: &str| Rejected {
            origin: Origin::Cluster { resource_version: "1".into(), generation: 1 },
            kind: Some(kind.to_owned()),
            namespace: None,
            name: Some("a".to_owned()),
            field: None,
            message: "wrong".to_owned(),
            last_good_kept: false,
        };
        let key = Key::new(Kind::PeerAuthentication, Some("shop"), "a");
        let policies = vec![PolicyStatus::new(key, vec![Condition::rejected("no".to_owned())])];
        let wrong = [rejected("AuthorizationPolicy"), rejected("Made"), rejected("Up")];
        let status = Status { rejected: wrong.into(), policies, skipped: Vec::new() };
        let ends = material.root_ends();
        let signs = watch::Sender::new(material);
        let (known, told) = (watch::Sender::new(Some(Arc::new(cluster))), watch::Sender::new(Arc::new(status)));
        let seen = Seen { cluster: known.subscribe(), status: told.subscribe(), material: signs.subscribe() };
        let text = ControlMetrics::default().register(seen).encode(TextFormat::Prometheus).unwrap();
        let root = ends.duration_since(UNIX_EPOCH).unwrap().as_secs();
        for line in [
            "ambit_objects{kind=\"Namespace\",state=\"serving\"} 1",
            "ambit_objects{kind=\"AuthorizationPolicy\",state=\"rejected\"} 1",
            "ambit_objects{kind=\"PeerAuthentication\",state=\"rejected\"} 0",
            "ambit_objects{kind=\"PeerAuthentication\",state=\"not_accepted\"} 1",
            "ambit_objects{kind=\"other\",state=\"rejected\"} 2",
            "istio_build{component=\"pilot\",tag=\"0.1.0\"} 1",
            "pilot_xds_pushes{type=\"wds\"} 0",
            "citadel_server_csr_count 0",
            &format!("citadel_server_root_cert_expiry_timestamp {root}"),
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }
}
