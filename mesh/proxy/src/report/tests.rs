//! What is told of connections, and what telling costs.

use std::time::Instant;

use mesh_model::identity::SpiffeId;
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::{AccessLog, MemoryLines};
use mesh_runtime::log::LogFormat;
use mesh_runtime::metrics::{Metrics, Reporter, TextFormat, TrafficMetrics};

use super::*;
use crate::metrics::{ReasonMetrics, RevocationMetrics};

mod counting {
    //! Counts what this thread allocates.

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    thread_local! {
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    }

    fn count() {
        // A thread that is ending has no more to count.
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
    }

    #[allow(unsafe_code, reason = "only an allocator can count allocations; it hands everything on")]
    // SAFETY: every call goes to the system's allocator unchanged.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count();
            // SAFETY: the caller's promises, handed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { System.dealloc(ptr, layout) }
        }

        unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            count();
            // SAFETY: as above.
            unsafe { System.realloc(ptr, layout, size) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    pub(super) fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
        let before = ALLOCATIONS.get();
        let result = work();
        (ALLOCATIONS.get() - before, result)
    }
}

struct Told {
    telemetry: Arc<Telemetry>,
    metrics: Metrics,
    lines: MemoryLines,
}

fn told() -> Told {
    let (access_log, lines) = AccessLog::memory(LogFormat::Plain).unwrap();
    let mut metrics = Metrics::new("ztunnel", "test");
    let telemetry = Telemetry {
        traffic: TrafficMetrics::register(&mut metrics),
        reasons: ReasonMetrics::register(&mut metrics),
        revocation: RevocationMetrics::register(&mut metrics),
        access_log,
        policy_info_logging: false,
    };
    Told { telemetry: Arc::new(telemetry), metrics, lines }
}

impl Told {
    /// The values of a counter, with the labels that hold one of `words`.
    fn count(&self, name: &str, word: &str) -> u64 {
        let text = self.metrics.encode(TextFormat::Prometheus).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(word));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

fn workload(name: &str) -> Arc<Workload> {
    Arc::new(Workload {
        name: format!("{name}-5d4f7c").into(),
        workload_name: name.into(),
        namespace: "shop".into(),
        service_account: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        ..Workload::empty(name)
    })
}

fn traffic(client: &Arc<Workload>, server: &Arc<Workload>, outbound: bool) -> Traffic {
    let (direction, reporter) = match outbound {
        true => (Direction::Outbound, Reporter::Source),
        false => (Direction::Inbound, Reporter::Destination),
    };
    Traffic {
        direction,
        reporter,
        from: "10.244.1.2:41190".parse().unwrap(),
        to: "10.244.2.2:15008".parse().unwrap(),
        hbone_to: Some(mesh_model::address::Authority::Address("10.244.2.2:8080".parse().unwrap())),
        source: Party::workload(client, client.identity().ok().as_ref()),
        destination: Party::workload(server, server.identity().ok().as_ref()),
        service: None,
        secured: true,
        trace: None,
    }
}

/// The second connection between two workloads costs one allocation, for its counters: neither labels nor line are built anew.
#[tokio::test]
async fn telling_of_a_connection_allocates_next_to_nothing() {
    let told = told();
    let (client, server) = (workload("storefront"), workload("orders"));
    let tell = || {
        let report = Report::open(&told.telemetry, traffic(&client, &server, true));
        report.count_from_client().forth(140);
        report.count_from_client().back(78);
        report.closed();
    };
    let (first, ()) = counting::allocations(tell);
    // Until both buffers of the log's queue have grown.
    for _ in 0..4 {
        (0..25).for_each(|_| tell());
        told.lines.lines();
    }
    let (next, ()) = counting::allocations(tell);
    assert!(first > 10, "the counting allocator counts: {first}");
    assert_eq!(next, 1, "allocations for telling of a connection");
    assert_eq!(told.count("istio_tcp_connections_closed_total", "source_workload=\"storefront\""), 102);
    assert_eq!(told.count("istio_tcp_received_bytes_total", "destination_workload=\"orders\""), 102 * 140);
}

/// What is remembered is only ever used for what it was remembered for.
#[tokio::test]
async fn remembered_labels_are_told_apart() {
    let told = told();
    let (a, b) = (workload("a"), workload("b"));
    let other = SpiffeId::new("td", "ns", "other").unwrap();
    for _ in 0..3 {
        Report::open(&told.telemetry, traffic(&a, &b, true)).closed();
        Report::open(&told.telemetry, traffic(&a, &b, false)).closed();
        Report::open(&told.telemetry, traffic(&b, &a, true)).closed();
        Report::open(&told.telemetry, Traffic { secured: false, ..traffic(&a, &b, true) }).closed();
        Report::open(&told.telemetry, Traffic { destination: Party::known(None), ..traffic(&a, &b, true) }).closed();
        Report::open(
            &told.telemetry,
            Traffic { destination: Party::workload(&b, Some(&other)), ..traffic(&a, &b, true) },
        )
        .closed();
    }
    let text = told.metrics.encode(TextFormat::Prometheus).unwrap();
    let opened: Vec<_> = text.lines().filter(|l| l.starts_with("istio_tcp_connections_opened_total{")).collect();
    assert_eq!(opened.len(), 6, "{opened:#?}");
    assert!(opened.iter().all(|line| line.ends_with(" 3")), "{opened:#?}");

    // The tables said something new of it: another object, other labels.
    let changed = Arc::new(Workload { canonical_revision: "v2".into(), ..(*b).clone() });
    Report::open(&told.telemetry, traffic(&a, &changed, true)).closed();
    assert_eq!(told.count("istio_tcp_connections_opened_total", "destination_version=\"v2\""), 1);
    // Another registry on the same thread.
    let second = super::tests::told();
    Report::open(&second.telemetry, traffic(&a, &b, true)).closed();
    assert_eq!(second.count("istio_tcp_connections_opened_total", ""), 1);
}

/// Trap 54: counters speak from the server's side, outbound lines from the client's. Contract 11.1, 11.3.
#[tokio::test]
async fn trap_54_sent_and_received_are_flipped_in_outbound_lines() {
    let told = told();
    let (client, server) = (workload("storefront"), workload("orders"));
    for outbound in [true, false] {
        let report = Report::open(&told.telemetry, traffic(&client, &server, outbound));
        // 140 from the client, 78 to it.
        match outbound {
            true => {
                report.count_from_client().forth(140);
                report.count_from_client().back(78);
            }
            false => {
                report.count_from_server().back(140);
                report.count_from_server().forth(78);
            }
        }
        report.closed();
    }
    for reporter in ["source", "destination"] {
        let label = format!("reporter=\"{reporter}\"");
        assert_eq!(told.count("istio_tcp_received_bytes_total", &label), 140, "{reporter}");
        assert_eq!(told.count("istio_tcp_sent_bytes_total", &label), 78, "{reporter}");
    }
    let lines = told.lines.lines();
    assert!(lines[0].contains("direction=\"outbound\" bytes_sent=140 bytes_recv=78"), "{}", lines[0]);
    assert!(lines[1].contains("direction=\"inbound\" bytes_sent=78 bytes_recv=140"), "{}", lines[1]);
}

/// Each connection that does not end well is counted by its reason; attempt failures too, which no Istio metric has.
#[tokio::test]
async fn reasons_are_counted() {
    let told = told();
    let (client, server) = (workload("a"), workload("b"));
    let addr = "10.0.0.1:1".parse().unwrap();
    Report::attempt(&told.telemetry, Direction::Outbound, addr, addr).failed(ReasonCode::UnknownWorkload, &"x");
    Report::open(&told.telemetry, traffic(&client, &server, false)).failed(
        ResponseFlags::Connect,
        ReasonCode::ConnectFailed,
        &"x",
    );
    drop(Report::open(&told.telemetry, traffic(&client, &server, true)));
    Report::open(&told.telemetry, traffic(&client, &server, true)).closed();
    let name = "ambit_connections_not_served_total";
    assert_eq!(told.count(name, "{direction=\"outbound\",reason=\"UNKNOWN_WORKLOAD\"}"), 1);
    assert_eq!(told.count(name, "{direction=\"inbound\",reason=\"CONNECT_FAILED\"}"), 1);
    assert_eq!(told.count(name, "{direction=\"outbound\",reason=\"POD_GONE\"}"), 1);
    assert_eq!(told.count(name, ""), 3);
}

/// Not a test: prints what telling costs. `cargo test --release -p mesh-proxy cost_of_telling -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "for the person who measures")]
async fn cost_of_telling() {
    const CONNECTIONS: u32 = 200_000;
    let mut told = told();
    let (client, server) = (workload("storefront"), workload("orders"));
    for (what, access_log) in [
        ("no line", AccessLog::disabled()),
        ("plain lines", AccessLog::to_writer(LogFormat::Plain, std::io::sink()).unwrap()),
        ("JSON lines", AccessLog::to_writer(LogFormat::Json, std::io::sink()).unwrap()),
    ] {
        Arc::get_mut(&mut told.telemetry).unwrap().access_log = access_log;
        let started = Instant::now();
        let (allocations, ()) = counting::allocations(|| {
            for _ in 0..CONNECTIONS {
                Report::open(&told.telemetry, traffic(&client, &server, true)).closed();
            }
        });
        let each = started.elapsed() / CONNECTIONS;
        println!("{what}: {each:?} and {} allocations a connection", allocations as f64 / f64::from(CONNECTIONS));
    }
}
