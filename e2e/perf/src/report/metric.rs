//! What a metric's name means to people.

/// A metric.
pub(super) struct Metric {
    /// As in the JSON; has the unit.
    pub(super) name: &'static str,
    /// As in a table.
    pub(super) title: &'static str,
    /// More of it is better.
    pub(super) more_is_better: bool,
}

/// Every metric there is, as tables list them.
pub(super) const ALL: [Metric; 17] = [
    more("gbit_per_s", "throughput, Gbit/s"),
    more("requests_per_s", "requests/s"),
    more("connections_per_s", "new connections/s"),
    less("p50_us", "latency p50, µs"),
    less("p90_us", "latency p90, µs"),
    less("p99_us", "latency p99, µs"),
    less("proxy_cpu_s_per_gb", "CPU of the proxies, s/GB"),
    less("total_cpu_s_per_gb", "CPU of everybody, s/GB"),
    less("proxy_cpu_us_per_request", "CPU of the proxies, µs/request"),
    less("total_cpu_us_per_request", "CPU of everybody, µs/request"),
    less("proxy_cpu_us_per_connection", "CPU of the proxies, µs/connection"),
    less("total_cpu_us_per_connection", "CPU of everybody, µs/connection"),
    less("idle_mib", "idle: resident, MiB"),
    less("idle_anonymous_mib", "idle: own (anonymous), MiB"),
    less("held_mib", "connections held: resident, MiB"),
    less("held_anonymous_mib", "connections held: own (anonymous), MiB"),
    less("kib_per_connection", "own memory per held connection, KiB"),
];

const fn more(name: &'static str, title: &'static str) -> Metric {
    Metric { name, title, more_is_better: true }
}

const fn less(name: &'static str, title: &'static str) -> Metric {
    Metric { name, title, more_is_better: false }
}

/// The metric of this name.
pub(super) fn named(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}
