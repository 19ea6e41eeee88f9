//! Outlier detection: an endpoint that answers nothing but errors gets no requests for a while. As Envoy does it. Pure: times are
//! durations since any one moment, the same for all calls.
//!
//! ```text
//! healthy ──consecutive errors──▶ ejected for baseEjectionTime × how often ──at the first interval after that──▶ healthy
//! ```
//!
//! An endpoint that stays healthy is forgiven one ejection in each interval.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// The longest ejection, unless `baseEjectionTime` is longer: Envoy's `max_ejection_time`.
const LONGEST: Duration = Duration::from_secs(300);

/// `outlierDetection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// `consecutive5xxErrors`; 0 is never.
    pub server_errors: u32,
    /// `consecutiveGatewayErrors`: 502, 503 and 504; 0 is never.
    pub gateway_errors: u32,
    /// `consecutiveLocalOriginFailures` where `splitExternalLocalOriginErrors` is set: connections that fail are counted apart.
    /// `None`: each counts as a 503 or 504.
    pub local_failures: Option<u32>,
    /// How often it is looked who may return. Never zero.
    pub interval: Duration,
    /// How long the first ejection lasts, at least.
    pub base_ejection_time: Duration,
    /// How many of 100 endpoints may be ejected at once.
    pub max_ejection_percent: u8,
    /// With fewer healthy ones of 100 all get requests, ejected or not.
    pub min_health_percent: u8,
}

impl Default for Detection {
    /// Istio's.
    fn default() -> Self {
        Self {
            server_errors: 5,
            gateway_errors: 0,
            local_failures: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

/// How a request or a connection ended, as far as its endpoint has a part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, with this status.
    Answered(u16),
    /// It took a connection of which nothing else is known.
    Connected,
    /// It could not be reached, or broke off.
    Failed,
    /// It did not answer in time.
    TimedOut,
}

impl Outcome {
    /// Nothing that could lead to an ejection.
    pub fn is_good(self) -> bool {
        match self {
            Self::Answered(status) => status < 500,
            Self::Connected => true,
            Self::Failed | Self::TimedOut => false,
        }
    }
}

/// The HTTP status that a call counts as that ended with this status of gRPC: Envoy's table.
pub fn status_of_grpc(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `consecutive5xxErrors`.
    ServerErrors,
    /// `consecutiveGatewayErrors`.
    GatewayErrors,
    /// `consecutiveLocalOriginFailures`.
    LocalFailures,
}

impl Cause {
    /// Envoy's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerErrors => "consecutive_5xx",
            Self::GatewayErrors => "consecutive_gateway_failure",
            Self::LocalFailures => "consecutive_local_origin_failure",
        }
    }
}

/// What follows from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Stays,
    /// It gets no more requests, at least for so long.
    Ejected(Cause, Duration),
    /// It would be ejected if that were not one more than `maxEjectionPercent` allows.
    Spared(Cause),
}

/// What is remembered of endpoints, which are told apart by `K`. Those that do nothing wrong take no room.
#[derive(Clone, Debug)]
pub struct Outliers<K> {
    records: HashMap<K, Record>,
    /// When it is looked next who may return.
    next: Duration,
}

/// What is remembered of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    server: u32,
    gateway: u32,
    local: u32,
    ejected_at: Option<Duration>,
    /// How many times as long as the first the next ejection lasts.
    times: u32,
}

impl Record {
    /// It gets no requests.
    pub fn is_ejected(&self) -> bool {
        self.ejected_at.is_some()
    }

    /// Ejections that are not forgiven yet.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Errors in a row.
    pub fn errors(&self) -> u32 {
        self.server.max(self.gateway).max(self.local)
    }

    fn lasts(&self, detection: &Detection) -> Duration {
        let base = detection.base_ejection_time;
        base.saturating_mul(self.times).min(base.max(LONGEST))
    }
}

impl<K: Hash + Eq + Clone> Outliers<K> {
    /// Nothing is known of anybody at `now`.
    pub fn new(now: Duration) -> Self {
        Self { records: HashMap::new(), next: now }
    }

    /// What is remembered of an endpoint; nothing of one that has done nothing wrong.
    pub fn of(&self, endpoint: &K) -> Option<&Record> {
        self.records.get(endpoint)
    }

    /// How many are ejected.
    pub fn ejected(&self) -> usize {
        self.records.values().filter(|record| record.is_ejected()).count()
    }

    /// Who is ejected.
    pub fn all_ejected(&self) -> impl Iterator<Item = &K> {
        self.records.iter().filter(|(_, record)| record.is_ejected()).map(|(endpoint, _)| endpoint)
    }

    /// Takes an outcome in. `total` is how many endpoints the service has.
    pub fn record(
        &mut self,
        detection: &Detection,
        endpoint: &K,
        outcome: Outcome,
        total: usize,
        now: Duration,
    ) -> Verdict {
        if outcome.is_good() && !self.records.contains_key(endpoint) {
            return Verdict::Stays;
        }
        let record = self.records.entry(endpoint.clone()).or_default();
        let Some(cause) = count(record, detection, outcome) else { return Verdict::Stays };
        if record.is_ejected() {
            // What was under way before.
            return Verdict::Stays;
        }
        let one_more = self.ejected() + 1;
        if one_more * 100 > total * usize::from(detection.max_ejection_percent) {
            return Verdict::Spared(cause);
        }
        let Some(record) = self.records.get_mut(endpoint) else { return Verdict::Stays };
        record.ejected_at = Some(now);
        // Counting on past the longest would only make it forgiven later.
        if record.times == 0 || record.lasts(detection) < detection.base_ejection_time.max(LONGEST) {
            record.times = record.times.saturating_add(1);
        }
        Verdict::Ejected(cause, record.lasts(detection))
    }

    /// When [`Self::check`] has something to do again.
    pub fn next_check(&self) -> Duration {
        self.next
    }

    /// Looks who may return, once in each interval: gives them.
    pub fn check(&mut self, detection: &Detection, now: Duration) -> Vec<K> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + detection.interval;
        let mut back = Vec::new();
        for (endpoint, record) in &mut self.records {
            match record.ejected_at {
                Some(since) if since + record.lasts(detection) <= now => {
                    // What was counted towards other limits is of the time before.
                    *record = Record { times: record.times, ..Record::default() };
                    back.push(endpoint.clone());
                }
                Some(_) => {}
                None => record.times = record.times.saturating_sub(1),
            }
        }
        self.records.retain(|_, record| *record != Record::default());
        back
    }

    /// Forgets endpoints that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.records.retain(|endpoint, _| is_there(endpoint));
    }
}

/// Counts an outcome: the limit that is reached by it. The count begins anew then.
fn count(record: &mut Record, detection: &Detection, outcome: Outcome) -> Option<Cause> {
    let (server, gateway, local) = match (outcome, detection.local_failures) {
        (Outcome::Answered(status), _) => (status >= 500, (502..=504).contains(&status), false),
        (Outcome::Connected, None) => (false, false, false),
        (Outcome::Failed | Outcome::TimedOut, None) => (true, true, false),
        // Counted apart: what endpoints answer says nothing about it, nor it about that.
        (Outcome::Connected, Some(_)) => {
            record.local = 0;
            return None;
        }
        (Outcome::Failed | Outcome::TimedOut, Some(_)) => (false, false, true),
    };
    if local {
        return reached(&mut record.local, detection.local_failures.unwrap_or_default())
            .then_some(Cause::LocalFailures);
    }
    record.local = 0;
    if !gateway {
        record.gateway = 0;
    }
    if !server {
        record.server = 0;
        return None;
    }
    let by_gateway = gateway && reached(&mut record.gateway, detection.gateway_errors);
    let by_server = reached(&mut record.server, detection.server_errors);
    match (by_gateway, by_server) {
        (true, _) => Some(Cause::GatewayErrors),
        (false, true) => Some(Cause::ServerErrors),
        (false, false) => None,
    }
}

/// Counts one more; whether that is the limit. 0 is no limit, and nothing is counted.
fn reached(count: &mut u32, limit: u32) -> bool {
    if limit == 0 {
        return false;
    }
    *count = count.saturating_add(1);
    let is_reached = *count >= limit;
    if is_reached {
        *count = 0;
    }
    is_reached
}

#[cfg(test)]
mod tests;
