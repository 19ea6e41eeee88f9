//! How much of a proxy each pod may hold, and each source of connections to a pod, so that none starves the others.
//!
//! A pod may hold as much as is left for everybody: one greedy pod gets at most half of the bound, *n* of them one part
//! in *n* + 1 each, and whoever comes next always finds room. So a bound that no honest node meets needs no other for
//! its pods; an operator may set one all the same. Of what a pod may still take, each source of its connections has a
//! share by the same rule ([`mesh_model::share`]): an address until it has proven an identity, then that identity. What a
//! pod opens itself counts for no source.
//!
//! Where there is no room, `spare` makes some: it ends what carries nothing, the oldest of the greediest source first.

mod spare;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_model::reason::ReasonCode;
use mesh_model::share::{Share, Shares, Source, left};
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::late_close::LateClose;
use spare::{Candidate, Holds, Kin, Spare, greediest};

/// Descriptors that one connection of an application takes: its own, and that of the application or of its share of a
/// pooled connection. The rest is for listeners, pools, the control plane and files.
const DESCRIPTORS_EACH: u64 = 3;
/// Of the open files allowed, one in so many may be of connections that close later.
const LATE_IN: u64 = 4;
/// Connections that may wait to be closed later, at most.
const LATE: u64 = 8_192;
/// TLS handshakes under way at once: a core does some thousand a second.
const HANDSHAKES: usize = 8_192;
/// Most connections that are ended for a new one. Where a source's share is full, one permit given back is half of one for
/// it: half of what becomes free is left for others.
const ENDED_FOR_ONE: usize = 4;
/// Connections of one pod and data thread that may finish what was asked of them after they have lost their permit.
const LEAVING: usize = 64;

/// What an operator set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `ZTUNNEL_MAX_CONNECTIONS`: connections and tunnels open at once. `None` is what the open files allow.
    pub connections: Option<usize>,
    /// `ZTUNNEL_MAX_CONNECTIONS_PER_POD`: of one pod. `None` is its share.
    pub per_pod: Option<usize>,
    /// `ZTUNNEL_MAX_HANDSHAKES`: TLS handshakes of callers under way at once.
    pub handshakes: Option<usize>,
}

/// Which bound leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// That of the whole proxy; with what it bounds.
    #[error("ztunnel holds as many {0}")]
    Node(&'static str),
    /// That of the pod.
    #[error("this pod holds as much as one may while others may want some: as many {0}")]
    Pod(&'static str),
    /// That of a source within the pod.
    #[error("its source holds as much of this pod as one may while others may want some: of as many {0}")]
    Source(&'static str),
}

impl Full {
    /// The stable code; documented in `docs/reasons.md`.
    pub fn code(self) -> ReasonCode {
        match self {
            Self::Node(_) => ReasonCode::NodeOverloaded,
            Self::Pod(_) => ReasonCode::PodOverloaded,
            Self::Source(_) => ReasonCode::SourceOverloaded,
        }
    }
}

/// How many more a pod that holds `pod` may take, when all together hold `all` of `bound`: one or more.
fn room(bound: usize, per_pod: Option<usize>, all: usize, pod: usize) -> Result<usize, Who> {
    let free = bound.saturating_sub(all);
    let room = per_pod.map_or(usize::MAX, |most| most.saturating_sub(pod)).min(left(free, pod));
    match (free, room) {
        (0, _) => Err(Who::Node),
        (_, 0) => Err(Who::Pod),
        (_, room) => Ok(room),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Node,
    Pod,
}

/// One bound of the node.
struct Bound {
    /// For the text of a refusal.
    what: &'static str,
    most: usize,
    per_pod: Option<usize>,
    held: Gauge,
}

/// What one pod holds of a bound, on all data threads.
struct Part {
    bound: Arc<Bound>,
    held: AtomicUsize,
    sources: Arc<Shares>,
    spare: Arc<Spare<Permit>>,
}

impl Part {
    fn new(bound: &Arc<Bound>) -> Arc<Self> {
        let (bound, sources) = (bound.clone(), Shares::new(usize::MAX));
        Arc::new(Self { bound, held: AtomicUsize::new(0), sources, spare: Spare::new() })
    }

    fn enter(self: &Arc<Self>, source: Option<&Source>) -> Result<Permit, Full> {
        // Counted before it is asked: two that ask at once see each other, and the bound holds.
        let all = usize::try_from(self.bound.held.inc()).unwrap_or(0);
        let pod = self.held.fetch_add(1, Relaxed);
        let mut permit = Permit { part: self.clone(), share: None };
        permit.share = self.share(all, pod, source)?;
        Ok(permit)
    }

    /// The share that `source` takes of the pod, beside `all` and `pod` that are held already.
    fn share(&self, all: usize, pod: usize, source: Option<&Source>) -> Result<Option<Share>, Full> {
        let Bound { what, most, per_pod, .. } = *self.bound;
        let room = room(most, per_pod, all, pod).map_err(|who| match who {
            Who::Node => Full::Node(what),
            Who::Pod => Full::Pod(what),
        })?;
        source.map(|source| self.sources.enter_of(room, source).map_err(|_| Full::Source(what))).transpose()
    }

    /// Ends the oldest that carries nothing, of the greediest of this pod, for `newcomer`. False when there is none.
    fn make_room(&self, newcomer: Option<&Source>) -> bool {
        let holds = |source: &Source, group: Option<&Source>| {
            let own = self.sources.held(source);
            Holds { own, group: group.map_or(own, |group| self.sources.held(group)) }
        };
        let group = newcomer.and_then(Source::group);
        let new = newcomer.map_or(Holds { group: 0, own: 0 }, |source| holds(source, group.as_ref()));
        self.spare.end_oldest(|sources| {
            let candidates = sources.map(|source| {
                let of_group = source.group();
                let kin = match newcomer {
                    Some(newcomer) if source == newcomer => Kin::Own,
                    Some(_) if group.is_some() && group == of_group => Kin::Group,
                    _ => Kin::Other,
                };
                Candidate { of: source, holds: holds(source, of_group.as_ref()), kin }
            });
            greediest(candidates, new).cloned()
        })
    }
}

/// Leave to hold one connection, tunnel or handshake; given back when it is dropped.
pub struct Permit {
    part: Arc<Part>,
    share: Option<Share>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.part.bound.held.dec();
        self.part.held.fetch_sub(1, Relaxed);
    }
}

/// A permit that may be given to another source ([`PodQuota::spare`]).
pub(crate) type Spared = spare::Spared<Permit>;

/// Pods that are served, by uid.
type Pods = Arc<Mutex<HashMap<Arc<str>, Weak<Held>>>>;

/// The bounds of the node.
pub struct Quota {
    connections: Arc<Bound>,
    handshakes: Arc<Bound>,
    late_close: Arc<LateClose>,
    pods: Pods,
}

/// What one pod holds of each bound, on all data threads.
struct Held {
    connections: Arc<Part>,
    handshakes: Arc<Part>,
}

/// One pod's part of the bounds, as one data thread has it.
pub struct PodQuota {
    held: Arc<Held>,
    pods: Pods,
    late_close: Arc<LateClose>,
    leaving: Cell<usize>,
}

impl Quota {
    /// The bounds of `limits`, or of `files` that may be open where those say nothing. The gauges show what is held.
    pub fn new(limits: &Limits, files: u64, connections: Gauge, handshakes: Gauge) -> Self {
        let late = (files / LATE_IN).min(LATE);
        let allowed = usize::try_from((files - late) / DESCRIPTORS_EACH).unwrap_or(usize::MAX).max(1);
        Self {
            connections: Arc::new(Bound {
                what: "connections and tunnels as ZTUNNEL_MAX_CONNECTIONS allows",
                most: limits.connections.unwrap_or(allowed),
                per_pod: limits.per_pod,
                held: connections,
            }),
            handshakes: Arc::new(Bound {
                what: "TLS handshakes under way as ZTUNNEL_MAX_HANDSHAKES allows",
                most: limits.handshakes.unwrap_or(HANDSHAKES),
                per_pod: None,
                held: handshakes,
            }),
            late_close: LateClose::new(usize::try_from(late).unwrap_or(usize::MAX)),
            pods: Pods::default(),
        }
    }

    /// Connections and tunnels that may be open at once.
    pub fn most_connections(&self) -> usize {
        self.connections.most
    }

    /// Closes the connections that close later, for as long as it is polled.
    pub fn close_late(&self) -> impl Future<Output = ()> + Send + use<> {
        let late_close = self.late_close.clone();
        async move { late_close.run().await }
    }

    /// The part of the pod of this uid; data threads that ask for the same pod share it.
    pub fn pod(&self, uid: &Arc<str>) -> PodQuota {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|_, held| held.strong_count() > 0);
        let held = pods.get(uid).and_then(Weak::upgrade).unwrap_or_else(|| {
            let (connections, handshakes) = (Part::new(&self.connections), Part::new(&self.handshakes));
            Arc::new(Held { connections, handshakes })
        });
        pods.insert(uid.clone(), Arc::downgrade(&held));
        PodQuota { held, pods: self.pods.clone(), late_close: self.late_close.clone(), leaving: Cell::new(0) }
    }
}

impl PodQuota {
    /// A permit for one more connection or tunnel: of `source`, or of the pod itself.
    ///
    /// # Errors
    /// When there is no room, and none could be made.
    pub fn connection(&self, source: Option<&Source>) -> Result<Permit, Full> {
        self.enter(|held| &held.connections, source)
    }

    /// A permit for one more TLS handshake of `source`.
    ///
    /// # Errors
    /// When there is no room, and none could be made.
    pub(crate) fn handshake(&self, source: &Source) -> Result<Permit, Full> {
        self.enter(|held| &held.handshakes, Some(source))
    }

    fn enter(&self, part: fn(&Held) -> &Arc<Part>, source: Option<&Source>) -> Result<Permit, Full> {
        let own = part(&self.held);
        self.with_room_made(part, source, || own.enter(source))
    }

    /// Moves `permit`, which an address took, to the share of the identity that it has proven.
    ///
    /// # Errors
    /// When the identity's share is full; the permit is given back.
    pub(crate) fn proven(&self, mut permit: Permit, identity: &Source) -> Result<Permit, Full> {
        let part = permit.part.clone();
        // The address gives its share back, whether the identity finds room or not.
        permit.share = None;
        permit.share = self.with_room_made(
            |held| &held.connections,
            Some(identity),
            || {
                // What it holds itself does not count against it.
                let all = usize::try_from(part.bound.held.get()).unwrap_or(0).saturating_sub(1);
                part.share(all, part.held.load(Relaxed).saturating_sub(1), Some(identity))
            },
        )?;
        Ok(permit)
    }

    /// Calls `take` until it finds room, and ends what carries nothing in between.
    fn with_room_made<T>(
        &self,
        part: fn(&Held) -> &Arc<Part>,
        newcomer: Option<&Source>,
        take: impl Fn() -> Result<T, Full>,
    ) -> Result<T, Full> {
        let mut taken = take();
        for _ in 0..ENDED_FOR_ONE {
            let made = match &taken {
                Err(Full::Node(_)) => self.greediest_pod(part).is_some_and(|pod| {
                    let here = Arc::ptr_eq(&pod, &self.held);
                    part(&pod).make_room(newcomer.filter(|_| here))
                }),
                Err(Full::Pod(_) | Full::Source(_)) => part(&self.held).make_room(newcomer),
                Ok(_) => break,
            };
            if !made {
                break;
            }
            taken = take();
        }
        taken
    }

    /// The pod that holds most, of those of which something can be ended: this one, or one that holds more.
    fn greediest_pod(&self, part: fn(&Held) -> &Arc<Part>) -> Option<Arc<Held>> {
        let pods: Vec<Arc<Held>> =
            self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect();
        let holds = |pod: &Held| {
            let held = part(pod).held.load(Relaxed);
            Holds { group: held, own: held }
        };
        let candidates = pods.iter().filter(|pod| !part(pod).spare.is_empty()).map(|pod| {
            let kin = if Arc::ptr_eq(pod, &self.held) { Kin::Own } else { Kin::Other };
            Candidate { of: pod, holds: holds(pod), kin }
        });
        greediest(candidates, holds(&self.held)).cloned()
    }

    /// Lets `permit`, which `source` holds for something that carries nothing, be given to another source that finds no
    /// room; then `ended` is notified.
    pub(crate) fn spare(&self, permit: Permit, source: &Source, ended: &Arc<Notify>) -> Spared {
        let spare = permit.part.spare.clone();
        spare.add(permit, source.clone(), ended.clone())
    }

    /// Closes a connection that was turned away three seconds later (`late_close`).
    pub fn close_later(&self, tcp: TcpStream) {
        self.late_close.close(tcp);
    }

    /// Where connections wait that close later.
    pub(crate) fn late_close(&self) -> Arc<LateClose> {
        self.late_close.clone()
    }

    /// Counts a connection that has lost its permit and finishes what was asked of it. `None` when too many do.
    pub(crate) fn leaving(&self) -> Option<Leaving<'_>> {
        (self.leaving.get() < LEAVING).then(|| {
            self.leaving.set(self.leaving.get() + 1);
            Leaving(&self.leaving)
        })
    }
}

/// A connection that has lost its permit and finishes; counted until it is dropped.
pub(crate) struct Leaving<'a>(&'a Cell<usize>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests;
