//! Forgets the label sets of connections whose workloads are gone. Pods of jobs have names of their own: each would leave
//! some sets behind, until the bound on sets is reached.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::workload::Workload;
use mesh_runtime::metrics::{RequestMetrics, TrafficLabels, TrafficMetrics, WorkloadLabels};
use mesh_xds::follow::Reader;

/// How often metrics look for label sets to forget.
pub const LOOK: Duration = Duration::from_secs(60);
/// Workloads that are looked at in one go: whoever writes to the tables waits meanwhile.
const AT_ONCE: usize = 1024;

/// Forgets those of connections for as long as the process lives.
pub async fn follow(traffic: TrafficMetrics, tables: Reader) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        traffic.forget(&gone(traffic.idle(), &tables, |set| set));
    }
}

/// Forgets those of requests for as long as the process lives.
pub async fn follow_requests(requests: RequestMetrics, tables: Reader) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        requests.forget(&gone(requests.idle(), &tables, |set| &set.traffic));
    }
}

/// Those of `wanted` that no workload of the tables is, where `is` says what a workload is.
pub fn missing<T: Hash + Eq>(mut wanted: HashSet<T>, tables: &Reader, is: impl Fn(&Workload) -> T) -> HashSet<T> {
    let mut seen = 0;
    while !wanted.is_empty() {
        let more = tables.read(|tables| {
            let mut more = 0;
            for workload in tables.workloads().skip(seen).take(AT_ONCE) {
                wanted.remove(&is(workload));
                more += 1;
            }
            more
        });
        seen += more;
        if more < AT_ONCE {
            break;
        }
    }
    wanted
}

/// Those of `sets` at one end of which is a workload that the tables do not tell of, or no more.
fn gone<L>(mut sets: Vec<Arc<L>>, tables: &Reader, traffic: impl Fn(&L) -> &TrafficLabels) -> Vec<Arc<L>> {
    let named = |labels: &WorkloadLabels| (labels.namespace.clone(), labels.workload.clone());
    let ends = |set: &TrafficLabels| [named(&set.source), named(&set.destination)];
    let mut named: HashSet<_> = sets.iter().flat_map(|set| ends(traffic(set))).collect();
    // An end without a workload is no workload that is gone.
    named.retain(|(_, workload)| !workload.is_empty());
    let missing = missing(named, tables, |w| (w.namespace.clone(), w.workload_name.clone()));
    sets.retain(|set| ends(traffic(set)).iter().any(|end| missing.contains(end)));
    sets
}

#[cfg(test)]
mod tests {
    use mesh_model::resource::{Kind, Resource};
    use mesh_runtime::metrics::{ConnectionSecurity, Reporter};

    use super::*;

    fn set(source: &str, destination: &str) -> Arc<TrafficLabels> {
        let labels = |name: &str| {
            Arc::new(WorkloadLabels { workload: name.into(), namespace: "shop".into(), ..Default::default() })
        };
        Arc::new(TrafficLabels {
            reporter: Reporter::Source,
            source: labels(source),
            source_principal: "".into(),
            service: Arc::default(),
            destination: labels(destination),
            destination_principal: "".into(),
            security: ConnectionSecurity::Unknown,
        })
    }

    #[tokio::test]
    async fn gone_is_what_the_tables_do_not_tell_of() {
        let (mut writer, tables) = mesh_xds::follow::tables();
        let pod = |number: usize| {
            let name: Arc<str> = format!("job-{number}").into();
            let workload = Workload { workload_name: name.clone(), namespace: "shop".into(), ..Workload::empty(name) };
            Resource::Workload(Arc::new(workload))
        };
        // More than are looked at in one go; the last are found too.
        let last = 3 * AT_ONCE;
        writer.apply(Kind::Address, (0..=last).map(pod).collect(), vec![]).await;
        let last = format!("job-{last}");
        for (source, destination, expected) in [
            ("job-0", "job-1", false),
            ("job-0", &last, false),
            ("job-0", "never-there", true),
            ("never-there", "job-0", true),
            ("", "job-0", false),
            ("", "", false),
        ] {
            let gone = gone(vec![set(source, destination)], &tables, |set| set);
            assert_eq!(gone.len(), usize::from(expected), "{source} to {destination}");
        }
        writer.apply(Kind::Address, vec![], vec!["job-1".into()]).await;
        let sets = vec![set("job-0", "job-1"), set("job-0", "job-2")];
        let names: Vec<_> =
            gone(sets, &tables, |set| set).iter().map(|set| set.destination.workload.to_string()).collect();
        assert_eq!(names, ["job-1"]);
    }
}
