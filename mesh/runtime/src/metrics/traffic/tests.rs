//! What is counted, under which labels, and how many of them.

use super::super::sets::GRACE;
use super::super::{ConnectionSecurity, ServiceLabels, TextFormat, WorkloadLabels};
use super::*;

fn labels(source: &str) -> TrafficLabels {
    let workload = |name: &str| {
        Arc::new(WorkloadLabels {
            workload: name.into(),
            canonical_service: name.into(),
            canonical_revision: "v1".into(),
            namespace: "default".into(),
            app: name.into(),
            version: "v1".into(),
            cluster: "Kubernetes".into(),
            region: "r".into(),
            zone: "".into(),
        })
    };
    TrafficLabels {
        reporter: Reporter::Source,
        source: workload(source),
        source_principal: "spiffe://cluster.local/ns/default/sa/a".into(),
        service: Arc::new(ServiceLabels {
            hostname: "b.default.svc.cluster.local".into(),
            name: "b".into(),
            namespace: "default".into(),
        }),
        destination: workload("b"),
        destination_principal: "".into(),
        security: ConnectionSecurity::MutualTls,
    }
}

fn registered(limit: usize) -> (Metrics, TrafficMetrics) {
    let mut metrics = Metrics::new("ztunnel", "test");
    let traffic = TrafficMetrics::register_with_limit(&mut metrics, limit);
    (metrics, traffic)
}

/// Samples whose line begins with `name{` or `name `, as (labels, value).
fn samples(metrics: &Metrics, name: &str) -> Vec<(String, u64)> {
    let text = metrics.encode(TextFormat::Prometheus).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    let mut samples: Vec<_> = lines
        .map(|rest| {
            let (labels, value) = rest.rsplit_once(' ').unwrap();
            (labels.to_owned(), value.parse().unwrap())
        })
        .collect();
    samples.sort();
    samples
}

/// Trap 53: `source` and `destination` are ztunnel's reporters.
#[test]
fn the_whole_label_set_in_order() {
    let (metrics, traffic) = registered(10);
    let connection = traffic.open(&labels("a"));
    let expected = "{reporter=\"source\",\
        source_workload=\"a\",source_canonical_service=\"a\",source_canonical_revision=\"v1\",\
        source_workload_namespace=\"default\",source_principal=\"spiffe://cluster.local/ns/default/sa/a\",\
        source_app=\"a\",source_version=\"v1\",source_cluster=\"Kubernetes\",\
        destination_service=\"b.default.svc.cluster.local\",destination_service_namespace=\"default\",\
        destination_service_name=\"b\",destination_workload=\"b\",destination_canonical_service=\"b\",\
        destination_canonical_revision=\"v1\",destination_workload_namespace=\"default\",\
        destination_principal=\"unknown\",destination_app=\"b\",destination_version=\"v1\",\
        destination_cluster=\"Kubernetes\",request_protocol=\"tcp\",response_flags=\"-\",\
        connection_security_policy=\"mutual_tls\",source_region=\"r\",source_zone=\"unknown\",\
        destination_region=\"r\",destination_zone=\"unknown\"}";
    assert_eq!(samples(&metrics, "istio_tcp_connections_opened_total"), [(expected.to_owned(), 1)]);
    connection.closed(ResponseFlags::None);

    let nobody = TrafficLabels { source: Arc::default(), destination: Arc::default(), ..labels("a") };
    traffic.open(&nobody).closed(ResponseFlags::None);
    let opened = samples(&metrics, "istio_tcp_connections_opened_total");
    let unknown = opened.iter().find(|(labels, _)| labels.contains("source_workload=\"unknown\"")).unwrap();
    assert!(!unknown.0.contains("_region") && !unknown.0.contains("_zone"), "{}", unknown.0);
}

#[test]
fn one_connection_from_open_to_closed() {
    let (metrics, traffic) = registered(10);
    let connection = traffic.open(&labels("a"));
    connection.received(100);
    connection.received(1);
    connection.sent(7);
    let value = |name: &str| samples(&metrics, name).iter().map(|(_, value)| *value).collect::<Vec<_>>();
    assert_eq!(value("istio_tcp_received_bytes_total"), [101]);
    assert_eq!(value("istio_tcp_sent_bytes_total"), [7]);
    assert_eq!(value("istio_tcp_connections_closed_total"), [0; 0]);
    connection.closed(ResponseFlags::None);
    assert_eq!(value("istio_tcp_connections_closed_total"), [1]);
    assert_eq!(value("istio_tcp_connections_failed_total"), [0; 0]);
}

#[test]
fn flags_are_on_closed_and_failed_only() {
    let (metrics, traffic) = registered(10);
    for flags in ResponseFlags::ALL {
        traffic.open(&labels("a")).closed(flags);
    }
    drop(traffic.open(&labels("a")));
    let flags = |name: &str| {
        let mut found: Vec<(String, u64)> = samples(&metrics, name)
            .into_iter()
            .map(|(labels, value)| {
                let flag = labels.split("response_flags=\"").nth(1).unwrap().split('"').next().unwrap();
                (flag.to_owned(), value)
            })
            .collect();
        found.sort();
        found
    };
    let all = [
        ("-", 1),
        ("CERT_REVOKED", 1),
        ("CONNECT", 2),
        ("DENY", 1),
        ("H2_HANDSHAKE_FAILURE", 1),
        ("IDENTITY_ERROR", 1),
        ("NETWORK_POLICY", 1),
        ("TLS_FAILURE", 1),
    ]
    .map(|(flag, count)| (flag.to_owned(), count));
    assert_eq!(flags("istio_tcp_connections_opened_total"), [("-".to_owned(), 9)]);
    assert_eq!(flags("istio_tcp_connections_closed_total"), all);
    assert_eq!(flags("istio_tcp_connections_failed_total"), all[1..]);
    for (index, flags) in ResponseFlags::ALL.into_iter().enumerate() {
        assert_eq!(flags as usize, index);
    }
}

#[test]
fn label_sets_are_bounded() {
    let (metrics, traffic) = registered(3);
    let open: Vec<_> = (0..10).map(|i| traffic.open(&labels(&format!("w{i}")))).collect();
    let opened = samples(&metrics, "istio_tcp_connections_opened_total");
    assert_eq!(opened.len(), 4);
    let other = opened.iter().find(|(labels, _)| labels.contains("source_workload=\"other\"")).unwrap();
    assert_eq!(other.1, 7);
    assert!(other.0.contains("connection_security_policy=\"mutual_tls\""));
    assert_eq!(samples(&metrics, "ambit_metrics_label_sets_dropped_total"), [(String::new(), 7)]);
    drop(open);
}

fn names(traffic: &TrafficMetrics) -> Vec<String> {
    let mut names: Vec<_> = traffic.inner.sets.snapshot().iter().map(|(l, _)| l.source.workload.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_full_table_forgets_what_stays_idle() {
    let (metrics, traffic) = registered(2);
    let busy = traffic.open(&labels("busy"));
    traffic.open(&labels("gone")).closed(ResponseFlags::None);
    let sweep = |now| traffic.inner.sets.table.write().unwrap().sweep(now);
    sweep(1);
    sweep(GRACE);
    assert_eq!(names(&traffic), ["busy", "gone"], "not for long enough");
    traffic.open(&labels("gone")).closed(ResponseFlags::None);
    sweep(2 * GRACE);
    assert_eq!(names(&traffic), ["busy", "gone"], "it was used since");
    sweep(3 * GRACE);
    assert_eq!(names(&traffic), ["busy"]);
    drop(traffic.open(&labels("new")));
    assert_eq!(names(&traffic), ["busy", "new"]);
    assert_eq!(samples(&metrics, "ambit_metrics_label_sets_dropped_total"), [(String::new(), 0)]);
    drop(busy);
}

#[test]
fn a_table_with_room_forgets_what_it_is_told_to_and_nothing_in_use() {
    let (_, traffic) = registered(10);
    let found = |now| {
        let idle = traffic.inner.sets.idle(now);
        let mut names: Vec<_> = idle.iter().map(|labels| labels.source.workload.to_string()).collect();
        names.sort();
        (names, idle)
    };
    let open = traffic.open(&labels("open"));
    for name in ["a", "b", "c"] {
        traffic.open(&labels(name)).closed(ResponseFlags::None);
    }
    assert!(found(1).0.is_empty() && found(GRACE).0.is_empty(), "not for long enough");
    let (idle, sets) = found(1 + GRACE);
    assert_eq!(idle, ["a", "b", "c"]);
    // One is used again before it is forgotten, one is open by then, one has been scraped.
    traffic.open(&labels("a")).closed(ResponseFlags::None);
    let again = traffic.open(&labels("b"));
    drop(traffic.inner.sets.snapshot());
    traffic.forget(&sets);
    assert_eq!(names(&traffic), ["a", "b", "open"]);
    // A scrape that is under way is no use.
    drop((open, again));
    assert!(found(2 * GRACE).0.is_empty());
    let scrape = traffic.inner.sets.snapshot();
    assert!(found(3 * GRACE).0.is_empty(), "but it keeps them");
    drop(scrape);
    let (idle, sets) = found(3 * GRACE);
    assert_eq!(idle, ["a", "b", "open"]);
    traffic.forget(&sets);
    assert_eq!(names(&traffic), [""; 0]);
    assert_eq!(traffic.inner.sets.table.read().unwrap().series.capacity(), 0, "their room is given back");
}

#[test]
fn remembered_labels_open_the_same_counters_until_they_are_forgotten() {
    let (metrics, traffic) = registered(1);
    let first = traffic.open(&labels("a"));
    let known = traffic.remember(&first);
    first.closed(ResponseFlags::None);
    let second = traffic.open_known(&known).unwrap();
    second.received(5);
    let opened = samples(&metrics, "istio_tcp_connections_opened_total");
    assert_eq!(opened.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [2]);
    assert_eq!(samples(&metrics, "istio_tcp_received_bytes_total")[0].1, 5);

    // Being remembered keeps nothing from being swept, and using it does.
    let sweep = |now| traffic.inner.sets.table.write().unwrap().sweep(now);
    sweep(1);
    sweep(2 * GRACE);
    drop(second);
    sweep(3 * GRACE);
    assert!(traffic.open_known(&known).is_some(), "not idle for long");
    sweep(4 * GRACE);
    sweep(5 * GRACE);
    assert!(traffic.open_known(&known).is_none(), "forgotten");

    let kept = traffic.open(&labels("b"));
    let other = traffic.open(&labels("c"));
    assert!(traffic.open_known(&traffic.remember(&kept)).is_some());
    assert!(traffic.open_known(&traffic.remember(&other)).is_none(), "what is under `other` may find room next time");
    let (_, elsewhere) = registered(1);
    assert!(elsewhere.open_known(&traffic.remember(&kept)).is_none(), "another's");
    assert!(traffic.open_known(&KnownLabels::default()).is_none());
}

#[test]
fn counted_from_many_threads() {
    let (metrics, traffic) = registered(100);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..1000 {
                    let connection = traffic.open(&labels(&format!("w{}", i % 10)));
                    connection.received(1);
                    connection.closed(ResponseFlags::None);
                }
            });
        }
    });
    let sum = |name: &str| samples(&metrics, name).iter().map(|(_, value)| value).sum::<u64>();
    assert_eq!(sum("istio_tcp_connections_opened_total"), 4000);
    assert_eq!(sum("istio_tcp_connections_closed_total"), 4000);
    assert_eq!(sum("istio_tcp_received_bytes_total"), 4000);
}

#[test]
fn sockets_are_a_gauge() {
    let (metrics, traffic) = registered(10);
    let socket = traffic.socket(Reporter::Destination);
    let now = || samples(&metrics, "istio_tcp_sockets_open");
    assert_eq!(now(), [("{reporter=\"destination\"}".to_owned(), 1), ("{reporter=\"source\"}".to_owned(), 0)]);
    drop(socket);
    assert_eq!(now()[0].1, 0);
}
