//! Addresses of workloads that are known by hostname only: load balancers of other networks' gateways, outside
//! endpoints. Asked of the system's resolver in the proxy's own network (its `resolv.conf`), when a connection needs them,
//! and remembered for a while for all pods.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_model::address::canonical_ip;
use mesh_model::balance;
use mesh_model::reason::ReasonCode;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

/// How long addresses are used. The system's resolver does not tell the records' own TTL; this is what the mesh gives
/// its own records.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long a failure is believed, so that a name that is no name does not cost a question for each connection.
const FAILURE_LIFETIME: Duration = Duration::from_secs(5);
/// Most names remembered: more than a control plane that names outside endpoints by hand will have.
const MAX_NAMES: usize = 1024;
/// Most addresses kept of one name.
const MAX_ADDRESSES: usize = 64;
/// Most questions asked at once. Each holds a thread until the system's resolver answers or gives up.
const MAX_QUESTIONS: usize = 16;
/// How long a connection waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

const NO_ADDRESS: &str = "it has no address";

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It could not be asked for.
    #[error("workload hostname {0:?} is no name that could be resolved")]
    Invalid(Arc<str>),
    /// The resolver said no.
    #[error("cannot resolve workload hostname {0}: {1}")]
    Failed(Arc<str>, Arc<str>),
    /// The resolver said nothing.
    #[error(
        "cannot resolve workload hostname {0}: no answer within {PATIENCE:?}; can this proxy reach its name servers?"
    )]
    Timeout(Arc<str>),
}

impl Unresolved {
    /// A stable code; documented in `docs/reasons.md`.
    pub fn code(&self) -> ReasonCode {
        ReasonCode::HostnameUnresolved
    }
}

type Addresses = Arc<[IpAddr]>;
type Answer = Result<Addresses, Unresolved>;
/// Asks the resolver.
type Ask = dyn Fn(Arc<str>) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync;

/// What is known about names; shared by all data threads.
pub struct Hostnames {
    known: Mutex<HashMap<Arc<str>, Known>>,
    questions: Arc<Semaphore>,
    ask: Box<Ask>,
}

#[derive(Clone)]
struct Known {
    since: Instant,
    /// Filled by the first who needs it; the others wait for it.
    answer: Arc<OnceCell<Answer>>,
}

impl Known {
    fn is_good(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        match self.answer.get() {
            Some(Ok(_)) => age < LIFETIME,
            Some(Err(_)) => age < FAILURE_LIFETIME,
            None => true,
        }
    }
}

impl Default for Hostnames {
    fn default() -> Self {
        Self::asking(|name| {
            Box::pin(async move {
                // A last dot says that the name is whole, so that no search list is tried: with a wildcard in one of its
                // domains, everything would be found there. The port means nothing.
                let whole = if name.contains('.') { format!("{name}.") } else { name.to_string() };
                let found = tokio::net::lookup_host((whole, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }
}

impl Hostnames {
    fn asking(
        ask: impl Fn(Arc<str>) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self { known: Mutex::default(), questions: Arc::new(Semaphore::new(MAX_QUESTIONS)), ask: Box::new(ask) }
    }

    /// An address of `hostname`, of the family that the client dialled if it has one; `random` chooses between equals.
    ///
    /// # Errors
    /// When it has none, or none that is known in time.
    pub async fn address(&self, hostname: &Arc<str>, ipv4_first: bool, random: u64) -> Result<IpAddr, Unresolved> {
        let addresses = self.resolve(hostname).await?;
        let chosen = balance::resolved(&addresses, ipv4_first, random);
        chosen.ok_or_else(|| Unresolved::Failed(hostname.clone(), NO_ADDRESS.into()))
    }

    /// The addresses of `hostname`, in normal form.
    async fn resolve(&self, hostname: &Arc<str>) -> Answer {
        let is_name = hostname.len() <= 253 && hostname.split('.').all(|l| !l.is_empty() && l.len() <= 63);
        if !is_name || hostname.contains(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
            return Err(Unresolved::Invalid(hostname.clone()));
        }
        let known = self.known(hostname);
        known.answer.get_or_init(|| self.ask(hostname)).await.clone()
    }

    async fn ask(&self, hostname: &Arc<str>) -> Answer {
        let (questions, question) = (self.questions.clone(), (self.ask)(hostname.clone()));
        // A task of its own: the permit is held until the resolver has answered, whoever still waits for it.
        let asked = tokio::spawn(async move {
            let _permit = questions.acquire_owned().await;
            question.await
        });
        let failed = |error: &str| Unresolved::Failed(hostname.clone(), error.into());
        match timeout(PATIENCE, asked).await {
            Err(_) => Err(Unresolved::Timeout(hostname.clone())),
            Ok(Err(ended)) => Err(failed(&ended.to_string())),
            Ok(Ok(Err(error))) => Err(failed(&error.to_string())),
            Ok(Ok(Ok(found))) => {
                let mut addresses: Vec<IpAddr> = found.into_iter().map(canonical_ip).collect();
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MAX_ADDRESSES);
                if addresses.is_empty() { Err(failed(NO_ADDRESS)) } else { Ok(addresses.into()) }
            }
        }
    }

    /// The entry for a name's answer: a good one, one that somebody is asking for, or an empty one.
    fn known(&self, hostname: &Arc<str>) -> Known {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(hostname).filter(|k| k.is_good(now)) {
            return found.clone();
        }
        if known.len() >= MAX_NAMES {
            known.retain(|_, k| k.is_good(now));
        }
        while known.len() >= MAX_NAMES {
            let oldest = known.iter().min_by_key(|(_, k)| k.since).map(|(name, _)| name.clone());
            known.remove(&oldest.unwrap_or_default());
        }
        let fresh = Known { since: now, answer: Arc::default() };
        known.insert(hostname.clone(), fresh.clone());
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers with what `answer` says to the number of the question, and counts.
    fn counting(answer: fn(usize) -> io::Result<Vec<IpAddr>>) -> (Arc<Hostnames>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let names = Hostnames::asking(move |_| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                answer(number)
            })
        });
        (Arc::new(names), asked)
    }

    fn one(_: usize) -> io::Result<Vec<IpAddr>> {
        Ok(vec!["192.0.2.1".parse().unwrap()])
    }

    #[tokio::test]
    async fn the_systems_resolver_is_asked() {
        let names = Hostnames::default();
        let found = names.resolve(&"localhost".into()).await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(names.address(&"localhost".into(), true, 7).await.unwrap().is_loopback());
        let error = names.resolve(&"no-such-name.invalid".into()).await.unwrap_err();
        assert!(error.to_string().contains("no-such-name.invalid"), "{error}");
        assert_eq!(error.code(), ReasonCode::HostnameUnresolved);
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_for_all_who_ask_until_its_answer_is_old() {
        let (names, asked) = counting(one);
        let name: Arc<str> = "db.example.com".into();
        let (a, b) = tokio::join!(names.resolve(&name), names.resolve(&name));
        assert_eq!((a.is_ok(), b.is_ok(), asked.load(Ordering::Relaxed)), (true, true, 1));
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        names.resolve(&name).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        names.resolve(&name).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_believed_for_a_shorter_time() {
        let (names, asked) = counting(|n| if n == 0 { Err(io::Error::other("no such name")) } else { one(n) });
        let name: Arc<str> = "db.example.com".into();
        for _ in 0..3 {
            let error = names.resolve(&name).await.unwrap_err();
            assert_eq!(error.to_string(), "cannot resolve workload hostname db.example.com: no such name");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(FAILURE_LIFETIME).await;
        assert!(names.resolve(&name).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_says_nothing_is_not_awaited_for_ever() {
        let names = Hostnames::asking(|_| Box::pin(std::future::pending()));
        let error = names.resolve(&"db.example.com".into()).await.unwrap_err();
        assert!(matches!(error, Unresolved::Timeout(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_name_is_not_asked_for() {
        let (names, asked) = counting(one);
        let long = "a.".repeat(127) + "ab";
        for bad in ["", "*.example.com", "a..b", "a b", "db.example.com.", "192.0.2.1/8", "ä.example", &long] {
            assert!(matches!(names.resolve(&bad.into()).await, Err(Unresolved::Invalid(_))), "{bad}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let (nothing, _) = counting(|_| Ok(Vec::new()));
        let error = nothing.resolve(&"db.example.com".into()).await.unwrap_err().to_string();
        assert!(error.ends_with("it has no address"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_remembers_more_than_its_bound() {
        let (names, _) = counting(|_| Ok((0..200).map(|i| IpAddr::from([10, 0, 0, i])).collect()));
        for i in 0..MAX_NAMES + 50 {
            let found = names.resolve(&format!("n{i}.example.com").into()).await.unwrap();
            assert_eq!(found.len(), MAX_ADDRESSES);
        }
        assert_eq!(names.known.lock().unwrap().len(), MAX_NAMES);
    }
}
