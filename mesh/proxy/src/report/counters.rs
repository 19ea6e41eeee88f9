//! Finds the counters of a connection, without making its labels where a thread has seen the same set before.
//!
//! A label set is some thirty strings. Each thread remembers, for the workloads, the service and the identities of a
//! connection, which counters they lead to; they are recognised by address, so that a change in the tables, which makes
//! new ones, is a new set.

use std::cell::RefCell;
use std::sync::Arc;

use mesh_model::identity::SpiffeId;
use mesh_model::service::Service;
use mesh_model::workload::Workload;
use mesh_runtime::metrics::{ConnectionMetrics, KnownLabels, Reporter, TrafficMetrics};

use super::party::{Party, Traffic, Who};

/// Sets that a thread remembers, a power of two. Each slot holds the last of those that fall on it.
const SLOTS: usize = 1024;

thread_local! {
    static SEEN: RefCell<Vec<Option<Seen>>> = const { RefCell::new(Vec::new()) };
}

/// One set. It keeps what it is recognised by, so that no address of it is given to another meanwhile.
struct Seen {
    source: (Option<Arc<Workload>>, Option<SpiffeId>),
    destination: (Option<Arc<Workload>>, Option<SpiffeId>),
    service: Option<Arc<Service>>,
    reporter: Reporter,
    secured: bool,
    known: KnownLabels,
}

/// Counts a connection as opened.
pub(super) fn open(metrics: &TrafficMetrics, traffic: &Traffic) -> ConnectionMetrics {
    // Sets from baggage are not remembered: strangers could push out all others with them.
    let (Ok(source), Ok(destination)) = (traffic.source.in_tables(), traffic.destination.in_tables()) else {
        return metrics.open(&traffic.labels());
    };
    SEEN.with_borrow_mut(|seen| {
        if seen.is_empty() {
            seen.resize_with(SLOTS, || None);
        }
        let slot = &mut seen[slot(source, destination, traffic)];
        let same = slot.as_ref().filter(|seen| seen.is(source, destination, traffic));
        if let Some(connection) = same.and_then(|seen| metrics.open_known(&seen.known)) {
            return connection;
        }
        let connection = metrics.open(&traffic.labels());
        *slot = Some(Seen {
            source: (source.cloned(), traffic.source.identity.clone()),
            destination: (destination.cloned(), traffic.destination.identity.clone()),
            service: traffic.service.clone(),
            reporter: traffic.reporter,
            secured: traffic.secured,
            known: metrics.remember(&connection),
        });
        connection
    })
}

impl Seen {
    fn is(
        &self,
        source: Option<&Arc<Workload>>,
        destination: Option<&Arc<Workload>>,
        Traffic { source: from, destination: to, service, reporter, secured, .. }: &Traffic,
    ) -> bool {
        address(self.source.0.as_ref()) == address(source)
            && address(self.destination.0.as_ref()) == address(destination)
            && address(self.service.as_ref()) == address(service.as_ref())
            && (self.reporter, self.secured) == (*reporter, *secured)
            && self.source.1 == from.identity
            && self.destination.1 == to.identity
    }
}

impl Party {
    /// Its workload in the tables, if they have it; an error if it is only what it tells of itself.
    fn in_tables(&self) -> Result<Option<&Arc<Workload>>, ()> {
        match &self.who {
            Who::Unknown => Ok(None),
            Who::Known(workload) => Ok(Some(workload)),
            Who::Told(_) => Err(()),
        }
    }
}

fn address<T>(of: Option<&Arc<T>>) -> usize {
    of.map_or(0, |of| Arc::as_ptr(of).addr())
}

fn slot(source: Option<&Arc<Workload>>, destination: Option<&Arc<Workload>>, traffic: &Traffic) -> usize {
    // Fibonacci hashing: addresses differ in their middle bits, the slot is taken from the upper ones.
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let parts = [address(source), address(destination), address(traffic.service.as_ref())];
    let flags = (traffic.reporter as u64) << 1 | u64::from(traffic.secured);
    let hash = parts.iter().fold(flags, |hash, part| (hash.rotate_left(23) ^ *part as u64).wrapping_mul(MIX));
    (hash >> (u64::BITS - SLOTS.ilog2())) as usize
}
