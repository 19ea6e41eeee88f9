//! Counts requests, without making their labels where the thread has seen the same before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use mesh_model::identity::SpiffeId;
use mesh_model::service::Service;
use mesh_model::workload::Workload;
use mesh_proxy::report::Traffic;
use mesh_runtime::metrics::{KnownRequests, Measured, RequestLabels, RequestMetrics};

/// Label sets that a thread remembers. All are forgotten when there are more: those in use are soon back.
const MOST: usize = 1024;

thread_local! {
    static SEEN: RefCell<HashMap<Seen, (KnownRequests, Held)>> = RefCell::default();
}

/// What a label set is recognised by: addresses of what it is made of, which the tables keep for as long as it is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Seen {
    source: usize,
    service: usize,
    destination: usize,
    grpc: bool,
    code: u16,
    grpc_status: Option<u8>,
    flags: &'static str,
}

/// So that no address is given to another meanwhile.
struct Held {
    _parts: (Option<Arc<Workload>>, Arc<Service>, Option<Arc<Workload>>),
    caller: SpiffeId,
}

/// The last label set of a stranger, whom his connection remembers and the thread does not: he could push out all others.
#[derive(Default)]
pub(super) struct Last(RefCell<Option<(Seen, KnownRequests, Held)>>);

/// How a request ended.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    pub(super) grpc: bool,
    pub(super) code: u16,
    pub(super) grpc_status: Option<u8>,
    pub(super) flags: &'static str,
}

/// Counts a request of `source`, of which `traffic` says all that is said.
pub(super) fn count(
    metrics: &RequestMetrics,
    (source, caller, last): (Option<&Arc<Workload>>, &SpiffeId, &Last),
    service: &Arc<Service>,
    destination: Option<&Arc<Workload>>,
    (ended, measured): (Ended, &Measured),
    traffic: impl FnOnce() -> Traffic,
) {
    let Ended { grpc, code, grpc_status, flags } = ended;
    let labels = || RequestLabels { traffic: traffic().labels(), grpc, code, grpc_status, flags };
    let address = |workload: Option<&Arc<Workload>>| workload.map_or(0, |workload| Arc::as_ptr(workload).addr());
    let seen = Seen {
        source: address(source),
        service: Arc::as_ptr(service).addr(),
        destination: address(destination),
        grpc,
        code,
        grpc_status,
        flags,
    };
    let first = || {
        let known = metrics.known(&labels());
        known.count(measured);
        let parts = (source.cloned(), service.clone(), destination.cloned());
        (known, Held { _parts: parts, caller: caller.clone() })
    };
    if source.is_none() {
        let mut last = last.0.borrow_mut();
        match &*last {
            Some((same, known, _)) if *same == seen => known.count(measured),
            _ => {
                let (known, held) = first();
                *last = Some((seen, known, held));
            }
        }
        return;
    }
    SEEN.with_borrow_mut(|all| {
        if let Some((known, held)) = all.get(&seen)
            && held.caller == *caller
        {
            return known.count(measured);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(seen, first());
    });
}
