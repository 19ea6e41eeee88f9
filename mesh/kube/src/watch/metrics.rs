//! How often watches had to be begun again, and why.

use mesh_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::plan::End;
use crate::resource::Resource;

/// `ambit_kubernetes_watch_restarts_total{resource, reason}`. Both are words of ours, so there are few sets. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    restarts: Family<[(&'static str, String); 2], Counter>,
}

impl WatchMetrics {
    /// Registers them.
    pub fn register(&self, metrics: &mut Metrics) {
        let help = "Watches that ended and were begun again: `ended` in order, `expired` (410), `absent` (the kind is not \
                    installed), `refused` or `broken`";
        metrics.registry_mut().register("ambit_kubernetes_watch_restarts", help, self.restarts.clone());
    }

    /// A watch ended so. A list that is whole is followed by a watch, and no restart.
    pub(super) fn ended(&self, resource: Resource, end: &End) {
        let Some(reason) = reason(end) else { return };
        self.restarts.get_or_create(&[("resource", resource.to_string()), ("reason", reason.to_owned())]).inc();
    }
}

fn reason(end: &End) -> Option<&'static str> {
    match end {
        End::Listed { .. } => None,
        End::Served => Some("ended"),
        End::Refused { code: 410, .. } => Some("expired"),
        End::Refused { code: 404, .. } => Some("absent"),
        End::Refused { .. } => Some("refused"),
        End::Broken(_) => Some("broken"),
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::metrics::TextFormat;

    use super::*;

    #[test]
    fn each_restart_is_counted_under_its_reason() {
        let mut metrics = Metrics::new("test", "0");
        let watches = WatchMetrics::default();
        watches.register(&mut metrics);
        let refused = |code| End::Refused { code, message: String::new() };
        for end in [End::Served, refused(410), refused(404), refused(403), refused(500), End::Broken("reset".into())] {
            watches.ended(Resource::core("pods"), &end);
        }
        watches.ended(Resource::core("pods"), &End::Listed { version: "1".into() });
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        let lines: Vec<&str> =
            text.lines().filter(|l| l.starts_with("ambit_kubernetes_watch_restarts_total{")).collect();
        assert_eq!(lines.len(), 5, "{lines:#?}");
        let refused = "ambit_kubernetes_watch_restarts_total{resource=\"pods\",reason=\"refused\"} 2";
        assert!(lines.contains(&refused), "{lines:#?}");
    }
}
