//! Pods that are not as they should be, one line for each.

use std::collections::BTreeSet;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Metrics;

/// Most pods with a line of their own: more than a kubelet gives a node. Those beyond are in the programs' counts only.
const MOST: usize = 256;

/// Not `pod` and `namespace`: those are the labels that a scrape adds, of the program that tells.
type Labels = [(&'static str, String); 3];

/// A gauge with the value 1 for each pod that something is wrong with, `{pod_namespace, pod_name, reason}`. The line of
/// a pod that is well again is gone. Clones share the lines; one of them writes.
#[derive(Clone, Debug, Default)]
pub struct PodsInTrouble {
    lines: Family<Labels, Gauge>,
    shown: BTreeSet<Labels>,
}

impl PodsInTrouble {
    /// No pods yet.
    pub fn register(metrics: &mut Metrics, name: &str, help: &str) -> Self {
        let this = Self::default();
        metrics.registry_mut().register(name, help, this.lines.clone());
        this
    }

    /// These are all: namespace, name, and a reason that is one of few words.
    pub fn set<'a>(&mut self, pods: impl IntoIterator<Item = (&'a str, &'a str, &'static str)>) {
        let labels = |(namespace, name, reason): (&str, &str, &str)| {
            [("pod_namespace", namespace.to_owned()), ("pod_name", name.to_owned()), ("reason", reason.to_owned())]
        };
        let now: BTreeSet<Labels> = pods.into_iter().take(MOST).map(labels).collect();
        for gone in self.shown.difference(&now) {
            self.lines.remove(gone);
        }
        for new in now.difference(&self.shown) {
            self.lines.get_or_create(new).set(1);
        }
        self.shown = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextFormat;

    #[test]
    fn one_line_for_each_pod_while_it_is_in_trouble() {
        let mut metrics = Metrics::new("test", "0");
        let mut pods = PodsInTrouble::register(&mut metrics, "ambit_pod_lost", "Pods");
        let lines = |metrics: &Metrics| -> Vec<String> {
            let text = metrics.encode(TextFormat::Prometheus).unwrap();
            text.lines().filter(|l| l.starts_with("ambit_pod_lost{")).map(str::to_owned).collect()
        };
        pods.set([("shop", "web-1", "netns"), ("shop", "web-2", "rules")]);
        assert_eq!(lines(&metrics).len(), 2);
        pods.set([("shop", "web-2", "netns")]);
        assert_eq!(
            lines(&metrics),
            ["ambit_pod_lost{pod_namespace=\"shop\",pod_name=\"web-2\",reason=\"netns\"} 1"],
            "neither the pod that is well again nor the reason that was before"
        );
        let many: Vec<String> = (0..MOST + 50).map(|i| format!("web-{i}")).collect();
        pods.set(many.iter().map(|name| ("shop", name.as_str(), "netns")));
        assert_eq!(lines(&metrics).len(), MOST);
        pods.set([]);
        assert_eq!(lines(&metrics), Vec::<String>::new());
    }
}
