//! The endpoints that a waypoint chooses among, made ready: which they are is found out when something changes, not for each request.
//!
//! Which ones: as [`choose`](super::choose) has it, those of the best rank that are healthy and have a weight, and of these those that are
//! not ejected. Where too few of all are left, ejections do not count (Envoy's panic threshold).

use std::collections::HashSet;
use std::sync::Arc;

use super::hash::{Lookup, hash};
use super::warmup::SCALE;
use super::{NoEndpoint, nonzero, own_port, rank};
use crate::service::Service;
use crate::traffic::{Balancing, HashBy, HashTable};
use crate::workload::Workload;

/// One of them.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Who serves it.
    pub workload: Arc<Workload>,
    /// Port of the application.
    pub port: u16,
    weight: u32,
}

/// The endpoints that a waypoint chooses among: never none.
#[derive(Clone, Debug)]
pub struct Choices {
    all: Vec<Choice>,
    /// The sums of weights up to each; empty where all weigh the same.
    sums: Vec<u64>,
    total: u64,
    stride: u64,
    lookup: Option<Lookup>,
}

/// What decides between them. Chance is an argument.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// Chance.
    Random(u64),
    /// The turn: numbers in a row.
    Turn(u64),
    /// A hash. Of the endpoints of a service without a table for it, chance decides.
    Hash(u64),
}

impl Choices {
    /// Those of `service` that serve `port`, for `waypoint`. `ejected` says who is to be left out, unless fewer than
    /// `min_health_percent` of 100 were left.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(
        (service, port): (&Service, u16),
        endpoints: &[Arc<Workload>],
        waypoint: &Workload,
        balancing: &Balancing,
        (ejected, min_health_percent): (&HashSet<Arc<str>>, u8),
    ) -> Result<Self, NoEndpoint> {
        let mapping = service.ports.iter().find(|p| p.service_port == port).ok_or(NoEndpoint::Port(port))?;
        let mut ranked: Vec<(usize, Choice)> = Vec::new();
        for workload in endpoints {
            let Some(target) = own_port(service, workload, port).or(nonzero(mapping.target_port)) else { continue };
            let by_gateway = workload.network != waypoint.network && workload.network_gateway.is_some();
            let reachable = !workload.addresses.is_empty() || !workload.hostname.is_empty() || by_gateway;
            let healthy = workload.healthy || service.load_balancing.allow_unhealthy;
            let Some(rank) = rank(&service.load_balancing, waypoint, workload) else { continue };
            if reachable && healthy && workload.capacity > 0 {
                ranked.push((rank, Choice { workload: workload.clone(), port: target, weight: workload.capacity }));
            }
        }
        let stays = |choice: &Choice| !ejected.contains(&choice.workload.uid);
        let staying = ranked.iter().filter(|(_, choice)| stays(choice)).count();
        let panics = staying * 100 < ranked.len() * usize::from(min_health_percent);
        ranked.retain(|(_, choice)| panics || stays(choice));
        let best = ranked.iter().map(|(rank, _)| *rank).max().ok_or(NoEndpoint::Healthy)?;
        let best = ranked.into_iter().filter(|(rank, _)| *rank == best).map(|(_, choice)| choice);
        // One order for all waypoints, whatever order the tables have.
        let mut all: Vec<Choice> = best.collect();
        let table = match balancing {
            Balancing::Hash(_, table) => Some(*table),
            _ if service.has_client_ip_affinity() => Some(HashTable::default()),
            _ => None,
        };
        if table.is_some() {
            all.sort_by(|a, b| a.workload.uid.cmp(&b.workload.uid));
        }
        let lookup = table.map(|table| {
            let members: Vec<_> = all.iter().map(|choice| (&*choice.workload.uid, choice.weight)).collect();
            Lookup::new(table, &members)
        });
        Ok(Self::with(all, lookup))
    }

    fn with(all: Vec<Choice>, lookup: Option<Lookup>) -> Self {
        let first = all.first().map_or(1, |choice| choice.weight);
        let alike = all.iter().all(|choice| choice.weight == first);
        let mut sum = 0;
        let mut add = |choice: &Choice| {
            sum += u64::from(choice.weight);
            sum
        };
        let sums: Vec<u64> = if alike { Vec::new() } else { all.iter().map(&mut add).collect() };
        let total = sums.last().copied().unwrap_or(all.len() as u64);
        Self { stride: stride(total, alike), all, sums, total, lookup }
    }

    /// The same, where each has this share of its weight, at most 1: but never nothing. Hashes find whom they found before.
    pub fn warmed(self, share: impl Fn(&str) -> f64) -> Self {
        let warmed = |mut choice: Choice| {
            // A weight of more than four millions has no room to be told from a larger one, and no use for it.
            let weight = f64::from(choice.weight) * f64::from(SCALE) * share(&choice.workload.uid);
            choice.weight = (weight as u32).max(1);
            choice
        };
        Self::with(self.all.into_iter().map(warmed).collect(), self.lookup)
    }

    /// All of them.
    pub fn all(&self) -> &[Choice] {
        &self.all
    }

    /// One, by its place in [`Self::all`].
    pub fn one(&self, by: By) -> usize {
        match (by, &self.lookup) {
            (By::Hash(hash), Some(lookup)) => lookup.find(hash),
            (By::Random(number) | By::Hash(number), _) => {
                // A number below the total, which is a u64.
                self.at(((u128::from(number) * u128::from(self.total)) >> 64) as u64)
            }
            (By::Turn(turn), _) => self.at((turn % self.total).wrapping_mul(self.stride) % self.total),
        }
    }

    /// Of two that chance names, the one with less to do for its weight. `active` says how much one has to do.
    pub fn less_busy(&self, random: u64, active: impl Fn(usize) -> u32) -> usize {
        let (first, second) = self.two(random);
        let load = |one: usize, other: usize| u64::from(active(one)) * u64::from(self.all[other].weight);
        if load(second, first) < load(first, second) { second } else { first }
    }

    /// Of two that chance names, the one that costs less for its weight.
    pub fn cheaper(&self, random: u64, cost: impl Fn(usize) -> f32) -> usize {
        let (first, second) = self.two(random);
        let cost = |one: usize| f64::from(cost(one)) / f64::from(self.all[one].weight);
        if cost(second) < cost(first) { second } else { first }
    }

    fn two(&self, random: u64) -> (usize, usize) {
        let (first, second) = (self.one(By::Random(random)), self.one(By::Random(hash(random, &[]))));
        match first == second && self.sums.is_empty() {
            true => (first, (first + 1) % self.all.len()),
            false => (first, second),
        }
    }

    /// Whose turn a point below the total is.
    fn at(&self, point: u64) -> usize {
        match self.sums.is_empty() {
            true => usize::try_from(point).unwrap_or_default(),
            false => self.sums.partition_point(|sum| *sum <= point),
        }
        .min(self.all.len() - 1)
    }
}

/// How far turns are apart, so that those of a heavy endpoint do not come in a row: about the golden section of the total, and with
/// no divisor in common with it, so that each point has its turn.
fn stride(total: u64, alike: bool) -> u64 {
    if alike || total < 3 || total > u64::from(u32::MAX) {
        return 1;
    }
    let common = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = (total * 618_034 / 1_000_000).max(1);
    (golden..total).find(|stride| common(*stride, total) == 1).unwrap_or(1)
}

/// What is hashed of the caller where nothing else is said: Kubernetes' `sessionAffinity: ClientIP`.
pub fn hashed_by<'a>(service: &Service, balancing: &'a Balancing) -> Option<&'a HashBy> {
    match balancing {
        Balancing::Hash(by, _) => Some(by),
        _ if service.has_client_ip_affinity() => Some(&HashBy::SourceIp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
