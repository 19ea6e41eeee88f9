//! Reuse of HBONE connections per source identity and destination.
//!
//! One pool belongs to one local pod on one worker thread; it is never shared between pods, even of the same
//! identity, because the receiving side takes the TCP peer's address for the application's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use mesh_model::identity::SpiffeId;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::Settings;
use crate::client::{Client, OpenError, Opened};

/// What a connection may be reused for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who we are.
    pub source: SpiffeId,
    /// Address we call from.
    pub source_ip: IpAddr,
    /// Who the peer must be, in order.
    pub expected: Vec<SpiffeId>,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The peer's workload: a pod that got the address of another is another peer.
    pub workload: Arc<str>,
}

/// Connections by key. Clones share it; it stays on its thread.
#[derive(Clone)]
pub struct Pool {
    slots: Rc<RefCell<HashMap<Key, Rc<Slot>>>>,
    settings: Rc<Settings>,
}

#[derive(Default)]
struct Slot {
    clients: RefCell<Vec<Client>>,
    /// Held while a connection is made: one attempt at a time, the others wait and share what comes of it.
    connecting: Mutex<LastFailure>,
}

/// Why the last attempt failed, if it did.
type LastFailure = Option<OpenError>;

impl Pool {
    /// An empty pool.
    pub fn new(settings: Settings) -> Self {
        Self { slots: Rc::default(), settings: Rc::new(settings) }
    }

    /// Opens a tunnel on a connection of `key`, making one with `connect` when none has room. A request that the
    /// peer never looked at, because a reused connection was closing, is sent once more on another one.
    ///
    /// # Errors
    /// When no connection can be made, the peer refuses, or all of it takes longer than [`Settings::open_timeout`].
    pub async fn open<F>(
        &self,
        key: &Key,
        request: Request<()>,
        connect: impl Fn() -> F,
    ) -> Result<(Opened, Option<SpiffeId>), OpenError>
    where
        F: Future<Output = Result<Client, OpenError>>,
    {
        let known = self.slots.borrow().get(key).cloned();
        let slot = known.unwrap_or_else(|| self.slots.borrow_mut().entry(key.clone()).or_default().clone());
        let limit = self.settings.open_timeout;
        let asked = RefCell::new(None);
        match timeout(limit, slot.open(&request, &connect, &asked)).await {
            Ok(opened) => opened,
            Err(_) => Err(match asked.into_inner() {
                Some(client) => Client::timed_out(&client, limit),
                None => OpenError::OpenTimeout { limit },
            }),
        }
    }

    /// Lets go of connections that are closed or have not been used for a while. Call it now and then.
    pub fn sweep(&self) {
        let release = self.settings.unused_release;
        self.slots.borrow_mut().retain(|_, slot| {
            slot.let_go(release);
            // A slot somebody holds is in use, whatever it has.
            Rc::strong_count(slot) > 1 || !slot.clients.borrow().is_empty()
        });
    }

    /// Lets go of every connection to workloads for which `keep` is false: tunnels that are open go on, new ones
    /// will use a connection of their own.
    pub fn retain(&self, keep: impl Fn(&Key) -> bool) {
        self.slots.borrow_mut().retain(|key, _| keep(key));
    }

    /// How many connections it holds.
    pub fn connections(&self) -> usize {
        self.slots.borrow().values().map(|slot| slot.clients.borrow().len()).sum()
    }
}

impl Slot {
    /// Opens a tunnel; `asked` is the connection on which that is tried.
    async fn open<F>(
        &self,
        request: &Request<()>,
        connect: &impl Fn() -> F,
        asked: &RefCell<Option<Client>>,
    ) -> Result<(Opened, Option<SpiffeId>), OpenError>
    where
        F: Future<Output = Result<Client, OpenError>>,
    {
        let mut last = OpenError::Closed;
        // A burst of closes (a peer that drains) may meet us more than once; a bound keeps a broken peer from spinning us.
        for _ in 0..3 {
            let mut client = self.client(connect).await?;
            asked.replace(Some(client.clone()));
            let peer = client.peer().cloned();
            match client.ask(request).await {
                Ok(opened) => return Ok((opened, peer)),
                Err(OpenError::Closed) => last = OpenError::Closed,
                Err(other) => return Err(other),
            }
        }
        Err(last)
    }

    /// Keeps what is in use, or can be: its peer takes tunnels, and it was used not longer ago than `release`. One that has
    /// no room to send may have it back with the peer's next words.
    fn let_go(&self, release: Duration) {
        let unused = |c: &Client| c.idle().is_some_and(|idle| idle >= release || c.takes_none());
        self.clients.borrow_mut().retain(|c| !c.is_closed() && !unused(c));
    }

    /// A connection on which a tunnel can be opened, if there is one.
    ///
    /// # Errors
    /// When the peer has said that it takes none: another connection would be one more on which it takes none.
    fn with_room(&self) -> Result<Option<Client>, OpenError> {
        // A peer that takes no tunnels is not asked again: what cannot be used is not kept.
        self.let_go(Duration::MAX);
        let clients = self.clients.borrow();
        match clients.iter().find(|c| c.has_room()) {
            None if clients.iter().any(Client::takes_none) => Err(OpenError::NoTunnels),
            found => Ok(found.cloned()),
        }
    }

    /// A connection with room, made if need be.
    async fn client<F>(&self, connect: &impl Fn() -> F) -> Result<Client, OpenError>
    where
        F: Future<Output = Result<Client, OpenError>>,
    {
        if let Some(client) = self.with_room()? {
            return Ok(client);
        }
        let under_way = self.connecting.try_lock().is_err();
        let mut last_failure = self.connecting.lock().await;
        if let Some(client) = self.with_room()? {
            return Ok(client);
        }
        // Somebody's attempt was under way when we came, and failed: its result is ours too.
        if under_way && let Some(error) = &*last_failure {
            return Err(error.clone());
        }
        *last_failure = None;
        // Boxed: most tunnels need none, and a task is as large as the largest thing it ever awaits in place.
        match Box::pin(connect()).await {
            Ok(client) => {
                self.clients.borrow_mut().push(client.clone());
                Ok(client)
            }
            Err(error) => {
                *last_failure = Some(error.clone());
                Err(error)
            }
        }
    }
}
