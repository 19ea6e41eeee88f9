//! Who speaks HTTP in a tunnel, and to whom.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mesh_hbone::connect::Baggage;
use mesh_hbone::duplex::Duplex;
use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::policy::Facts;
use mesh_model::reason::ReasonCode;
use mesh_model::share::{Full, Source};
use mesh_model::workload::Workload;
use mesh_proxy::report::{Party, Traffic};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::Reporter;

use super::counted::Last;
use crate::ends::Ends;
use crate::room::Part;
use crate::serving::Worker;
use crate::sniff::Peeked;
use crate::target::Target;

/// What is done with an HTTP/1 connection that becomes something else: its stream, and what was read of it already.
pub(super) type Carry = Box<dyn FnOnce(Peeked<Duplex>, Bytes) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Who speaks HTTP in a tunnel, and to whom.
pub(crate) struct Caller {
    pub(crate) worker: Rc<Worker>,
    /// The waypoint's own workload.
    pub(crate) waypoint: Arc<Workload>,
    /// The service that the tunnel asks for.
    pub(crate) target: Target,
    /// The address that the tunnel came from: the caller's pod.
    pub(crate) from: SocketAddr,
    /// The identity that the caller has proven.
    pub(crate) identity: Rc<SpiffeId>,
    /// Its workload, if the tables have one of that address and identity.
    pub(crate) workload: Option<Arc<Workload>>,
    /// What its last request was counted under.
    pub(super) counted: Last,
    /// When its connection is to end in order.
    pub(super) ends: Ends,
    /// Both ends of an HTTP/1 connection have agreed on another protocol.
    pub(super) agreed: Cell<Option<Carry>>,
}

impl Caller {
    /// A caller that has asked for nothing yet.
    pub(crate) fn new(
        (worker, waypoint, target): (Rc<Worker>, Arc<Workload>, Target),
        from: SocketAddr,
        (identity, workload): (Rc<SpiffeId>, Option<Arc<Workload>>),
    ) -> Self {
        let ends = Ends::new(worker.context.config.connections, rand::random());
        let (counted, agreed) = (Last::default(), Cell::new(None));
        Self { worker, waypoint, target, from, identity, workload, counted, ends, agreed }
    }

    /// A place for one more request or connection of it under way to an endpoint, in a tunnel of its own. An endpoint's ztunnel knows
    /// the waypoint only: what it grants is shared here.
    ///
    /// # Errors
    /// When it has its share, or nobody finds a place any more; and why, in words.
    pub(crate) fn under_way(&self) -> Result<Part, (ReasonCode, String)> {
        let mut part = self.worker.under_way.part(self.source());
        match part.take(1) {
            Ok(()) => Ok(part),
            Err(full) => {
                let code = match full {
                    Full::Source => ReasonCode::SourceOverloaded,
                    Full::All => ReasonCode::NodeOverloaded,
                };
                Err((code, format!("requests and connections under way as WAYPOINT_MAX_REQUESTS allows: {full}")))
            }
        }
    }

    /// Resolves when its connection is to end in order: the waypoint does, its service has left it, or it is old. `at_any_time`: it can
    /// be told so between two answers, and not only with the next one.
    pub(crate) async fn sends_away(&self, at_any_time: bool) {
        let worker = &self.worker;
        let old = async {
            self.ends.old(worker.pods(), &worker.even).await;
            if !at_any_time {
                std::future::pending().await
            }
        };
        let waypoint_ends = async {
            worker.context.proxy.drain.started().await;
            if !at_any_time {
                self.ends.with_the_waypoint(worker.context.config.drain).await;
            }
        };
        tokio::select! {
            () = waypoint_ends => {}
            () = self.ends.left(worker.leaves(&self.target.asked)) => {}
            () = old => {}
        }
    }

    /// Whose share it takes of what callers share.
    pub(crate) fn source(&self) -> Source {
        Source::Identity((*self.identity).clone())
    }

    /// What policies judge: who asks, from where, for which port of the service.
    pub(crate) fn facts(&self) -> Facts {
        Facts { source_ip: self.from.ip(), source: Some((*self.identity).clone()), destination: self.target.dialled }
    }

    /// What is reported of a hop to `to`, which is `destination`.
    pub(crate) fn traffic(&self, to: SocketAddr, destination: Option<&Arc<Workload>>) -> Traffic {
        Traffic {
            direction: Direction::Inbound,
            reporter: Reporter::Waypoint,
            from: self.from,
            to,
            hbone_to: Some(Authority::Address(self.target.dialled)),
            source: match &self.workload {
                Some(workload) => Party::workload(workload, Some(&self.identity)),
                None => Party::told(&Baggage::default(), &self.identity),
            },
            destination: Party::known(destination),
            service: self.target.named().cloned(),
            secured: true,
            trace: None,
        }
    }
}
