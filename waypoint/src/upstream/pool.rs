//! Connections that are kept for the next request, of one data thread. Bound: [`MOST_KEPT`] for each endpoint that nobody uses, each
//! for [`UNUSED`], or as long as a DestinationRule says (`idleTimeout`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::tables::Tables;
use mesh_model::traffic::Limits;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::{Connection, HttpVersion, UpgradedStream};
use super::endpoint::Endpoint;

/// Connections to one endpoint that wait for a request.
const MOST_KEPT: usize = 64;
/// How long one waits. Shorter than what servers have: who closes first does so while a request is on its endpoint.
const UNUSED: Duration = Duration::from_secs(50);

/// What a connection may be used for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The service's port, whose limits hold for it.
    port: u64,
    /// The endpoint's workload: a pod that got the address of another is another endpoint.
    uid: Arc<str>,
    /// Its application.
    application: Authority,
    version: HttpVersion,
    /// Who may answer; empty without a tunnel.
    expected: Vec<SpiffeId>,
}

impl Key {
    /// That of the connections that go this endpoint.
    pub(super) fn new(port: u64, endpoint: &Endpoint, version: HttpVersion) -> Self {
        let uid = endpoint.workload().map_or_else(|| "".into(), |workload| workload.uid.clone());
        match endpoint {
            Endpoint::Tunnel(to) => {
                Self { port, uid, application: to.authority.clone(), version, expected: to.expected.clone() }
            }
            // Whom its gateway chooses, of those who may answer for the service.
            Endpoint::Across(to) => {
                Self { port, uid, application: to.outer.authority.clone(), version, expected: to.expected.clone() }
            }
            Endpoint::Plain(address, _) => {
                Self { port, uid, application: Authority::Address(*address), version, expected: Vec::new() }
            }
        }
    }
}

impl Key {
    /// What is spoken on them.
    pub(crate) fn version(&self) -> HttpVersion {
        self.version
    }
}

/// The connections of one data thread.
#[derive(Default)]
pub(crate) struct Pool(RefCell<HashMap<Key, Vec<Idle>>>);

struct Idle {
    connection: Connection,
    since: Instant,
    /// How long it may be unused.
    unused: Duration,
    /// Requests that it was given.
    served: u32,
}

impl Idle {
    fn new(connection: Connection, served: u32, limits: &Limits) -> Self {
        Self { connection, since: Instant::now(), unused: limits.idle_timeout.unwrap_or(UNUSED), served }
    }

    /// It may be given one more request.
    fn may_serve(&self, limits: &Limits) -> bool {
        limits.requests_per_connection.is_none_or(|most| self.served < most)
    }
}

/// A connection while a request is on it.
pub(crate) struct PooledConnection {
    /// The connection.
    pub(crate) connection: Connection,
    /// Requests that it was given, this one among them.
    served: u32,
    /// Of HTTP/2: one more request is carried, for as long as this lives.
    pub(crate) carried: Option<Carried>,
}

/// Counts a request as carried by an HTTP/2 connection.
pub(crate) struct Carried(Rc<Cell<usize>>);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pool {
    /// A connection with room, if there is one. One of HTTP/1 is taken out; one of HTTP/2 stays, for others too.
    pub(super) fn take(&self, key: &Key, limits: &Limits) -> Option<PooledConnection> {
        let mut all = self.0.borrow_mut();
        let slot = all.get_mut(key)?;
        slot.retain(|kept| !kept.connection.is_closed() && kept.may_serve(limits));
        // The one that was used last: the others may be let go of.
        let at = slot.iter().rposition(|kept| kept.connection.has_room())?;
        let kept = &mut slot[at];
        kept.served = kept.served.saturating_add(1);
        let served = kept.served;
        let pooled = match &kept.connection {
            Connection::Http1(..) => PooledConnection { connection: slot.remove(at).connection, served, carried: None },
            Connection::Http2(sender, carried) => {
                let connection = Connection::Http2(sender.clone(), carried.clone());
                kept.since = Instant::now();
                PooledConnection { carried: Some(carry(&connection)), connection, served }
            }
        };
        Some(pooled)
    }

    /// A new connection, for a request at once. One of HTTP/2 is in the pool from now on.
    pub(super) fn add(&self, key: &Key, connection: Connection, limits: &Limits) -> PooledConnection {
        match connection {
            Connection::Http1(..) => PooledConnection { connection, served: 1, carried: None },
            Connection::Http2(ref sender, ref carried) => {
                let shared = Connection::Http2(sender.clone(), carried.clone());
                self.keep(key, Idle::new(shared, 1, limits), limits);
                PooledConnection { carried: Some(carry(&connection)), connection, served: 1 }
            }
        }
    }

    /// Puts a connection of HTTP/1 back, whose request was answered: it has room once the answer's body has ended.
    pub(super) fn give_back(&self, key: &Key, pooled: PooledConnection, limits: &Limits) {
        if let Connection::Http1(..) = &pooled.connection {
            self.keep(key, Idle::new(pooled.connection, pooled.served, limits), limits);
        }
    }

    /// Has one of these, free or not.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.0.borrow().get(key).is_some_and(|slot| slot.iter().any(|kept| !kept.connection.is_closed()))
    }

    /// Lets go of connections of these services' ports that nobody uses.
    pub(super) fn shed(&self, ports: &[u64]) {
        for (_, slot) in self.0.borrow_mut().iter_mut().filter(|(key, _)| ports.contains(&key.port)) {
            slot.retain(|kept| !kept.connection.is_unused());
        }
    }

    fn keep(&self, key: &Key, idle: Idle, limits: &Limits) {
        if !idle.may_serve(limits) {
            return;
        }
        let mut all = self.0.borrow_mut();
        let slot = match all.get_mut(key) {
            Some(slot) => slot,
            None => all.entry(key.clone()).or_default(),
        };
        if slot.len() >= MOST_KEPT {
            slot.retain(|kept| !kept.connection.is_closed());
        }
        slot.push(idle);
        if slot.len() > MOST_KEPT {
            slot.remove(0);
        }
    }

    /// Lets go of connections that have ended, that nobody has used for long, and of those to workloads that are gone.
    pub(crate) fn sweep(&self, tables: &Tables) {
        let now = Instant::now();
        self.0.borrow_mut().retain(|key, slot| {
            let known = key.uid.is_empty() || tables.workload(&key.uid).is_some();
            let unused = |kept: &Idle| kept.connection.is_unused() && now - kept.since > kept.unused;
            slot.retain(|kept| !(kept.connection.is_closed() || unused(kept)));
            known && !slot.is_empty()
        });
    }
}

fn carry(connection: &Connection) -> Carried {
    let carried = match connection {
        Connection::Http2(_, carried) => carried.clone(),
        Connection::Http1(..) => Rc::default(),
    };
    carried.set(carried.get() + 1);
    Carried(carried)
}

impl PooledConnection {
    /// It has carried requests before.
    pub(crate) fn is_used(&self) -> bool {
        self.served > 1
    }

    /// Where its stream comes, once the endpoint has agreed to an upgrade; nowhere with HTTP/2.
    pub(crate) fn upgraded(self) -> Option<oneshot::Receiver<UpgradedStream>> {
        match self.connection {
            Connection::Http1(_, handed) => Some(handed),
            Connection::Http2(..) => None,
        }
    }
}
