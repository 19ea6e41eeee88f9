//! How long readers of the tables wait while everything is sent anew: `cargo bench -p mesh-xds`. It prints figures
//! and fails on none: they are the machine's as much as ours.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_model::address::NamespacedName;
use mesh_model::policy::Policy;
use mesh_model::resource::{Kind, Resource};
use mesh_model::workload::{AppProtocol, PortMapping, Workload};
use mesh_xds::follow::{self, Reader};

const WORKLOADS: u32 = 100_000;
const POLICIES: u32 = 5_000;
/// Threads that read, each once in so much.
const READERS: usize = 2;
const PACE: Duration = Duration::from_micros(100);

fn workloads(round: u32) -> Vec<Resource> {
    let port = PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown };
    let workload = |n: u32| Workload {
        name: format!("app-{}-7d4b9c6f5d-{n:05x}", n / 10).into(),
        namespace: mesh_model::shared::text(&format!("ns-{}", n / 1000)),
        addresses: vec![Ipv4Addr::from(0x0a80_0000 + n).into()],
        // Something that differs, so that nothing is left as it is.
        canonical_revision: mesh_model::shared::text(&format!("v{round}")),
        services: [(NamespacedName::new("shop", format!("app-{}.shop.svc", n / 10)), vec![port])].into(),
        ..Workload::empty(format!("Kubernetes//Pod/ns-{}/app-{}-7d4b9c6f5d-{n:05x}", n / 1000, n / 10))
    };
    (0..WORKLOADS).map(|n| Resource::Workload(Arc::new(workload(n)))).collect()
}

fn policies(round: u32) -> Vec<Resource> {
    let policy = |n: u32| {
        let wire = mesh_proto::policy::Authorization {
            name: format!("p-{n}"),
            namespace: format!("ns-{}", n % 100),
            dry_run: round % 2 == 1,
            ..Default::default()
        };
        Resource::Policy(Arc::new(Policy::try_from(wire).expect("a policy")))
    };
    (0..POLICIES).map(policy).collect()
}

/// Reads until told to stop; gives every wait, in order of length.
fn read(reader: Reader, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Duration>> {
    std::thread::spawn(move || {
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            reader.read(|tables| tables.workload_by_address("", Ipv4Addr::from(0x0a80_0007).into()).is_some());
            waits.push(start.elapsed());
            std::thread::sleep(PACE);
        }
        waits
    })
}

async fn measure<F: Future<Output = ()>>(what: &str, reader: &Reader, work: F) {
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS).map(|_| read(reader.clone(), stop.clone())).collect();
    let start = Instant::now();
    work.await;
    let took = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut waits: Vec<_> = readers.into_iter().flat_map(|r| r.join().expect("a reader")).collect();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: took {took:.0?}; a reader waited {:.1?} at p50, {:.1?} at p99, {:.1?} at p99.9, {:.1?} at most ({} reads)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        waits.len()
    );
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(runtime.spawn(run())).expect("figures");
}

async fn run() {
    let (mut writer, reader) = follow::tables();
    measure("nothing", &reader, tokio::time::sleep(Duration::from_secs(1))).await;
    for (round, what) in
        ["first sync of 100,000 workloads", "resync, all changed", "resync, all changed again"].iter().enumerate()
    {
        let resources = workloads(round as u32);
        measure(what, &reader, writer.apply(Kind::Address, resources, Vec::new())).await;
    }
    measure("resync, nothing changed", &reader, writer.apply(Kind::Address, workloads(2), Vec::new())).await;
    for (round, what) in ["5,000 policies", "5,000 policies, all changed"].iter().enumerate() {
        let resources = policies(round as u32);
        measure(what, &reader, writer.apply(Kind::Authorization, resources, Vec::new())).await;
    }
    measure("5,000 policies, nothing changed", &reader, writer.apply(Kind::Authorization, policies(1), Vec::new()))
        .await;
    let names = workloads(0).iter().map(Resource::name).collect();
    measure("everything removed", &reader, writer.apply(Kind::Address, Vec::new(), names)).await;
}
