//! Asks the control plane for what a decision lacks, when addresses come only on demand (`XDS_ON_DEMAND`; Istio
//! ambient contract, section 7.3).
//!
//! What the tables hold is not asked for. What the control plane said it does not know is remembered, and costs a
//! look into a set: the question stays asked, so the control plane tells when the answer changes.
//!
//! What nobody has used for a while is let go of again ([`InUse`]), so that a proxy holds what its pods talk to and not
//! all they ever talked to.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mesh_model::address::{GatewayAddress, GatewayDestination};
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::follow::Reader;

/// Questions on their way to the stream.
const QUEUE: usize = 64;
/// Most connections that wait for an answer at a time.
const MAX_WAITING: usize = 1024;
/// Most keys that are remembered as unknown to the control plane; then the oldest are asked again when needed.
const MAX_ABSENT: usize = 65_536;
/// What an address leads to: its service, that one's waypoint or gateway, whose service leads to nothing more.
const MAX_STEPS: usize = 3;

/// Asks for addresses on demand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Demand {
    questions: mpsc::Sender<Question>,
    answered: Answered,
    waiting: Arc<Semaphore>,
}

/// The keys that were answered, whatever the answer. Written by the stream, read by who asks.
type Answered = Arc<RwLock<HashMap<Box<str>, Arc<Mark>>>>;

/// When a key was used last. Who uses it now has a clone.
#[derive(Debug)]
struct Mark {
    made: Instant,
    /// In milliseconds after that.
    last: AtomicU64,
}

impl Mark {
    fn new() -> Self {
        Self { made: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        self.last.store(self.made.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.made.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// Keeps what a decision was made from, for as long as it is held: by the connection that the decision was about.
#[derive(Debug, Default)]
#[must_use = "what is not held may be let go of"]
pub struct InUse(Vec<Arc<Mark>>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.iter().for_each(|mark| mark.touch());
    }
}

/// The other end of a [`Demand`], for [`run`](crate::client::run).
#[derive(Debug)]
pub struct Demands {
    questions: mpsc::Receiver<Question>,
    answered: Answered,
    waiting: HashMap<String, Vec<oneshot::Sender<()>>>,
    /// What the control plane does not know.
    absent: HashSet<String>,
    /// The order in which that was heard. A key that was heard of since stays in it until its turn.
    order: VecDeque<String>,
    /// How long a key is kept that nobody uses.
    keep: Duration,
}

/// What somebody wants to know.
#[derive(Debug)]
pub(crate) struct Question {
    key: String,
    answered: oneshot::Sender<()>,
}

/// Why there is no answer. What is not known may well exist: nothing may be decided by its absence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The control plane was silent.
    #[error("the control plane did not say within {1:?} what {0} is: is it connected?")]
    Silent(String, Duration),
    /// Too many wait already.
    #[error("{MAX_WAITING} connections wait for the control plane already; {0} was not asked for")]
    TooMany(String),
}

/// A way to ask for addresses on demand; each is kept for `keep` after its last use.
pub fn demand(keep: Duration) -> (Demand, Demands) {
    let (sender, questions) = mpsc::channel(QUEUE);
    let answered = Answered::default();
    let demand =
        Demand { questions: sender, answered: answered.clone(), waiting: Arc::new(Semaphore::new(MAX_WAITING)) };
    let (waiting, absent, order) = Default::default();
    (demand, Demands { questions, answered, waiting, absent, order, keep })
}

impl Demand {
    /// Asks for `key` (`network/ip`, `namespace/hostname` or a uid) and waits until the control plane has answered,
    /// at most for `limit`. What it said is then in the tables; nothing there means that it knows nothing. Keys asked
    /// for once are kept up to date, and answered at once, even while there is no connection; until nobody has used
    /// them for a while.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn fetch(&self, key: &str, limit: Duration) -> Result<InUse, Unanswered> {
        if let Some(mark) = self.mark(key) {
            return Ok(InUse(vec![mark]));
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Err(Unanswered::TooMany(key.to_owned())) };
        let (answered, wait) = oneshot::channel();
        let ask = async {
            let question = Question { key: key.to_owned(), answered };
            // Both fail only with the end of the follower: then nobody will answer.
            self.questions.send(question).await.is_ok() && wait.await.is_ok()
        };
        match tokio::time::timeout(limit, ask).await {
            Ok(true) => Ok(InUse(self.mark(key).into_iter().collect())),
            Ok(false) | Err(_) => Err(Unanswered::Silent(key.to_owned(), limit)),
        }
    }

    fn mark(&self, key: &str) -> Option<Arc<Mark>> {
        self.answered.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Asks for everything that a connection of `client` to address `dialled` on `network` depends on: who owns the
    /// address, and the waypoint or gateway in its way. To be held while the connection lives.
    ///
    /// # Errors
    /// When there was no answer within `limit`, for all of it together.
    pub async fn complete(
        &self,
        tables: &Reader,
        client: &Workload,
        network: &str,
        dialled: IpAddr,
        limit: Duration,
    ) -> Result<InUse, Unanswered> {
        let deadline = Instant::now() + limit;
        let mut in_use = InUse::default();
        let mut asked = BTreeSet::new();
        for _ in 0..MAX_STEPS {
            let mut keys = tables.read(|tables| needed(tables, client, network, dialled));
            keys.retain(|key| !asked.contains(key));
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let left = deadline.saturating_duration_since(Instant::now());
                let mut used = self.fetch(&key, left).await.map_err(|unanswered| match unanswered {
                    Unanswered::Silent(key, _) => Unanswered::Silent(key, limit),
                    other => other,
                })?;
                in_use.0.append(&mut used.0);
                asked.insert(key);
            }
        }
        Ok(in_use)
    }
}

/// The keys that a decision about a connection of `client` to `dialled` depends on, as far as the tables tell. All are
/// asked for, those too whose answer came along with another's: that one may be let go of. Pure.
fn needed(tables: &Tables, client: &Workload, network: &str, dialled: IpAddr) -> BTreeSet<String> {
    let mut keys = BTreeSet::from([format!("{network}/{dialled}")]);
    let mut way = |gateway: &GatewayAddress| {
        keys.insert(match &gateway.destination {
            GatewayDestination::Hostname(key) => key.to_string(),
            GatewayDestination::Address(address) => address.to_string(),
        });
    };
    if let Some(workload) = tables.workload_by_address(network, dialled) {
        workload.waypoint.iter().chain(&workload.network_gateway).for_each(|gateway| way(gateway));
    } else if let Some(service) = tables.service_by_address(network, dialled, &client.namespace) {
        service.waypoint.iter().chain(service.weighted_waypoints.iter().map(|(w, _)| w)).for_each(|w| way(w));
        let elsewhere = tables.endpoints(&service.key()).iter().filter(|w| w.network != client.network);
        elsewhere.filter_map(|w| w.network_gateway.as_ref()).for_each(|gateway| way(gateway));
    }
    keys
}

impl Demands {
    /// The next question.
    pub(crate) async fn next(&mut self) -> Option<Question> {
        self.questions.recv().await
    }

    /// Lets somebody wait, and gives the key to ask for; None when it was answered meanwhile.
    pub(crate) fn wait(&mut self, question: Question) -> Option<String> {
        if self.answered.read().unwrap_or_else(PoisonError::into_inner).contains_key(&*question.key) {
            let _ = question.answered.send(());
            return None;
        }
        let waiting = self.waiting.entry(question.key.clone()).or_default();
        // Those who gave up.
        waiting.retain(|other| !other.is_closed());
        waiting.push(question.answered);
        Some(question.key)
    }

    /// The tables hold what was answered; `absent` of it is unknown to the control plane. Gives the keys that are not
    /// to be asked for any longer.
    pub(crate) fn answer(&mut self, answered: Vec<String>, absent: Vec<String>) -> Vec<String> {
        let mut known = self.answered.write().unwrap_or_else(PoisonError::into_inner);
        for key in &answered {
            known.entry(key.as_str().into()).or_insert_with(|| Arc::new(Mark::new()));
            self.absent.remove(key);
        }
        for key in absent {
            self.absent.insert(key.clone());
            self.order.push_back(key);
        }
        let mut forgotten = Vec::new();
        while self.absent.len() > MAX_ABSENT
            && let Some(oldest) = self.order.pop_front()
        {
            if self.absent.remove(&oldest) {
                known.remove(oldest.as_str());
                forgotten.push(oldest);
            }
        }
        drop(known);
        if self.order.len() > 2 * MAX_ABSENT {
            let mut seen = HashSet::new();
            self.order.retain(|key| self.absent.contains(key) && seen.insert(key.clone()));
        }
        for waiting in answered.iter().filter_map(|key| self.waiting.remove(key)).flatten() {
            let _ = waiting.send(());
        }
        forgotten
    }

    /// How long a key is kept that nobody uses.
    pub(crate) fn keep(&self) -> Duration {
        self.keep
    }

    /// The keys that nobody uses and nobody has used for a while, but those that `keep` names. They are as if they had
    /// never been asked for: to be unsubscribed.
    pub(crate) fn unused(&mut self, keep: impl Fn(&str) -> bool) -> Vec<String> {
        let mut gone = Vec::new();
        let mut known = self.answered.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, mark| {
            // Ours is the only one. Others are made under the lock that we hold.
            let unused = Arc::strong_count(mark) == 1 && mark.idle() >= self.keep && !keep(key);
            if unused {
                gone.push(key.to_string());
            }
            !unused
        });
        for key in &gone {
            self.absent.remove(key);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::address::NamespacedName;
    use mesh_model::resource::Resource;
    use mesh_model::service::{Service, Vip};

    use super::*;

    fn gateway(name: &str) -> Option<Arc<GatewayAddress>> {
        let destination = GatewayDestination::Hostname(NamespacedName::parse(name).unwrap());
        Some(GatewayAddress { destination, hbone_mtls_port: 15008 }.into())
    }

    fn at(ip: &str) -> mesh_model::address::NetworkAddress {
        mesh_model::address::NetworkAddress { network: "".into(), ip: ip.parse().unwrap() }
    }

    #[test]
    fn what_a_decision_depends_on() {
        let service = |name: &str, ip: &str| Service {
            vips: vec![Vip { address: at(ip), prefix: None }],
            ..Service::empty("shop", name)
        };
        let by_address =
            GatewayAddress { destination: GatewayDestination::Address(at("10.96.0.7")), hbone_mtls_port: 1 };
        let mut far = Workload { network: "far".into(), network_gateway: gateway("infra/gw"), ..Workload::empty("f") };
        far.services.insert(NamespacedName::new("shop", "split"), Vec::new());
        let mut tables = Tables::default();
        for resource in [
            Resource::Workload(
                Workload {
                    addresses: vec!["10.0.0.1".parse().unwrap()],
                    waypoint: gateway("shop/wp"),
                    ..Workload::empty("w")
                }
                .into(),
            ),
            Resource::Workload(
                Workload { addresses: vec!["10.0.0.2".parse().unwrap()], ..Workload::empty("plain") }.into(),
            ),
            Resource::Workload(far.into()),
            Resource::Service(Service { waypoint: gateway("shop/known"), ..service("behind", "10.96.0.1") }.into()),
            Resource::Service(
                Service { weighted_waypoints: vec![(by_address.into(), 1)], ..service("split", "10.96.0.2") }.into(),
            ),
            Resource::Service(service("known", "10.96.0.9").into()),
        ] {
            tables.apply(resource);
        }
        for (what, dialled, want) in [
            ("nothing is known", "192.0.2.1", &["/192.0.2.1"][..]),
            ("a workload", "10.0.0.2", &["/10.0.0.2"]),
            ("a workload behind a waypoint", "10.0.0.1", &["/10.0.0.1", "shop/wp"]),
            ("a service behind a waypoint that is known", "10.96.0.1", &["/10.96.0.1", "shop/known"]),
            ("weighted waypoints, and endpoints elsewhere", "10.96.0.2", &["/10.96.0.2", "/10.96.0.7", "infra/gw"]),
        ] {
            let keys = needed(&tables, &Workload::empty("client"), "", dialled.parse().unwrap());
            assert_eq!(keys.iter().map(String::as_str).collect::<Vec<_>>(), want, "{what}");
        }
    }

    #[tokio::test]
    async fn silence_is_no_answer_and_waiting_is_bounded() {
        let (demand, mut demands) = demand(Duration::MAX);
        let short = Duration::from_millis(20);
        assert_eq!(demand.fetch("/a", short).await.err(), Some(Unanswered::Silent("/a".into(), short)));
        let places = demand.waiting.clone().acquire_many_owned(MAX_WAITING as u32).await.unwrap();
        assert_eq!(demand.fetch("/a", short).await.err(), Some(Unanswered::TooMany("/a".into())));
        drop(places);
        // Those who gave up are forgotten when others ask.
        let question = demands.next().await.unwrap();
        assert_eq!(demands.wait(question), Some("/a".into()));
        let again = tokio::spawn({
            let demand = demand.clone();
            async move { demand.fetch("/a", Duration::from_secs(20)).await }
        });
        let question = demands.next().await.unwrap();
        assert_eq!(demands.wait(question), Some("/a".into()));
        assert_eq!(demands.waiting["/a"].len(), 1);
        assert_eq!(demands.answer(vec!["/a".into()], vec!["/a".into()]), Vec::<String>::new());
        assert!(again.await.unwrap().is_ok());
        assert!(demands.waiting.is_empty());
        drop(demands);
        assert!(demand.fetch("/a", short).await.is_ok(), "remembered without anybody to ask");
    }

    /// Virtual time: a key is let go of a while after its last use, and never while a connection uses it.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_is_let_go_of() {
        let keep = Duration::from_secs(600);
        let (demand, mut demands) = demand(keep);
        let keys = ["/used", "/unused", "/kept", "/unknown"].map(String::from);
        demands.answer(keys.to_vec(), vec!["/unknown".into()]);
        let unused = |demands: &mut Demands| {
            let mut unused = demands.unused(|key| key == "/kept");
            unused.sort();
            unused
        };
        tokio::time::advance(keep - Duration::from_secs(1)).await;
        let used = demand.fetch("/used", keep).await.unwrap();
        assert_eq!(unused(&mut demands), Vec::<String>::new(), "not yet");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(unused(&mut demands), ["/unknown", "/unused"]);
        assert!(demands.absent.is_empty());
        // However long a connection lives; then it is as if it had been used at its end.
        tokio::time::advance(100 * keep).await;
        assert_eq!(unused(&mut demands), Vec::<String>::new());
        drop(used);
        tokio::time::advance(keep / 2).await;
        assert_eq!(unused(&mut demands), Vec::<String>::new());
        tokio::time::advance(keep / 2).await;
        assert_eq!(unused(&mut demands), ["/used"]);
        // Whoever wants it again asks again.
        let asking = tokio::spawn(async move { demand.fetch("/used", keep).await.is_ok() });
        let question = demands.next().await.unwrap();
        assert_eq!(demands.wait(question), Some("/used".into()));
        demands.answer(vec!["/used".into()], Vec::new());
        assert!(asking.await.unwrap());
    }

    #[test]
    fn only_so_much_is_remembered_as_unknown() {
        let (_demand, mut demands) = demand(Duration::MAX);
        let keys = |from: usize, to: usize| (from..to).map(|n| format!("/{n}")).collect::<Vec<_>>();
        assert_eq!(demands.answer(keys(0, MAX_ABSENT), keys(0, MAX_ABSENT)), Vec::<String>::new());
        assert_eq!(demands.answer(vec!["/1".into()], Vec::new()), Vec::<String>::new(), "it is something now");
        let forgotten = demands.answer(keys(MAX_ABSENT, MAX_ABSENT + 3), keys(MAX_ABSENT, MAX_ABSENT + 3));
        assert_eq!(forgotten, ["/0", "/2"], "the oldest, but not what is something by now");
        let answered = demands.answered.read().unwrap();
        assert!(!answered.contains_key("/0") && answered.contains_key("/1") && answered.contains_key("/3"));
    }
}
