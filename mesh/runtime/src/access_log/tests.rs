//! Lines as operators read them.

use std::fmt;

use super::*;

fn peer(addr: &str) -> Peer<'_> {
    Peer { addr: Some(addr.parse().unwrap()), ..Peer::default() }
}

/// The line without its time.
fn plain(entry: &Entry<'_>) -> String {
    let (log, lines) = AccessLog::memory(LogFormat::Plain).unwrap();
    log.record(entry);
    let lines = lines.lines();
    assert_eq!(lines.len(), 1);
    let (time, rest) = lines[0].split_once('\t').unwrap();
    assert_eq!(time.len(), "2026-11-21T08:25:40.123456Z".len());
    rest.to_owned()
}

#[test]
fn a_complete_connection() {
    let entry = Entry {
        src: Peer {
            workload: Some("curl-1"),
            namespace: Some("default"),
            identity: Some(&"spiffe://cluster.local/ns/default/sa/curl"),
            cluster: Some("Kubernetes"),
            ..peer("10.244.1.5:43210")
        },
        dst: Peer { workload: Some("web-1"), namespace: Some(""), ..peer("[fd00::2]:15008") },
        hbone_addr: Some(&"10.244.1.6:8080"),
        service: Some("web.default.svc.cluster.local"),
        direction: Some(Direction::Inbound),
        bytes_sent: Some(84),
        bytes_recv: Some(159),
        duration: Some(Duration::from_micros(12_900)),
        policy: Some(&"default/allow-curl"),
        audit: Some(&"default/watch"),
        trace: Some(&"00-a-b-00"),
        ..Entry::default()
    };
    assert_eq!(
        plain(&entry),
        "info\taccess\tconnection complete\tsrc.addr=10.244.1.5:43210 src.workload=\"curl-1\" src.namespace=\"default\" \
         src.identity=\"spiffe://cluster.local/ns/default/sa/curl\" src.cluster=\"Kubernetes\" dst.addr=[fd00::2]:15008 \
         dst.hbone_addr=10.244.1.6:8080 dst.service=\"web.default.svc.cluster.local\" dst.workload=\"web-1\" \
         direction=\"inbound\" bytes_sent=84 bytes_recv=159 duration=\"12ms\" policy=\"default/allow-curl\" \
         audit=\"default/watch\" trace=\"00-a-b-00\""
    );
    let (log, lines) = AccessLog::memory(LogFormat::Json).unwrap();
    log.record(&entry);
    let mut json: serde_json::Value = serde_json::from_str(&lines.lines()[0]).unwrap();
    assert!(json["time"].take().is_string());
    assert_eq!(
        json,
        serde_json::json!({
            "time": null, "level": "info", "scope": "access", "message": "connection complete",
            "src.addr": "10.244.1.5:43210", "src.workload": "curl-1", "src.namespace": "default",
            "src.identity": "spiffe://cluster.local/ns/default/sa/curl", "src.cluster": "Kubernetes",
            "dst.addr": "[fd00::2]:15008", "dst.hbone_addr": "10.244.1.6:8080",
            "dst.service": "web.default.svc.cluster.local", "dst.workload": "web-1", "direction": "inbound",
            "bytes_sent": 84, "bytes_recv": 159, "duration": "12ms", "policy": "default/allow-curl", "audit": "default/watch",
            "trace": "00-a-b-00",
        })
    );
}

#[test]
fn levels_and_messages() {
    let error: &dyn fmt::Display = &"no route";
    let cases = [
        (Event::Complete, None, "info\taccess\tconnection complete"),
        (Event::Complete, Some(error), "error\taccess\tconnection complete\terror=\"no route\""),
        (Event::Opened, None, "debug\taccess\tconnection opened"),
        (Event::Failed, Some(error), "warn\taccess\tconnection failed\terror=\"no route\""),
    ];
    for (event, error, expected) in cases {
        assert_eq!(plain(&Entry { event, error, ..Entry::default() }), expected);
    }
}

#[test]
fn strangers_cannot_forge_a_line() {
    let forged = "x\n2026-11-21T00:00:00Z\tinfo\taccess\tconnection complete\tsrc.identity=\"spiffe://admin\"";
    let line = plain(&Entry { error: Some(&forged), hbone_addr: Some(&"a\nb c"), ..Entry::default() });
    assert_eq!(line.matches('\t').count(), 3, "{line}");
    assert!(line.contains("dst.hbone_addr=a\\nb c error=\"x\\n2026"), "{line}");
    assert!(plain(&Entry { error: Some(&"x".repeat(1 << 20)), ..Entry::default() }).len() < 2048);
}

#[test]
fn the_log_filter_applies() {
    use tracing_subscriber::layer::SubscriberExt;
    let cases = [
        ("info", [true, true, false]),
        ("debug", [true, true, true]),
        ("info,access=off", [false, false, false]),
        ("off,access=error", [false, true, false]),
    ];
    for (filter, expected) in cases {
        let filter = tracing_subscriber::EnvFilter::builder().parse(filter).unwrap();
        let subscriber = tracing_subscriber::registry().with(filter);
        let shown =
            tracing::subscriber::with_default(subscriber, || [Level::INFO, Level::ERROR, Level::DEBUG].map(enabled));
        assert_eq!(shown, expected);
    }
}

#[test]
fn disabled_writes_nothing() {
    let log = AccessLog::disabled();
    log.record(&Entry::default());
    assert!(log.flush(Duration::ZERO));
    assert_eq!(log.dropped(), 0);
}

#[test]
fn many_threads_whole_lines() {
    let (log, lines) = AccessLog::memory(LogFormat::Json).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..500 {
                    log.record(&Entry { bytes_sent: Some(i), ..Entry::default() });
                }
            });
        }
    });
    let lines = lines.lines();
    assert_eq!(lines.len(), 2000);
    for line in lines {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }
    let mut metrics = Metrics::new("ztunnel", "test");
    log.register(&mut metrics);
    let text = metrics.encode(crate::metrics::TextFormat::Prometheus).unwrap();
    assert!(text.contains("ambit_access_log_lines_dropped_total 0\n"), "{text}");
}
