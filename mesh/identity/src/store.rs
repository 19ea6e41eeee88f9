//! One fresh certificate per identity, fetched once, shared by many connections, renewed in the background.
//!
//! Who is fetched when is decided in `schedule` and [`renewal`]; here are the task that carries it out and the
//! look-up that connections make. The look-up works from any thread and any tokio runtime.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use mesh_model::identity::SpiffeId;
use rand::random;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use crate::authority::{Authority, AuthorityError, Signing};
use crate::certificate::{InvalidCertificate, RequestFailed, SigningRequest};
use crate::renewal;
use crate::schedule::{Priority, Schedule};
use crate::tls::{Credentials, TlsOptions};

/// The longest that one request may be with the CA.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);
/// However short certificates live, a request may take as long as this.
const SHORTEST_REQUEST: Duration = Duration::from_secs(1);

/// The longest sleep: the wall clock may jump, and sleeping time does not count while a machine is suspended.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Why a certificate could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No key could be made.
    #[error(transparent)]
    Request(#[from] RequestFailed),
    /// The authority refused or could not be reached.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Its answer is not what was asked for.
    #[error(transparent)]
    Invalid(#[from] InvalidCertificate),
    /// The certificate makes no TLS configuration.
    #[error("unusable for TLS: {0}")]
    Tls(rustls::Error),
    /// No answer in time.
    #[error("no answer from the CA within {0:?}")]
    Timeout(Duration),
    /// One of the two clocks is wrong.
    #[error("the CA sent a certificate that has already expired: compare this machine's clock with the CA's")]
    ExpiredOnArrival,
    /// A fault of ours.
    #[error("the request ended by a panic; this is a bug")]
    Panicked,
}

/// Why there is no certificate for a connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertificateError {
    /// It could not be fetched; and what was held before, if anything, has expired.
    #[error("no valid certificate for {id}: {cause}")]
    Unavailable {
        /// Whose.
        id: SpiffeId,
        /// What happened last.
        cause: Arc<FetchError>,
    },
    /// Still being fetched.
    #[error("no certificate for {id} yet: the CA has not answered within {waited:?}")]
    NotYet {
        /// Whose.
        id: SpiffeId,
        /// How long the connection waited.
        waited: Duration,
    },
    /// The identity left this node while the connection waited.
    #[error("{id} is no longer an identity of this node")]
    Forgotten {
        /// Whose.
        id: SpiffeId,
    },
}

/// What the store is told at the start.
#[derive(Clone)]
pub struct StoreOptions {
    /// Lifetime asked for (`SECRET_TTL`).
    pub lifetime: Duration,
    /// How long a connection waits for a certificate before it is refused.
    pub patience: Duration,
    /// TLS between workloads.
    pub tls: TlsOptions,
    /// The wall clock. Others than [`SystemTime::now`] are for tests.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(24 * 3600),
            patience: Duration::from_secs(5),
            tls: TlsOptions::default(),
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("lifetime", &self.lifetime)
            .field("patience", &self.patience)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// What is known about one identity, for the admin dump.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whose.
    pub id: SpiffeId,
    /// The newest certificate, expired or not.
    pub credentials: Option<Arc<Credentials>>,
    /// How it stands.
    pub state: State,
}

/// How an identity stands.
#[derive(Debug, Clone)]
pub enum State {
    /// Being fetched for the first time.
    Pending,
    /// Held and good.
    Valid,
    /// Held and good, but renewal fails.
    RenewalFails(Arc<FetchError>),
    /// Nothing good is held.
    Unavailable(Arc<FetchError>),
    /// What was held has expired, and its renewal is under way.
    Expired,
}

/// Certificates of the identities of this node. Cheap to clone; the last clone dropped stops the renewal.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    _renewal: Arc<Renewal>,
}

/// Stops the task when nobody can ask any more.
struct Renewal(AbortHandle);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared {
    options: StoreOptions,
    slots: RwLock<HashMap<SpiffeId, watch::Sender<Slot>>>,
    schedule: Mutex<Schedule>,
    wake: Notify,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Slot {
    held: Option<Arc<Credentials>>,
    /// The last failure since the last success, and when it is tried again.
    failure: Option<(Arc<FetchError>, SystemTime)>,
}

impl Slot {
    fn valid(&self, now: SystemTime) -> Option<&Arc<Credentials>> {
        self.held.as_ref().filter(|credentials| !credentials.certificate().expired(now))
    }

    fn state(&self, now: SystemTime) -> State {
        match (self.valid(now), &self.failure) {
            (Some(_), None) => State::Valid,
            (Some(_), Some((cause, _))) => State::RenewalFails(cause.clone()),
            (None, Some((cause, _))) => State::Unavailable(cause.clone()),
            (None, None) if self.held.is_some() => State::Expired,
            (None, None) => State::Pending,
        }
    }
}

impl Store {
    /// Begins to keep certificates that `authority` signs. Renewal runs as a task on `runtime`.
    pub fn new(runtime: &Handle, authority: Arc<dyn Authority>, options: StoreOptions) -> Self {
        let shared = Arc::new(Shared {
            options,
            slots: RwLock::default(),
            schedule: Mutex::default(),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
        });
        let task = runtime.spawn(shared.clone().run(authority));
        Self { shared, _renewal: Arc::new(Renewal(task.abort_handle())) }
    }

    /// The valid credentials of an identity, if they are here now. Never waits.
    pub fn held(&self, id: &SpiffeId) -> Option<Arc<Credentials>> {
        let slots = self.shared.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(id)?.borrow();
        slot.valid((self.shared.options.clock)()).cloned()
    }

    /// The valid credentials of an identity. Fetches them when they are not here, once for however many ask, and
    /// then keeps them fresh until [`Self::forget`]. Needs a tokio runtime with its timer, whichever.
    ///
    /// # Errors
    /// When they cannot be fetched soon: an expired certificate is never given out instead.
    pub async fn get(&self, id: &SpiffeId) -> Result<Arc<Credentials>, CertificateError> {
        if let Some(credentials) = self.held(id) {
            return Ok(credentials);
        }
        let patience = self.shared.options.patience;
        let mut slot = self.shared.want(id, Priority::Waiting);
        let unavailable = |cause| CertificateError::Unavailable { id: id.clone(), cause };
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        loop {
            {
                let now = (self.shared.options.clock)();
                let slot = slot.borrow_and_update();
                if let Some(credentials) = slot.valid(now) {
                    return Ok(credentials.clone());
                }
                // A brand-new pod may be refused for a moment, so one failure is not final; but there is no use in
                // waiting for a try that comes too late.
                match &slot.failure {
                    Some((cause, retry_at)) if *retry_at > now + patience => return Err(unavailable(cause.clone())),
                    _ => {}
                }
            }
            tokio::select! {
                changed = slot.changed() => {
                    if changed.is_err() {
                        return Err(CertificateError::Forgotten { id: id.clone() });
                    }
                }
                () = &mut deadline => {
                    return Err(match &slot.borrow().failure {
                        Some((cause, _)) => unavailable(cause.clone()),
                        None => CertificateError::NotYet { id: id.clone(), waited: patience },
                    });
                }
            }
        }
    }

    /// Fetches certificates that will be needed soon, after those that connections wait for.
    pub fn warm<'a>(&self, ids: impl IntoIterator<Item = &'a SpiffeId>) {
        for id in ids {
            self.shared.want(id, Priority::WarmUp);
        }
    }

    /// Drops an identity that has left this node, with its key.
    pub fn forget(&self, id: &SpiffeId) {
        self.shared.slots.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.shared.schedule().forget(id);
        self.shared.tell();
    }

    /// Every identity, ordered by name.
    pub fn list(&self) -> Vec<Status> {
        let now = (self.shared.options.clock)();
        let slots = self.shared.slots.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = slots
            .iter()
            .map(|(id, slot)| {
                let slot = slot.borrow();
                Status { id: id.clone(), credentials: slot.held.clone(), state: slot.state(now) }
            })
            .collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// Changes its number whenever [`Self::list`] would say something new.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

impl Shared {
    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn want(&self, id: &SpiffeId, priority: Priority) -> watch::Receiver<Slot> {
        let slot = {
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            slots.entry(id.clone()).or_insert_with(|| watch::Sender::new(Slot::default())).subscribe()
        };
        self.schedule().want(id, priority, (self.options.clock)());
        self.wake.notify_one();
        slot
    }

    async fn run(self: Arc<Self>, authority: Arc<dyn Authority>) {
        let mut requests = JoinSet::new();
        let mut whose: HashMap<tokio::task::Id, SpiffeId> = HashMap::new();
        loop {
            let now = (self.options.clock)();
            while let Some(id) = self.start(now) {
                let request = fetch(authority.clone(), id.clone(), self.options.clone());
                whose.insert(requests.spawn(request).id(), id);
            }
            let pause = self
                .schedule()
                .next_due()
                .map_or(LOOK_AGAIN, |due| due.duration_since(now).unwrap_or_default().min(LOOK_AGAIN));
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                Some(done) = requests.join_next_with_id() => {
                    let (task, outcome) = match done {
                        Ok((task, outcome)) => (task, outcome),
                        Err(e) => (e.id(), Err(FetchError::Panicked)),
                    };
                    if let Some(id) = whose.remove(&task) {
                        self.settle(&id, outcome);
                    }
                }
            }
        }
    }

    /// Apart from the loop, so that no lock is seen to live across an await.
    fn start(&self, now: SystemTime) -> Option<SpiffeId> {
        self.schedule().start(now)
    }

    fn settle(&self, id: &SpiffeId, outcome: Result<Credentials, FetchError>) {
        let now = (self.options.clock)();
        match outcome {
            Ok(credentials) => {
                let certificate = credentials.certificate();
                let renew_at = renewal::renew_at(certificate.not_before(), certificate.not_after(), now, random());
                tracing::debug!(%id, serial = certificate.serial(), "certificate obtained");
                if self.schedule().obtained(id, renew_at) {
                    self.publish(id, |slot| *slot = Slot { held: Some(Arc::new(credentials)), failure: None });
                }
            }
            Err(cause) => {
                let failures = self.schedule().failed(id);
                if failures == 0 {
                    return;
                }
                let left = self.held_for(id, now);
                let wait = renewal::retry_after(failures, self.options.lifetime, left, random());
                tracing::warn!(%id, error = %cause, failures, retry_in = ?wait, "certificate not obtained");
                self.schedule().retry(id, now + wait);
                self.publish(id, |slot| slot.failure = Some((Arc::new(cause), now + wait)));
            }
        }
        self.tell();
    }

    /// For how long the certificate held is still valid.
    fn held_for(&self, id: &SpiffeId, now: SystemTime) -> Option<Duration> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(id)?.borrow();
        slot.held.as_ref()?.certificate().not_after().duration_since(now).ok()
    }

    fn publish(&self, id: &SpiffeId, change: impl FnOnce(&mut Slot)) {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        match slots.get(id) {
            Some(slot) => slot.send_modify(change),
            // Forgotten between the two locks.
            None => self.schedule().forget(id),
        }
    }
}

async fn fetch(authority: Arc<dyn Authority>, id: SpiffeId, options: StoreOptions) -> Result<Credentials, FetchError> {
    let request = SigningRequest::new(&id)?;
    let answer = authority.sign(&id, request.csr_pem(), options.lifetime);
    // A CA that hangs must not take all the time there is for trying again before the old certificate expires.
    let limit = (options.lifetime / 4).clamp(SHORTEST_REQUEST, LONGEST_REQUEST);
    let answer = tokio::time::timeout(limit, answer).await.map_err(|_| FetchError::Timeout(limit))??;
    let certificate = request.complete(&answer)?;
    if certificate.expired((options.clock)()) {
        return Err(FetchError::ExpiredOnArrival);
    }
    Credentials::new(certificate, &options.tls).map_err(FetchError::Tls)
}

#[cfg(test)]
mod tests;
