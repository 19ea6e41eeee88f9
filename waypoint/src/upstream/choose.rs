//! Which endpoint a request or a connection goes to.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_model::balance::NoEndpoint;
use mesh_model::balance::choices::{By, Choices, hashed_by};
use mesh_model::balance::hash::hash;
use mesh_model::destination::{self, ByName, Destination, PlainTo, Refusal};
use mesh_model::reason::ReasonCode;
use mesh_model::service::{BalanceMode, Service};
use mesh_model::traffic::outlier::Outcome;
use mesh_model::traffic::{Balancing, HashBy, Limits};
use mesh_model::workload::Workload;

use super::circuit::Limit;
use super::connection::HttpVersion;
use super::endpoint::{Endpoint, Unreachable};
use super::endpoint_state::EndpointState;
use super::permit::Permit;
use super::pool::Key;
use super::ports::has_subset;
use super::service_port::{Active, Ready, ServicePort};
use crate::serving::Worker;
use crate::target::uid_of;

/// Chance, or a hash, may name the endpoint again that has just failed: so often another is asked for.
const TRIES: u64 = 8;

/// The endpoint that was chosen.
pub(crate) struct Picked {
    /// How it is reached.
    pub(crate) endpoint: Endpoint,
    /// The port of the service.
    pub(crate) port: Arc<ServicePort>,
    ready: Arc<Ready>,
    state: Option<Arc<EndpointState>>,
    /// When, where it counts how long something takes.
    since: Option<Duration>,
    /// It is others that a connection is waited for.
    pub(super) waits: Cell<bool>,
}

impl Picked {
    /// How much there may be at once.
    pub(crate) fn limits(&self) -> &Limits {
        &self.ready.policy.limits
    }

    /// What connections to it may be used for.
    pub(crate) fn key(&self, version: HttpVersion) -> Key {
        Key::new(self.port.number, &self.endpoint, version)
    }

    /// Takes in how it ended there. Who had to wait for others has met no endpoint.
    pub(crate) fn ended(&self, outcome: Outcome) {
        let Some(state) = self.state.as_ref().filter(|_| !self.waits.get()) else { return };
        self.port.ended(&self.ready, state, outcome);
        if let (Some(since), Balancing::PeakEwma(ewma)) = (self.since, &self.ready.policy.balancing) {
            // Of a connection of which nothing else is known, how long what goes through it takes is not known either.
            if outcome != Outcome::Connected {
                let now = self.port.clock.now();
                state.observe(ewma, now.saturating_sub(since), !outcome.is_good(), now);
            }
        }
    }

    /// It has one request or connection more.
    pub(crate) fn active(&self) -> Active {
        Active::new(self.state.clone(), self.port.clone())
    }

    /// One more of what is bounded.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(crate) fn take(&self, worker: &Worker, limit: Limit) -> Result<Permit, Unreachable> {
        Permit::take(&self.port, limit, limit.of(self.limits())).ok_or_else(|| self.overflow(worker, limit))
    }

    /// A limit was reached: counted, and in words.
    pub(super) fn overflow(&self, worker: &Worker, limit: Limit) -> Unreachable {
        worker.context.ports.metrics().overflow(&self.port.service, limit);
        let most = limit.of(self.limits()).unwrap_or_default();
        let (field, rule) = (limit.field(), self.ready.rule());
        let why = format!("{field} ({most}) of {rule} is reached at {} port {}", self.port.service, self.port.port);
        Unreachable::NoWay(ReasonCode::UpstreamOverflow, why)
    }
}

/// What was chosen, before its name is resolved.
struct Chosen {
    to: To,
    port: Arc<ServicePort>,
    ready: Arc<Ready>,
    state: Option<Arc<EndpointState>>,
}

enum To {
    At(Endpoint),
    Named(ByName),
}

/// Chooses an endpoint of `service`, or of a subset of it, for what comes to `dialled`: another one than `not`, if there is another. `hashed` gives the hash of
/// what a consistent hash asks for. Waits only for the address of one that has a name instead of one.
pub(crate) async fn choose(
    worker: &Worker,
    waypoint: &Workload,
    of: (&Arc<Service>, SocketAddr, Option<&Arc<str>>),
    hashed: impl FnOnce(&HashBy) -> Option<u64>,
    not: Option<SocketAddr>,
) -> Result<Picked, Unreachable> {
    let Chosen { to, port, ready, state } = pick(worker, waypoint, of, hashed, not)?;
    let endpoint = match to {
        To::At(endpoint) => endpoint,
        To::Named(name) => {
            // Seldom, and so not a part of what each request holds.
            let hostnames = &worker.context.hostnames;
            let found = Box::pin(hostnames.address(name.hostname(), name.ipv4_first(), rand::random())).await;
            Endpoint::of(name.at(found?))?
        }
    };
    let ip = endpoint.address().ip().to_canonical();
    if !worker.context.endpoints_on_loopback && (ip.is_loopback() || ip.is_unspecified()) {
        let why = format!("endpoint {}: that is the waypoint's own pod, and no service's", endpoint.address());
        return Err(Unreachable::NoWay(Refusal::Recursive.code(), why));
    }
    let since = matches!(ready.policy.balancing, Balancing::PeakEwma(_)).then(|| port.clock.now());
    Ok(Picked { endpoint, port, ready, state, since, waits: Cell::new(false) })
}

fn pick(
    worker: &Worker,
    waypoint: &Workload,
    (service, dialled, subset): (&Arc<Service>, SocketAddr, Option<&Arc<str>>),
    hashed: impl FnOnce(&HashBy) -> Option<u64>,
    not: Option<SocketAddr>,
) -> Result<Chosen, Unreachable> {
    worker.context.proxy.tables.read(|tables| {
        if let Some(subset) = subset.filter(|subset| !has_subset(tables, &service.key(), subset)) {
            // What was never told has no endpoints to look through.
            let why = format!("no DestinationRule of {} has a subset {subset}", service.key());
            return Err(Unreachable::NoWay(ReasonCode::NoBackend, why));
        }
        // A workload at its own address has one entry for all its ports, which anybody may ask for.
        let uid = uid_of(&service.hostname);
        let of = (service, if uid.is_some() { 0 } else { dialled.port() }, subset);
        let (port, ready) = worker.ports.find(&worker.context.ports, tables, waypoint, of);
        if service.load_balancing.mode == BalanceMode::Passthrough && subset.is_none() {
            let to = PlainTo { address: dialled, workload: None, service: Some(service.clone()) };
            return Ok(Chosen { to: To::At(Endpoint::of(Destination::Plain(to))?), port, ready, state: None });
        }
        let refuse = |refusal: Refusal| Unreachable::NoWay(refusal.code(), refusal.to_string());
        if let Some(uid) = uid {
            let workload = tables.workload(uid);
            let gone = || refuse(destination::no_endpoint(service, dialled.port(), NoEndpoint::Healthy));
            let to = destination::behind_waypoint_to_workload(workload.ok_or_else(gone)?, dialled);
            return Ok(Chosen { to: To::At(Endpoint::of(to)?), port, ready, state: None });
        }
        let choices = ready.choices.as_ref();
        let choices = choices.map_err(|reason| refuse(destination::no_endpoint(service, dialled.port(), *reason)))?;
        let hash_of = hashed_by(service, &ready.policy.balancing).and_then(hashed);
        let mut tried = 0;
        loop {
            let random = rand::random();
            let place = place(choices, &ready, &port, (hash_of, tried), random);
            let choice = &choices.all()[place];
            let to = (&choice.workload, choice.port);
            let to = match destination::behind_waypoint(tables, waypoint, service, dialled, to, random) {
                Destination::Resolve(name) => To::Named(name),
                destination => To::At(Endpoint::of(destination)?),
            };
            tried += 1;
            if tried < TRIES && not.is_some_and(|not| matches!(&to, To::At(endpoint) if endpoint.address() == not)) {
                continue;
            }
            let state = ready.states.get(place).cloned();
            return Ok(Chosen { to, port, ready, state });
        }
    })
}

fn place(
    choices: &Choices,
    ready: &Ready,
    port: &ServicePort,
    (hash_of, tried): (Option<u64>, u64),
    random: u64,
) -> usize {
    match (hash_of, &ready.policy.balancing) {
        (Some(of), _) if tried == 0 => choices.one(By::Hash(of)),
        (Some(of), _) => choices.one(By::Hash(hash(tried, &of.to_le_bytes()))),
        (None, Balancing::RoundRobin) => choices.one(By::Turn(port.next_turn())),
        (None, Balancing::Random | Balancing::Hash(..)) => choices.one(By::Random(random)),
        (None, Balancing::LeastRequest) => {
            choices.less_busy(random, |one| ready.states.get(one).map_or(0, |state| state.active()))
        }
        (None, Balancing::PeakEwma(ewma)) => {
            let now = port.clock.now();
            choices.cheaper(random, |one| ready.states.get(one).map_or(0.0, |state| state.cost(ewma, now)))
        }
    }
}

/// The hash of a caller's address.
pub(crate) fn hash_of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(0, &address.octets()),
        IpAddr::V6(address) => hash(0, &address.octets()),
    }
}
