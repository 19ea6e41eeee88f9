//! Connections that are kept for the next request, of one data thread. Bound: [`MOST_KEPT`] for each endpoint that nobody uses, each
//! for [`UNUSED`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::tables::Tables;
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
    pub(crate) fn new(endpoint: &Endpoint, version: HttpVersion) -> Self {
        let uid = endpoint.workload().map_or_else(|| "".into(), |workload| workload.uid.clone());
        match endpoint {
            Endpoint::Tunnel(to) => {
                Self { uid, application: to.authority.clone(), version, expected: to.expected.clone() }
            }
            Endpoint::Plain(address, _) => {
                Self { uid, application: Authority::Address(*address), version, expected: Vec::new() }
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
}

/// A connection while a request is on it.
pub(crate) struct PooledConnection {
    /// The connection.
    pub(crate) connection: Connection,
    /// It has carried requests before.
    pub(crate) used: bool,
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
    pub(crate) fn take(&self, key: &Key) -> Option<PooledConnection> {
        let mut all = self.0.borrow_mut();
        let slot = all.get_mut(key)?;
        slot.retain(|kept| !kept.connection.is_closed());
        // The one that was used last: the others may be let go of.
        let at = slot.iter().rposition(|kept| kept.connection.has_room())?;
        let pooled = match &mut slot[at].connection {
            Connection::Http1(..) => {
                PooledConnection { connection: slot.remove(at).connection, used: true, carried: None }
            }
            Connection::Http2(sender, carried) => {
                let connection = Connection::Http2(sender.clone(), carried.clone());
                slot[at].since = Instant::now();
                PooledConnection { carried: Some(carry(&connection)), connection, used: true }
            }
        };
        Some(pooled)
    }

    /// A new connection, for a request at once. One of HTTP/2 is in the pool from now on.
    pub(crate) fn add(&self, key: &Key, connection: Connection) -> PooledConnection {
        match connection {
            Connection::Http1(..) => PooledConnection { connection, used: false, carried: None },
            Connection::Http2(ref sender, ref carried) => {
                self.keep(key, Connection::Http2(sender.clone(), carried.clone()));
                PooledConnection { carried: Some(carry(&connection)), connection, used: false }
            }
        }
    }

    /// Puts a connection of HTTP/1 back, whose request was answered: it has room once the answer's body has ended.
    pub(crate) fn give_back(&self, key: &Key, connection: Connection) {
        if let Connection::Http1(..) = &connection {
            self.keep(key, connection);
        }
    }

    fn keep(&self, key: &Key, connection: Connection) {
        let mut all = self.0.borrow_mut();
        let slot = match all.get_mut(key) {
            Some(slot) => slot,
            None => all.entry(key.clone()).or_default(),
        };
        if slot.len() >= MOST_KEPT {
            slot.retain(|kept| !kept.connection.is_closed());
        }
        slot.push(Idle { connection, since: Instant::now() });
        if slot.len() > MOST_KEPT {
            slot.remove(0);
        }
    }

    /// Lets go of connections that have ended, that nobody has used for long, and of those to workloads that are gone.
    pub(crate) fn sweep(&self, tables: &Tables) {
        let now = Instant::now();
        self.0.borrow_mut().retain(|key, slot| {
            let known = key.uid.is_empty() || tables.workload(&key.uid).is_some();
            let unused = |kept: &Idle| kept.connection.has_room() && now - kept.since > UNUSED;
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
    /// Where its stream comes, once the endpoint has agreed to an upgrade; nowhere with HTTP/2.
    pub(crate) fn upgraded(self) -> Option<oneshot::Receiver<UpgradedStream>> {
        match self.connection {
            Connection::Http1(_, handed) => Some(handed),
            Connection::Http2(..) => None,
        }
    }
}
