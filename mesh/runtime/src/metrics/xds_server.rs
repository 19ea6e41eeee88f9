//! What a control plane counts about its subscribers' streams. Names are istiod's where it has one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::{BareCounter, Metrics};

/// One label, of words that the program chooses: whatever subscribers send, there are no more sets.
type Label = [(&'static str, &'static str); 1];

/// Seconds; istiod's, and finer ones below.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];

/// `pilot_xds*` and `pilot_proxy_convergence_time`. Clones count together.
#[derive(Clone, Debug)]
pub struct XdsServerMetrics {
    connected: Family<Label, Gauge>,
    pushes: Family<Label, BareCounter>,
    rejects: Family<Label, BareCounter>,
    stale: Family<Label, BareCounter>,
    convergence: Histogram,
    sessions: Sessions,
}

impl Default for XdsServerMetrics {
    fn default() -> Self {
        Self {
            connected: Family::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            stale: Family::default(),
            convergence: Histogram::new(BUCKETS),
            sessions: Sessions::default(),
        }
    }
}

/// Streams that are not as they should be.
#[derive(Clone, Debug, Default)]
struct Sessions(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Since when each owes an answer.
    behind: BTreeMap<u64, Instant>,
    /// Those whose last answer about some type was a refusal.
    refusing: BTreeSet<u64>,
}

impl XdsServerMetrics {
    /// Registers them. `types` and `roles` are the words that will be counted under: they are seen as 0 before.
    pub fn register(&self, metrics: &mut Metrics, types: &[&'static str], roles: &[&'static str]) {
        let registry = metrics.registry_mut();
        registry.register("pilot_xds", "Subscribers connected using xDS", self.connected.clone());
        let help = "Responses sent to subscribers, by the type of their resources";
        registry.register("pilot_xds_pushes", help, self.pushes.clone());
        let help = "Responses of which a subscriber refused resources (NACK)";
        registry.register("pilot_total_xds_rejects", help, self.rejects.clone());
        let help = "Answers to a response that was not the last";
        registry.register("pilot_xds_expired_nonce", help, self.stale.clone());
        let help = "Seconds from a change being published until a subscriber has acknowledged all of it";
        registry.register("pilot_proxy_convergence_time", help, self.convergence.clone());
        registry.register_collector(Box::new(self.sessions.clone()));
        for word in types {
            for family in [&self.pushes, &self.rejects, &self.stale] {
                drop(family.get_or_create(&[("type", *word)]));
            }
        }
        for role in roles {
            drop(self.connected.get_or_create(&[("type", *role)]));
        }
    }

    /// A stream begins. Dropped, it has ended.
    pub fn subscriber(&self) -> XdsSubscriber {
        let number = {
            let mut open = self.sessions.open();
            open.next += 1;
            open.next
        };
        XdsSubscriber {
            metrics: self.clone(),
            number,
            role: None,
            changed: Some(Instant::now()),
            behind: false,
            refused: BTreeSet::new(),
        }
    }
}

/// One stream.
#[derive(Debug)]
pub struct XdsSubscriber {
    metrics: XdsServerMetrics,
    number: u64,
    role: Option<Gauge>,
    /// Since when something may be owed to it.
    changed: Option<Instant>,
    behind: bool,
    /// The types of which it refused something, and has accepted nothing since.
    refused: BTreeSet<&'static str>,
}

impl XdsSubscriber {
    /// It has said what it is, in one of few words.
    pub fn introduced(&mut self, role: &'static str) {
        let gauge = self.metrics.connected.get_or_create_owned(&[("type", role)]);
        gauge.inc();
        self.role = Some(gauge);
    }

    /// Something was published: it may have to be told.
    pub fn changed(&mut self) {
        self.changed.get_or_insert_with(Instant::now);
    }

    /// A response with resources of this type was sent.
    pub fn pushed(&mut self, of: &'static str) {
        self.metrics.pushes.get_or_create(&[("type", of)]).inc();
        let since = *self.changed.get_or_insert_with(Instant::now);
        self.behind = true;
        self.metrics.sessions.open().behind.insert(self.number, since);
    }

    /// It took all of the last response of this type.
    pub fn accepted(&mut self, of: &'static str) {
        self.refused.remove(of);
        if self.refused.is_empty() {
            self.metrics.sessions.open().refusing.remove(&self.number);
        }
    }

    /// It refused something of the last response of this type.
    pub fn refused(&mut self, of: &'static str) {
        self.metrics.rejects.get_or_create(&[("type", of)]).inc();
        self.refused.insert(of);
        self.metrics.sessions.open().refusing.insert(self.number);
    }

    /// It answered a response that was not the last.
    pub fn stale(&self, of: &'static str) {
        self.metrics.stale.get_or_create(&[("type", of)]).inc();
    }

    /// It was told everything and has answered. How long that took counts where something was to be told, and taken.
    pub fn settled(&mut self) -> Option<Duration> {
        let since = self.changed.take();
        if !std::mem::take(&mut self.behind) {
            return None;
        }
        self.metrics.sessions.open().behind.remove(&self.number);
        let took = since.filter(|_| self.refused.is_empty())?.elapsed();
        self.metrics.convergence.observe(took.as_secs_f64());
        Some(took)
    }
}

impl Drop for XdsSubscriber {
    fn drop(&mut self) {
        if let Some(role) = &self.role {
            role.dec();
        }
        let mut open = self.metrics.sessions.open();
        open.behind.remove(&self.number);
        open.refusing.remove(&self.number);
    }
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (behind, refusing, oldest) = {
            let open = self.open();
            (open.behind.len(), open.refusing.len(), open.behind.values().min().copied())
        };
        let lag = oldest.map_or(0.0, |since| since.elapsed().as_secs_f64());
        for (name, help, count) in [
            ("ambit_xds_subscribers_behind", "Subscribers that have not acknowledged what was sent to them", behind),
            ("ambit_xds_subscribers_refusing", "Subscribers whose last answer about some type was a NACK", refusing),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(count as u64))?;
        }
        let help =
            "Seconds for which the slowest of those behind has not acknowledged what was published; 0 when none is";
        encoder.encode_descriptor("ambit_xds_lag_seconds", help, None, MetricType::Gauge)?.encode_gauge(&lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextFormat;

    #[test]
    fn a_stream_is_counted_from_its_first_request_to_its_end() {
        let mut metrics = Metrics::new("pilot", "0");
        let xds = XdsServerMetrics::default();
        xds.register(&mut metrics, &["wds", "wads"], &["ztunnel", "waypoint"]);
        let says = |metrics: &Metrics, lines: &[&str]| {
            let text = metrics.encode(TextFormat::Prometheus).unwrap();
            for line in lines {
                assert!(text.lines().any(|have| have == *line), "{line} is missing in\n{text}");
            }
        };
        let mut stream = xds.subscriber();
        says(&metrics, &["pilot_xds{type=\"ztunnel\"} 0", "pilot_total_xds_rejects{type=\"wads\"} 0"]);
        stream.introduced("ztunnel");
        stream.pushed("wads");
        stream.pushed("wds");
        says(&metrics, &["pilot_xds{type=\"ztunnel\"} 1", "ambit_xds_subscribers_behind 1"]);
        stream.accepted("wds");
        assert!(stream.settled().is_some());
        says(&metrics, &["ambit_xds_subscribers_behind 0", "pilot_proxy_convergence_time_count 1"]);
        // Nothing of it was its business.
        stream.changed();
        assert!(stream.settled().is_none());
        // A refusal is no convergence, and is seen until it takes the type again.
        stream.changed();
        stream.pushed("wads");
        stream.refused("wads");
        assert!(stream.settled().is_none());
        stream.accepted("wds");
        says(
            &metrics,
            &[
                "pilot_total_xds_rejects{type=\"wads\"} 1",
                "ambit_xds_subscribers_refusing 1",
                "pilot_proxy_convergence_time_count 1",
            ],
        );
        stream.accepted("wads");
        says(&metrics, &["ambit_xds_subscribers_refusing 0"]);
        stream.refused("wads");
        stream.pushed("wads");
        drop(stream);
        let gone = ["pilot_xds{type=\"ztunnel\"} 0", "ambit_xds_subscribers_behind 0", "ambit_xds_lag_seconds 0.0"];
        says(&metrics, &gone);
        says(&metrics, &["ambit_xds_subscribers_refusing 0", "pilot_xds_pushes{type=\"wads\"} 3"]);
    }
}
