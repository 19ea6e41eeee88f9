//! What all data threads share of one port of a service: its endpoints, ready to be chosen from, how busy each is, who is ejected, and
//! how much there is at once.
//!
//! Endpoints are looked through when they, the policy or the ejected ones change, by whichever thread meets the change first. A request
//! costs no more with 5,000 endpoints than with two.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::address::NamespacedName;
use mesh_model::balance::NoEndpoint;
use mesh_model::balance::choices::Choices;
use mesh_model::balance::warmup::Ages;
use mesh_model::service::Service;
use mesh_model::tables::{Edition, Tables};
use mesh_model::traffic::outlier::{Outcome, Outliers, Verdict};
use mesh_model::traffic::{Balancing, PortTraffic, Subset, TrafficPolicy, of_port};
use mesh_model::workload::Workload;
use serde_json::{Value, json};

use super::circuit::{Circuit, Limit};
use super::clock::Clock;
use super::endpoint_state::EndpointState;
use super::metrics::UpstreamMetrics;
use crate::target::uid_of;

/// A port of a service, and which of its endpoints: a subset, or all.
pub(super) type Key = (NamespacedName, u16, Option<Arc<str>>);

/// One port of a service.
pub(crate) struct ServicePort {
    /// `namespace/hostname`.
    pub(crate) service: NamespacedName,
    /// Its port.
    pub(crate) port: u16,
    /// Which of its endpoints: a subset of its DestinationRule. `None` is all of them.
    pub(crate) subset: Option<Arc<str>>,
    /// Told apart from all others that there were.
    pub(super) number: u64,
    pub(super) circuit: Circuit,
    turn: AtomicU64,
    /// Changes with who is ejected.
    ejections: AtomicU64,
    /// When it is looked who may return, in milliseconds of `clock`.
    next_check: AtomicU64,
    pub(super) clock: Clock,
    metrics: UpstreamMetrics,
    shared: Mutex<Shared>,
}

struct Shared {
    outliers: Outliers<Arc<str>>,
    /// By uid: of those that the tables tell of, and no others.
    states: HashMap<Arc<str>, Arc<EndpointState>>,
    /// Since when each may be chosen.
    ages: Ages,
    ready: Option<Arc<Ready>>,
    /// Of how many ejected ones the metrics know.
    counted: usize,
}

impl Shared {
    fn count(&mut self, port: &ServicePort, ejected: usize) {
        port.metrics.ejected(&port.service, port.port, ejected as i64 - self.counted as i64);
        self.counted = ejected;
    }
}

/// The endpoints, ready to be chosen from.
pub(crate) struct Ready {
    service: Arc<Service>,
    edition: Option<Edition>,
    ejections: u64,
    traffic: Option<PortTraffic>,
    subset: Option<Arc<Subset>>,
    /// How they are treated.
    pub(crate) policy: Arc<TrafficPolicy>,
    /// Those that may be chosen.
    pub(super) choices: Result<Choices, NoEndpoint>,
    /// The same.
    pub(super) states: Vec<Arc<EndpointState>>,
    /// How many the service has, ejected ones too.
    total: usize,
    /// When new ones get more than they do now.
    next_step: Option<Duration>,
}

impl Ready {
    /// What logs call the rule that holds.
    pub(crate) fn rule(&self) -> String {
        let rule = self.traffic.as_ref().and_then(|traffic| traffic.rule.as_ref());
        rule.map_or_else(|| "no DestinationRule".into(), |rule| format!("DestinationRule {rule}"))
    }
}

impl ServicePort {
    pub(super) fn new((service, port, subset): Key, number: u64, metrics: UpstreamMetrics, clock: Clock) -> Self {
        let shared = Shared {
            outliers: Outliers::new(clock.now()),
            states: HashMap::new(),
            ages: Ages::default(),
            ready: None,
            counted: 0,
        };
        Self {
            service,
            port,
            subset,
            number,
            circuit: Circuit::default(),
            turn: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            next_check: AtomicU64::new(0),
            clock,
            metrics,
            shared: Mutex::new(shared),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// What the tables say now of how its endpoints are treated, and which they are, if only some.
    fn said<'a>(&self, tables: &'a Tables) -> (Option<&'a PortTraffic>, Option<&'a Arc<Subset>>) {
        let Some(routes) = tables.routes(&self.service) else { return (None, None) };
        let Some(name) = &self.subset else { return (of_port(&routes.traffic, self.port), None) };
        let subset = routes.subsets.iter().find(|subset| subset.name == *name);
        (subset.and_then(|subset| of_port(&subset.traffic, self.port)), subset)
    }

    /// Lets the metrics forget what they know of it.
    pub(super) fn leave(&self) {
        match self.subset {
            Some(_) => self.shared().count(self, 0),
            None => self.metrics.forget(&self.service, self.port),
        }
    }

    /// Whether what was made ready is what the tables say now.
    pub(super) fn is_current(&self, ready: &Ready, tables: &Tables, service: &Arc<Service>) -> bool {
        let (traffic, subset) = self.said(tables);
        let same_traffic = match (traffic, &ready.traffic) {
            (Some(now), Some(then)) => Arc::ptr_eq(&now.policy, &then.policy),
            (None, None) => true,
            _ => false,
        };
        let same_subset = match (subset, &ready.subset) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (None, None) => true,
            _ => false,
        };
        same_traffic
            && same_subset
            && (Arc::ptr_eq(&ready.service, service) || uid_of(&service.hostname).is_some())
            && ready.edition.as_ref() == tables.endpoints_edition(&self.service)
            && ready.ejections == self.ejections.load(Ordering::Relaxed)
            && ready.next_step.is_none_or(|step| self.clock.now() < step)
    }

    /// What the tables say now, ready to be chosen from.
    pub(super) fn ready(&self, tables: &Tables, waypoint: &Workload, service: &Arc<Service>) -> Arc<Ready> {
        let mut shared = self.shared();
        if let Some(ready) = shared.ready.as_ref().filter(|ready| self.is_current(ready, tables, service)) {
            return ready.clone();
        }
        let all = tables.endpoints(&self.service);
        let (traffic, subset) = self.said(tables);
        let (traffic, subset) = (traffic.cloned(), subset.cloned());
        let policy = traffic.as_ref().map(|traffic| traffic.policy.clone()).unwrap_or_default();
        let edition = tables.endpoints_edition(&self.service).cloned();
        let now = self.clock.now();
        if shared.ready.as_ref().is_none_or(|ready| ready.edition != edition) {
            let mut known = std::mem::take(&mut shared.states);
            let state = |workload: &Arc<Workload>| {
                let new = || EndpointState::new(workload.uid.clone(), now);
                let state = known.remove(&workload.uid).unwrap_or_else(|| Arc::new(new()));
                (workload.uid.clone(), state)
            };
            let states: HashMap<_, _> = all.iter().map(state).collect();
            shared.outliers.retain(|uid| states.contains_key(uid));
            shared.states = states;
        }
        if policy.outliers.is_none() {
            shared.outliers.retain(|_| false);
        }
        let percent = policy.outliers.as_ref().map_or(0, |detection| detection.min_health_percent);
        let ejected: HashSet<Arc<str>> = shared.outliers.all_ejected().cloned().collect();
        shared.count(self, ejected.len());
        let some: Vec<Arc<Workload>>;
        let endpoints = match (&self.subset, &subset) {
            (None, _) => all,
            (Some(_), subset) => {
                let holds = |workload: &&Arc<Workload>| subset.as_ref().is_some_and(|s| s.holds(&workload.uid));
                some = all.iter().filter(holds).cloned().collect();
                &some
            }
        };
        let usable = |workload: &&Arc<Workload>| workload.healthy || service.load_balancing.allow_unhealthy;
        let warmup = policy.warmup.as_ref();
        let takes = endpoints.iter().filter(|workload| usable(workload) && !ejected.contains(&workload.uid));
        shared.ages.look(warmup, takes.map(|workload| &workload.uid), now);
        let choices = Choices::of((service, self.port), endpoints, waypoint, &policy.balancing, (&ejected, percent));
        let choices = match shared.ages.shares(warmup, now) {
            Some(share) => choices.map(|choices| choices.warmed(share)),
            None => choices,
        };
        let all = choices.iter().flat_map(Choices::all);
        let states = all.filter_map(|choice| shared.states.get(&choice.workload.uid)).cloned().collect();
        let next_step = shared.ages.next_step(warmup, now);
        let ready = Arc::new(Ready {
            service: service.clone(),
            edition,
            ejections: self.ejections.load(Ordering::Relaxed),
            traffic,
            subset,
            policy,
            choices,
            states,
            total: endpoints.iter().filter(usable).count(),
            next_step,
        });
        shared.ready = Some(ready.clone());
        ready
    }

    /// Takes in how something ended at an endpoint.
    pub(super) fn ended(&self, ready: &Ready, state: &EndpointState, outcome: Outcome) {
        let Some(detection) = &ready.policy.outliers else { return };
        // Most do nothing wrong: then nobody waits for anybody.
        if outcome.is_good() && !state.troubled.load(Ordering::Relaxed) {
            return;
        }
        let mut shared = self.shared();
        if !shared.states.contains_key(&state.uid) {
            return;
        }
        let verdict = shared.outliers.record(detection, &state.uid, outcome, ready.total, self.clock.now());
        let errors = shared.outliers.of(&state.uid).map_or(0, |record| record.errors());
        state.troubled.store(errors > 0, Ordering::Relaxed);
        let (service, port, endpoint, rule) = (&self.service, self.port, &*state.uid, ready.rule());
        match verdict {
            Verdict::Stays => {}
            Verdict::Ejected(cause, lasts) => {
                self.ejections.fetch_add(1, Ordering::Relaxed);
                self.metrics.ejection(&self.service, cause);
                let ejected = shared.outliers.ejected();
                shared.count(self, ejected);
                let reason = cause.as_str();
                tracing::warn!(%service, port, endpoint, reason, ?lasts, rule, ?outcome, "endpoint ejected: it gets no requests");
            }
            Verdict::Spared(cause) => {
                let reason = cause.as_str();
                let most = detection.max_ejection_percent;
                tracing::debug!(%service, port, endpoint, reason, rule, most, "endpoint not ejected: too many would be");
            }
        }
    }

    /// Looks who may return, where it is time.
    pub(super) fn check(&self, ready: &Ready) {
        let Some(detection) = &ready.policy.outliers else { return };
        let now = self.clock.now();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if milliseconds(now) < self.next_check.load(Ordering::Relaxed) {
            return;
        }
        let mut shared = self.shared();
        let back = shared.outliers.check(detection, now);
        self.next_check.store(milliseconds(shared.outliers.next_check()), Ordering::Relaxed);
        if !back.is_empty() {
            self.ejections.fetch_add(1, Ordering::Relaxed);
            let ejected = shared.outliers.ejected();
            shared.count(self, ejected);
        }
        for endpoint in back {
            tracing::info!(service = %self.service, port = self.port, endpoint = &*endpoint, "endpoint returns from its ejection");
        }
    }

    /// The same, by what was last made ready: where no request asks for it.
    pub(super) fn check_unasked(&self) {
        let ready = self.shared().ready.clone();
        if let Some(ready) = ready {
            self.check(&ready);
        }
    }

    /// For the configuration dump.
    pub(super) fn dump(&self) -> Value {
        let shared = self.shared();
        let count = |limit: Limit| {
            let most = shared.ready.as_ref().and_then(|ready| limit.of(&ready.policy.limits));
            (limit.field().to_owned(), json!({ "now": self.circuit.count(limit), "limit": most }))
        };
        let policy = shared.ready.as_ref().map(|ready| ready.policy.clone());
        let ewma = policy.as_ref().and_then(|policy| match &policy.balancing {
            Balancing::PeakEwma(ewma) => Some(ewma),
            _ => None,
        });
        let (now, warmup) = (self.clock.now(), policy.as_ref().and_then(|policy| policy.warmup.as_ref()));
        let shares = shared.ages.shares(warmup, now);
        let percent = |uid: &str| shares.as_ref().map_or(100.0, |share| share(uid) * 100.0).round();
        let mut endpoints: Vec<_> = shared.states.values().collect();
        endpoints.sort_by(|a, b| a.uid.cmp(&b.uid));
        let endpoint = |state: &&Arc<EndpointState>| {
            let record = shared.outliers.of(&state.uid).copied().unwrap_or_default();
            json!({
                "workload": &*state.uid,
                "active": state.active(),
                "warmupPercent": warmup.map(|_| percent(&state.uid)),
                "cost": ewma.map(|ewma| state.cost(ewma, now)),
                "ejected": record.is_ejected(),
                "consecutiveErrors": record.errors(),
                "ejections": record.times(),
            })
        };
        json!({
            "service": self.service.to_string(),
            "port": self.port,
            "subset": self.subset.as_deref(),
            "destinationRule": shared.ready.as_ref().and_then(|r| Some(r.traffic.as_ref()?.rule.as_ref()?.to_string())),
            "trafficPolicy": ewma.map(|ewma| ewma.policy.to_string()),
            "limits": Limit::ALL.into_iter().map(count).collect::<serde_json::Map<_, _>>(),
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    }
}

/// An endpoint has one request or connection more, for as long as this lives.
pub(crate) struct Active {
    state: Option<Arc<EndpointState>>,
    port: Arc<ServicePort>,
}

impl Active {
    pub(super) fn new(state: Option<Arc<EndpointState>>, port: Arc<ServicePort>) -> Self {
        if let Some(state) = &state {
            state.begin();
        }
        Self { state, port }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            state.end();
        }
        self.port.circuit.free();
    }
}
