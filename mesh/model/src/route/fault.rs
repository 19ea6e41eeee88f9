//! What is done to some requests on purpose, to see how callers bear it (HTTPFaultInjection).

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::select::Matched;
use super::{Rule, cors};
use crate::http::Request;

/// Of how many a share is.
const MILLION: u64 = 1_000_000;

/// A rule's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fault {
    /// First.
    pub delay: Option<Delay>,
    /// Then.
    pub abort: Option<Abort>,
}

/// Requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// So long. Never zero.
    pub length: Duration,
    /// So many, in millionths.
    pub millionths: u32,
}

/// Requests are answered by the waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// By this: 200 to 599.
    pub status: StatusCode,
    /// So many, in millionths.
    pub millionths: u32,
}

/// What is done to one request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Injected {
    /// It waits, and what the log says of that.
    pub delay: Option<(Duration, String)>,
    /// It is answered with this status instead of being sent on, and what the log says of that.
    pub abort: Option<(StatusCode, String)>,
}

impl Matched {
    /// What is done to a request on purpose. `roll` gives random numbers. What a browser asks before it asks is answered as it would be
    /// without.
    pub fn inject(&self, request: &Request, headers: &HeaderMap, mut roll: impl FnMut() -> u64) -> Injected {
        let Some(fault) = &self.rule().fault else { return Injected::default() };
        let cors = self.rule.filters.as_ref().ok().and_then(|filters| filters.cors.as_ref());
        if cors.is_some_and(|cors| cors::preflight(cors, request, headers).is_some()) {
            return Injected::default();
        }
        let rule = self.rule();
        let mut falls = |millionths: u32| roll() % MILLION < millionths.into();
        let delay = fault.delay.filter(|delay| falls(delay.millionths));
        let abort = fault.abort.filter(|abort| falls(abort.millionths));
        Injected {
            delay: delay.map(|delay| (delay.length, told(rule, &format!("delayed it by {:?}", delay.length)))),
            abort: abort
                .map(|Abort { status, .. }| (status, told(rule, &format!("answered it with {}", status.as_u16())))),
        }
    }
}

fn told(rule: &Rule, what: &str) -> String {
    format!("the fault of {} of VirtualService {} {what}", rule.name, rule.route)
}

#[cfg(test)]
mod tests;
