//! The store against a CA in the same process, on a virtual clock.

use std::collections::VecDeque;

use tokio::sync::Semaphore;

use super::*;
use crate::test_ca::{TestCa, id};

const CART: &str = "spiffe://td/ns/shop/sa/cart";

/// Wall clock that moves with tokio's, so that paused tests move both.
fn clock() -> Arc<dyn Fn() -> SystemTime + Send + Sync> {
    let (wall, start) = (SystemTime::now(), tokio::time::Instant::now());
    Arc::new(move || wall + start.elapsed())
}

/// Signs for as long as it was asked, but only as it is told.
struct ScriptedCa {
    ca: TestCa,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Refusals to give before (or in the middle of) good answers, by turn.
    script: Mutex<VecDeque<&'static str>>,
    asked: Mutex<Vec<SpiffeId>>,
    /// Answers wait for it.
    gate: Semaphore,
    asked_now: watch::Sender<usize>,
}

impl ScriptedCa {
    fn new(script: &[&'static str]) -> Arc<Self> {
        Arc::new(Self {
            ca: TestCa::new(),
            clock: clock(),
            script: Mutex::new(script.iter().copied().collect()),
            asked: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            asked_now: watch::Sender::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn asked_times(&self, n: usize) {
        self.asked_now.subscribe().wait_for(|asked| *asked >= n).await.unwrap();
    }

    fn store(self: &Arc<Self>, lifetime: u64, patience: u64) -> Store {
        let options = StoreOptions {
            lifetime: Duration::from_secs(lifetime),
            patience: Duration::from_secs(patience),
            clock: self.clock.clone(),
            ..StoreOptions::default()
        };
        Store::new(&Handle::current(), self.clone(), options)
    }
}

impl Authority for ScriptedCa {
    fn sign<'a>(&'a self, id: &'a SpiffeId, csr: &'a str, lifetime: Duration) -> Signing<'a> {
        self.asked.lock().unwrap().push(id.clone());
        self.asked_now.send_modify(|n| *n += 1);
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.gate.add_permits(1);
            match self.script.lock().unwrap().pop_front() {
                None | Some("ok") => {}
                Some("somebody else") => {
                    let now = (self.clock)();
                    return Ok(self.ca.sign(csr, &["spiffe://td/ns/shop/sa/other"], now, now + lifetime));
                }
                Some("expired") => {
                    let now = (self.clock)();
                    let (from, until) = (now - Duration::from_secs(60), now - Duration::from_secs(1));
                    return Ok(self.ca.sign(csr, &[&id.to_string()], from, until));
                }
                Some(refusal) => return Err(AuthorityError(refusal.into())),
            }
            let now = (self.clock)();
            // Dated back, as real CAs do.
            let from = now - Duration::from_secs(120);
            Ok(self.ca.sign(csr, &[&id.to_string()], from, now + lifetime))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn many_connections_ask_once() {
    let ca = ScriptedCa::new(&[]);
    let store = ca.store(3600, 5);
    assert!(store.held(&id(CART)).is_none());
    let mut connections = JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        connections.spawn(async move { store.get(&id(CART)).await.unwrap().certificate().serial().to_owned() });
    }
    let serials = connections.join_all().await;
    assert!(serials.iter().all(|serial| *serial == serials[0]));
    assert_eq!(ca.asked(), 1);
    assert!(store.held(&id(CART)).is_some());
}

#[tokio::test(start_paused = true)]
async fn lifetimes_of_three_seconds_never_run_out() {
    let ca = ScriptedCa::new(&[]);
    let store = ca.store(3, 5);
    store.get(&id(CART)).await.unwrap();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(store.held(&id(CART)).is_some());
    }
    // Certificates end on whole seconds, so two to three of the three are left on arrival: thirty seconds at one
    // renewal in 0.9 to 1.65.
    assert!((18..=35).contains(&ca.asked()), "{}", ca.asked());
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_old_one_until_it_expires_and_not_longer() {
    let ca = ScriptedCa::new(&["ok"]);
    let store = ca.store(100, 5);
    let first = store.get(&id(CART)).await.unwrap();
    ca.script.lock().unwrap().extend(["out of ink"; 1000]);

    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(store.get(&id(CART)).await.unwrap().certificate().serial(), first.certificate().serial());
    assert!(ca.asked() > 2, "it is tried again");
    assert!(matches!(&store.list()[0].state, State::RenewalFails(cause) if cause.to_string() == "out of ink"));

    tokio::time::sleep(Duration::from_secs(21)).await;
    assert!(store.held(&id(CART)).is_none());
    let error = store.get(&id(CART)).await.unwrap_err();
    assert_eq!(error.to_string(), "no valid certificate for spiffe://td/ns/shop/sa/cart: out of ink");
    assert!(matches!(store.list()[0].state, State::Unavailable(_)));

    // The CA comes back: so do we, without being asked.
    ca.script.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(store.held(&id(CART)).is_some());
    assert!(matches!(store.list()[0].state, State::Valid));
}

/// Trap 52: a refusal may be of a moment.
#[tokio::test(start_paused = true)]
async fn a_connection_outlasts_a_short_refusal_but_not_a_long_one() {
    let ca = ScriptedCa::new(&["unknown pod", "unknown pod"]);
    let store = ca.store(3600, 5);
    store.get(&id(CART)).await.unwrap();
    assert_eq!(ca.asked(), 3);

    let ca = ScriptedCa::new(&["unknown pod"; 100]);
    let store = ca.store(3600, 5);
    let start = tokio::time::Instant::now();
    assert!(matches!(store.get(&id(CART)).await, Err(CertificateError::Unavailable { .. })));
    assert!(start.elapsed() <= Duration::from_secs(5));
    // By then the next try is far away: no use in waiting.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let start = tokio::time::Instant::now();
    assert!(store.get(&id(CART)).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_silent_ca_is_given_up() {
    let ca = ScriptedCa::new(&[]);
    ca.gate.forget_permits(Semaphore::MAX_PERMITS);
    let store = ca.store(3600, 5);
    assert!(matches!(store.get(&id(CART)).await, Err(CertificateError::NotYet { .. })));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(matches!(&store.list()[0].state, State::Unavailable(cause) if matches!(**cause, FetchError::Timeout(_))));
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_are_not_used() {
    for (answer, expected) in [("somebody else", "the certificate is for"), ("expired", "already expired")] {
        let ca = ScriptedCa::new(&[answer; 50]);
        let error = ca.store(3600, 2).get(&id(CART)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn eight_in_flight_and_connections_before_the_rest() {
    let ca = ScriptedCa::new(&[]);
    ca.gate.forget_permits(Semaphore::MAX_PERMITS);
    let store = ca.store(3600, 5);
    let pods: Vec<_> = (0..20).map(|n| id(&format!("spiffe://td/ns/n/sa/s{n}"))).collect();
    store.warm(&pods);
    ca.asked_times(8).await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.get(&id(CART)).await.map(|_| ()) }
    });
    // The connection has to be in the queue before the first answer makes room.
    store.changed().borrow_and_update();
    while !store.list().iter().any(|status| status.id == id(CART)) {
        tokio::task::yield_now().await;
    }
    assert_eq!(ca.asked(), 8);
    ca.gate.add_permits(1);
    waiting.await.unwrap().unwrap();
    ca.asked_times(21).await;
    assert!(ca.asked.lock().unwrap()[8..16].contains(&id(CART)), "before the twelve that were first in line");
    let mut changed = store.changed();
    while !store.list().iter().all(|status| matches!(status.state, State::Valid)) {
        changed.changed().await.unwrap();
    }
    assert_eq!(ca.asked(), 21);
}

#[tokio::test(start_paused = true)]
async fn the_forgotten_are_gone_and_those_who_wait_are_told() {
    let ca = ScriptedCa::new(&[]);
    let store = ca.store(10, 5);
    store.get(&id(CART)).await.unwrap();
    store.forget(&id(CART));
    assert!(store.held(&id(CART)).is_none());
    assert!(store.list().is_empty());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ca.asked(), 1, "not renewed");

    ca.gate.forget_permits(Semaphore::MAX_PERMITS);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.get(&id(CART)).await }
    });
    ca.asked_times(2).await;
    store.forget(&id(CART));
    assert!(matches!(waiting.await.unwrap(), Err(CertificateError::Forgotten { .. })));
}

#[test]
fn connections_may_live_on_other_runtimes() {
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = {
        let _inside = control.enter();
        let ca = ScriptedCa { clock: Arc::new(SystemTime::now), ..Arc::into_inner(ScriptedCa::new(&[])).unwrap() };
        Arc::new(ca).store(3600, 5)
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                let data = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                data.block_on(store.get(&id(CART))).unwrap().certificate().serial().to_owned()
            })
        })
        .collect();
    let serials: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert!(serials.iter().all(|serial| *serial == serials[0]));
}

#[test]
fn chance_is_a_fraction() {
    assert!((0..1000).map(|_| random()).all(|r: f64| (0.0..1.0).contains(&r)));
}
