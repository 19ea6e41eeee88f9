//! The keys that tokens are checked with, fetched from where RequestAuthentications say.
//!
//! | file | question |
//! |---|---|
//! | this one | a source of objects, and of what fetching keys has come to |
//! | `asked` | which keys do objects ask for? (pure) |
//! | `schedule` | when is which fetched? (pure) |
//! | [`allowed`] | from where may keys be fetched? (pure) |
//! | `fetch` | asks for them, over HTTP |
//! | `key_set` | is that a key set? (pure) |
//! | [`metrics`] | what is counted |
//!
//! Keys come into publication as changes, like objects do, so that what proxies are told follows from them as it does from everything
//! else. Nothing waits for a fetch but the very first batch, for [`FIRST`] at most: a control plane that starts again must not tell
//! waypoints that keys are unknown which they hold already.

pub mod allowed;
mod asked;
mod fetch;
mod key_set;
pub mod metrics;
mod schedule;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::cluster::{Change, Fetched};
use crate::resources::KeySource;
use crate::source::{Batch, Findings, Source};

use allowed::Allowed;
use asked::Asked;
pub use fetch::{FetchError, Fetcher};
use metrics::JwksMetrics;
use schedule::{MOST, Schedule, Start};

/// How long the first batch waits for keys.
pub const FIRST: Duration = Duration::from_secs(5);

/// What is set of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`: after how long keys are fetched again, default 1m.
    pub refresh: Duration,
    /// `BLOCKED_CIDRS_IN_JWKS_URIS`, `ALLOWED_CIDRS_IN_JWKS_URIS`: from where they may be fetched.
    pub allowed: Allowed,
    /// `JWKS_EXTRA_ROOT_CA`: a file of roots, besides this machine's.
    pub extra_root: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        // Istio has 20 minutes. Nobody but us looks for a key that a token names and that is not known: it is known after this.
        Self { refresh: Duration::from_secs(60), allowed: Allowed::default(), extra_root: None }
    }
}

/// A source with the keys that its objects ask for.
pub struct WithKeys<S> {
    inner: Inner<S>,
    first: bool,
    asked: Asked,
    schedule: Schedule<KeySource>,
    fetcher: Fetcher,
    fetches: JoinSet<Result<String, FetchError>>,
    running: HashMap<Id, (KeySource, u64)>,
    known: BTreeMap<KeySource, Arc<Fetched>>,
    metrics: JwksMetrics,
}

type Ended = Result<(Id, Result<String, FetchError>), JoinError>;

impl<S: Source> WithKeys<S> {
    /// Nothing is fetched yet.
    pub fn new(source: S, settings: &Settings, metrics: JwksMetrics) -> Self {
        Self {
            inner: Inner::Idle(source),
            first: true,
            asked: Asked::default(),
            schedule: Schedule::new(settings.refresh),
            fetcher: Fetcher::new(settings.allowed.clone(), settings.extra_root.clone()),
            fetches: JoinSet::new(),
            running: HashMap::new(),
            known: BTreeMap::new(),
            metrics,
        }
    }

    fn start(&mut self) {
        for Start { source, number, timeout } in self.schedule.due(Instant::now()) {
            let (fetcher, from) = (self.fetcher.clone(), source.clone());
            let task = self.fetches.spawn(async move { fetcher.fetch(&from, timeout).await });
            self.running.insert(task.id(), (source, number));
        }
    }

    /// Takes objects in; what is told of keys that nobody asks for any more, and of those that are too many.
    fn objects(&mut self, changes: &mut Vec<Change>) {
        let news = changes.iter().fold(false, |news, change| self.asked.take(change) | news);
        if !news {
            return;
        }
        let asked = self.asked.all();
        let refused = self.schedule.want(&asked, Instant::now());
        let gone: Vec<KeySource> = self.known.keys().filter(|source| !asked.contains_key(*source)).cloned().collect();
        for source in gone {
            self.known.remove(&source);
            changes.push(Change::Keys(source, None));
        }
        let too_many = || format!("more than {MOST} addresses of keys are asked for, and this is not one of the first");
        changes.extend(refused.into_iter().filter_map(|source| self.told(source, Err(too_many()))));
        self.metrics.count(self.known.values().map(|one| &**one));
    }

    /// A fetch has ended: what is told of it, if that is something else than before.
    fn ended(&mut self, ended: Ended) -> Option<Change> {
        let (id, fetched) = match ended {
            Ok((id, fetched)) => (id, fetched.map_err(|error| error.to_string())),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let (source, number) = self.running.remove(&id)?;
        if fetched.is_ok() { &self.metrics.succeeded } else { &self.metrics.failed }.inc();
        if !self.schedule.done((&source, number), fetched.is_ok(), Instant::now(), spread()) {
            return None;
        }
        let change = self.told(source, fetched);
        self.metrics.count(self.known.values().map(|one| &**one));
        change
    }

    fn told(&mut self, source: KeySource, fetched: Result<String, String>) -> Option<Change> {
        let before = self.known.get(&source).cloned();
        let kept = before.as_ref().and_then(|before| before.keys.clone());
        let now = match fetched {
            // The same keys stay the same text in memory.
            Ok(keys) => {
                let keys = kept.filter(|kept| **kept == *keys).unwrap_or_else(|| keys.into());
                Fetched { keys: Some(keys), trouble: None }
            }
            Err(why) => Fetched { keys: kept, trouble: Some(why.into()) },
        };
        if before.as_deref() == Some(&now) {
            return None;
        }
        match (&now.trouble, &now.keys) {
            (Some(why), Some(_)) => {
                tracing::warn!(%source, %why, "keys could not be fetched again: those before are used")
            }
            (Some(why), None) => {
                tracing::warn!(%source, %why, "keys could not be fetched: tokens of that issuer are refused")
            }
            (None, _) => tracing::info!(%source, "keys fetched"),
        }
        let now = Arc::new(now);
        self.known.insert(source.clone(), now.clone());
        Some(Change::Keys(source, Some(now)))
    }

    /// Waits until each that is asked for was tried once.
    async fn first(&mut self, changes: &mut Vec<Change>) {
        loop {
            self.start();
            let Some(ended) = self.fetches.join_next_with_id().await else { return };
            changes.extend(self.ended(ended));
            if self.asked.all().keys().all(|source| self.known.contains_key(source)) {
                return;
            }
        }
    }
}

impl<S: Source> Source for WithKeys<S> {
    async fn next(&mut self) -> Option<Batch> {
        loop {
            self.start();
            let wait = self.schedule.next();
            let later = async {
                match wait {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // First what there is an end of.
                Some(ended) = self.fetches.join_next_with_id() => {
                    let mut changes: Vec<Change> = self.ended(ended).into_iter().collect();
                    while let Some(ended) = self.fetches.try_join_next_with_id() {
                        changes.extend(self.ended(ended));
                    }
                    if !changes.is_empty() {
                        return Some(Batch { changes, findings: None });
                    }
                }
                batch = self.inner.next() => {
                    let mut batch = batch?;
                    self.objects(&mut batch.changes);
                    if std::mem::replace(&mut self.first, false) {
                        // What was not there in time comes later, like everything else.
                        let _ = timeout(FIRST, self.first(&mut batch.changes)).await;
                    }
                    return Some(batch);
                }
                () = later => {}
            }
        }
    }

    async fn published(&mut self) -> Option<Findings> {
        match &mut self.inner {
            Inner::Idle(source) => source.published().await,
            // What was published were keys, and those are not kept.
            Inner::Asked(_) | Inner::Ended => None,
        }
    }
}

/// The source of objects. It is asked to the end: what it would have said, had nobody turned to something else meanwhile, is not lost.
enum Inner<S> {
    Idle(S),
    Asked(Pin<Box<dyn Future<Output = (S, Option<Batch>)> + Send>>),
    Ended,
}

impl<S: Source> Inner<S> {
    /// May be dropped at any time and called again.
    async fn next(&mut self) -> Option<Batch> {
        if let Self::Idle(_) = self
            && let Self::Idle(mut source) = std::mem::replace(self, Self::Ended)
        {
            *self = Self::Asked(Box::pin(async move {
                let batch = source.next().await;
                (source, batch)
            }));
        }
        let Self::Asked(asked) = self else { return None };
        let (source, batch) = asked.await;
        *self = Self::Idle(source);
        batch
    }
}

/// A number between 0 and 1.
fn spread() -> f64 {
    let mut bytes = [0; 2];
    // Without chance all are asked as often, at the same time.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests;
