//! The connections that are open on one data thread. The admin port lists them; those that were let in are judged again
//! when policies change, and cut if they are no longer allowed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh_model::pod::PodInfo;
use mesh_model::policy::{Facts, Reason};
use mesh_model::service::Service;
use mesh_xds::follow::Reader;
use tokio::sync::oneshot;

use crate::judge::judge_open;

/// Open connections of one data thread.
#[derive(Clone, Default)]
pub struct Connections(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    inbound: HashMap<u64, InboundEntry>,
    outbound: HashMap<u64, OutboundConnection>,
}

/// A connection that was let in.
struct InboundEntry {
    pod: Arc<PodInfo>,
    facts: Facts,
    port: u16,
    service: Option<Arc<Service>>,
    cut: oneshot::Sender<Reason>,
}

/// A connection that a pod opened.
#[derive(Clone, Debug)]
pub struct OutboundConnection {
    /// The pod that opened it.
    pub pod: Arc<PodInfo>,
    /// The pod's end.
    pub from: SocketAddr,
    /// The address that the pod dialled.
    pub dialled: SocketAddr,
    /// The address that the proxy connects to for it.
    pub to: SocketAddr,
    /// True if it goes through a tunnel.
    pub tunnel: bool,
}

/// A connection that was let in, as it is listed.
#[derive(Clone, Debug)]
pub struct InboundConnection {
    /// The pod that it came to.
    pub pod: Arc<PodInfo>,
    /// The caller's address.
    pub from: SocketAddr,
    /// What the policies judge it by.
    pub facts: Facts,
    /// The service that its caller seems to mean.
    pub service: Option<Arc<Service>>,
}

/// A list of what is open.
#[derive(Clone, Debug, Default)]
pub struct OpenConnections {
    /// Those that were let in.
    pub inbound: Vec<InboundConnection>,
    /// Those that pods opened.
    pub outbound: Vec<OutboundConnection>,
}

/// Keeps a connection in the list until it is dropped.
pub struct Registration {
    list: Connections,
    number: u64,
    outbound: bool,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.list.0.borrow_mut();
        if self.outbound {
            list.outbound.remove(&self.number);
        } else {
            list.inbound.remove(&self.number);
        }
    }
}

impl Connections {
    /// Lists a connection that was let in, whose caller has this `port`. The receiver gets the reason when the connection
    /// must be cut; it is closed when the pod is no longer served.
    pub fn add_inbound(
        &self,
        pod: Arc<PodInfo>,
        facts: Facts,
        port: u16,
        service: Option<Arc<Service>>,
    ) -> (Registration, oneshot::Receiver<Reason>) {
        let (cut, receiver) = oneshot::channel();
        let mut inner = self.0.borrow_mut();
        let number = inner.next;
        inner.next += 1;
        inner.inbound.insert(number, InboundEntry { pod, facts, port, service, cut });
        (Registration { list: self.clone(), number, outbound: false }, receiver)
    }

    /// Takes the connections to a pod that is no longer served off the list, which closes their receivers.
    pub fn pod_stopped(&self, pod: &Arc<PodInfo>) {
        self.0.borrow_mut().inbound.retain(|_, open| !Arc::ptr_eq(&open.pod, pod));
    }

    /// Lists a connection that a pod opens.
    pub fn add_outbound(&self, connection: OutboundConnection) -> Registration {
        let mut inner = self.0.borrow_mut();
        let number = inner.next;
        inner.next += 1;
        inner.outbound.insert(number, connection);
        Registration { list: self.clone(), number, outbound: true }
    }

    /// Asks `judge` about every open connection and cuts those for which it gives a reason. Lets other work of the
    /// thread run in between, so that many connections do not hold up those that move bytes.
    async fn judge_again(&self, judge: impl Fn(&PodInfo, &Facts) -> Option<Reason>) {
        const BATCH: usize = 128;
        let numbers: Vec<u64> = self.0.borrow().inbound.keys().copied().collect();
        for batch in numbers.chunks(BATCH) {
            for number in batch {
                let mut inner = self.0.borrow_mut();
                let reason = inner.inbound.get(number).and_then(|open| judge(&open.pod, &open.facts));
                if let Some(reason) = reason
                    && let Some(open) = inner.inbound.remove(number)
                {
                    // The connection may be ending by itself.
                    let _ = open.cut.send(reason);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// What is open now.
    pub fn list(&self) -> OpenConnections {
        let inner = self.0.borrow();
        let shown = |open: &InboundEntry| InboundConnection {
            pod: open.pod.clone(),
            from: SocketAddr::new(open.facts.source_ip, open.port),
            facts: open.facts.clone(),
            service: open.service.clone(),
        };
        OpenConnections {
            inbound: inner.inbound.values().map(shown).collect(),
            outbound: inner.outbound.values().cloned().collect(),
        }
    }
}

/// Judges what is open again whenever the policies change, until the tables end.
pub async fn follow_policies(connections: Connections, tables: Reader) {
    let mut changed = tables.policies_changed();
    while changed.changed().await.is_ok() {
        connections.judge_again(|pod, facts| judge_open(&tables, pod, facts)).await;
    }
}

/// Awaits `carried`, unless `cut` ([`Connections::add_inbound`]) gets a reason first.
///
/// # Errors
/// The reason of the cut.
pub async fn until_cut<T>(carried: impl Future<Output = T>, cut: oneshot::Receiver<Reason>) -> Result<T, Reason> {
    tokio::select! {
        result = carried => Ok(result),
        Ok(reason) = cut => Err(reason),
    }
}
