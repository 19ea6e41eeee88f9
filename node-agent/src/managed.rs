//! One pod as the agent manages it: what is wanted of it, what has been done to it, and when to try again. No I/O.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::enroll::Enrolment;
use crate::enrolled::{self, Redirection};
use crate::netns::Place;
use crate::operations::Sandbox;
use crate::outside::{Outside, Why};
use crate::pods::Pod;
use crate::reconcile::{Held, Stage, Step, Wanted, step};
use crate::redirect::Settings;

/// The wait after a pod's first failure; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How long a pod that leaves is served for those whose tables do not say so (yet).
const LEAVE: Duration = Duration::from_secs(10);
/// How long a CNI call waits for everybody's tables; its caller gives up after five seconds.
const CALL: Duration = Duration::from_secs(4);
/// Why a pod that ztunnel serves is not captured.
const AWAITS_TABLES: &str = "waits until every ztunnel has acknowledged that the pod takes HBONE";

/// One pod.
pub(crate) struct Managed {
    /// As the list has it; the last version of it when it is `gone`.
    pub(crate) pod: Pod,
    pub(crate) gone: bool,
    pub(crate) enrolment: Enrolment,
    pub(crate) settings: Settings,
    /// Where a CNI call said that its namespace is, or it was found; comes before the list's.
    pub(crate) told_place: Option<Place>,
    pub(crate) reached: Reached,
    /// Since when it waits for everybody's tables, if it does.
    awaits_tables: Option<Instant>,
    turn: Turn,
    attempts: Attempts,
    /// Until when each may be kept waiting for tables.
    callers: Vec<(Instant, oneshot::Sender<Result<(), String>>)>,
}

/// What has been done to a pod.
pub(crate) enum Reached {
    /// Nothing.
    Nothing,
    /// [`Stage::Opened`].
    Opened(Sandbox),
    /// [`Stage::Serving`].
    Serving(Sandbox),
    /// [`Stage::Captured`].
    Captured {
        held: Sandbox,
        /// Why, if at the last check the rules were not as they should be and could not be mended.
        lost: Option<String>,
    },
    /// [`Stage::Leaving`].
    Leaving(Sandbox),
}

/// Whether an operation on a pod is under way: one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Idle,
    Busy {
        /// Something changed meanwhile: if it fails, try again at once.
        again: bool,
    },
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    retry_at: Option<Instant>,
    last_error: Option<(Why, String)>,
}

impl Reached {
    /// `held`, at a stage; nothing without it.
    pub(crate) fn at(stage: Stage, held: Option<Sandbox>) -> Self {
        let Some(held) = held else { return Self::Nothing };
        match stage {
            Stage::Opened => Self::Opened(held),
            Stage::Serving => Self::Serving(held),
            Stage::Captured => Self::Captured { held, lost: None },
            Stage::Leaving => Self::Leaving(held),
        }
    }

    /// What is held of the pod.
    pub(crate) fn held(&self) -> Option<&Sandbox> {
        match self {
            Self::Nothing => None,
            Self::Opened(held) | Self::Serving(held) | Self::Captured { held, .. } | Self::Leaving(held) => Some(held),
        }
    }

    /// How far it is.
    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::Nothing | Self::Opened(_) => Stage::Opened,
            Self::Serving(_) => Stage::Serving,
            Self::Captured { .. } => Stage::Captured,
            Self::Leaving(_) => Stage::Leaving,
        }
    }

    /// Comes to a stage, with what is held there if that is new. Rules that are lost stay lost until they are found again.
    pub(crate) fn come_to(&mut self, stage: Stage, held: Option<Sandbox>) {
        let still_lost = match self {
            Self::Captured { lost, .. } => lost.take(),
            _ => None,
        };
        *self = Self::at(stage, held.or_else(|| self.held().cloned()));
        if let Self::Captured { lost, .. } = self {
            *lost = still_lost;
        }
    }

    /// What the last check of the rules of a captured pod found. True if something is wrong that the check before did not
    /// find.
    pub(crate) fn checked(&mut self, wrong: Option<String>) -> bool {
        let Self::Captured { lost, .. } = self else { return wrong.is_some() };
        let news = wrong.is_some() && *lost != wrong;
        *lost = wrong;
        news
    }
}

impl Managed {
    pub(crate) fn new(pod: &Pod, enrolment: Enrolment, settings: &Settings) -> Self {
        Self {
            pod: pod.clone(),
            gone: false,
            enrolment,
            settings: settings.clone(),
            told_place: None,
            reached: Reached::Nothing,
            awaits_tables: None,
            turn: Turn::Idle,
            attempts: Attempts::default(),
            callers: Vec::new(),
        }
    }

    /// Takes in what the list has of it.
    pub(crate) fn want(&mut self, pod: &Pod, enrolment: Enrolment, settings: Settings) {
        self.gone = false;
        let mut pod = pod.clone();
        // A CNI call says them first.
        if pod.ips.is_empty() {
            pod.ips.clone_from(&self.pod.ips);
        }
        if self.pod != pod || self.enrolment != enrolment {
            self.pod = pod;
            self.enrolment = enrolment;
            self.settings = settings;
            // What was wrong may have been mended.
            self.attempts.failures = 0;
            self.retry_soon();
        }
    }

    /// Takes in a CNI call, which is answered once it is known what becomes of the pod.
    pub(crate) fn called(&mut self, caller: oneshot::Sender<Result<(), String>>) {
        self.retry_soon();
        self.callers.push((Instant::now() + CALL, caller));
    }

    /// It is to be in the mesh, or something has been done to it.
    pub(crate) fn matters(&self) -> bool {
        !self.gone && (matches!(self.enrolment, Enrolment::In(_)) || self.reached.held().is_some())
    }

    /// Where its network namespace is, as far as that is known.
    pub(crate) fn place(&self) -> Option<Place> {
        self.told_place.clone().or_else(|| self.pod.netns.clone().map(Place::Path))
    }

    /// What to do about it at `now`, unless that has to wait; answers callers who need not wait for more.
    pub(crate) fn next_step(&mut self, now: Instant) -> Option<Step> {
        let next = self.step(now);
        self.awaits_tables = (next == Step::AwaitTables).then(|| self.awaits_tables.unwrap_or(now));
        match next {
            Step::Rest => self.answer(&Ok(())),
            Step::AwaitTables => self.answer_late(now),
            _ => {}
        }
        let waits = matches!(next, Step::Rest | Step::AwaitTables | Step::AwaitNetns);
        (!waits && self.attempts.retry_at.is_none_or(|at| at <= now)).then_some(next)
    }

    fn step(&self, now: Instant) -> Step {
        let place = self.place();
        let wanted = Wanted {
            enrolment: self.enrolment,
            settings: &self.settings,
            netns: place.as_ref(),
            known_as: self.pod.known_as,
        };
        let held = self.reached.held().map(|held| Held {
            settings: &held.settings,
            netns: &held.place,
            stage: self.reached.stage(),
            waited_out: self.awaits_tables.is_some_and(|since| now >= since + LEAVE),
        });
        step((!self.gone).then_some(wanted), held)
    }

    /// When it has to be looked at, whatever happens until then.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let retry = self.attempts.retry_at.filter(|_| !self.is_busy());
        let waited_out = self.awaits_tables.map(|since| since + LEAVE);
        retry.into_iter().chain(waited_out).chain(self.callers.iter().map(|(deadline, _)| *deadline))
    }

    /// It is captured, as far as we know.
    pub(crate) fn is_complete(&self) -> bool {
        self.reached.stage() == Stage::Captured
    }

    /// It is gone, and so is all that was done to it.
    pub(crate) fn is_over(&self) -> bool {
        self.gone && self.reached.held().is_none() && !self.is_busy()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.turn != Turn::Idle
    }

    /// An operation begins.
    pub(crate) fn begin(&mut self) {
        self.turn = Turn::Busy { again: false };
    }

    /// An operation has ended; true if something changed meanwhile.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::replace(&mut self.turn, Turn::Idle) == Turn::Busy { again: true }
    }

    /// Whether something changed while an operation was under way; asked once.
    pub(crate) fn take_again(&mut self) -> bool {
        match &mut self.turn {
            Turn::Busy { again } => std::mem::take(again),
            Turn::Idle => false,
        }
    }

    /// What it waits for may have come.
    pub(crate) fn retry_soon(&mut self) {
        self.attempts.retry_at = None;
        if let Turn::Busy { again } = &mut self.turn {
            *again = true;
        }
    }

    pub(crate) fn succeed(&mut self) {
        self.attempts = Attempts::default();
    }

    /// An attempt has failed; the next is made at once with `again`, and else after a while. True if it failed in another
    /// way than the attempt before, which people are to be told of: a pod that waits for its ztunnel is tried often.
    pub(crate) fn fail(&mut self, why: Why, error: &impl ToString, again: bool) -> bool {
        let Attempts { failures, retry_at, last_error } = &mut self.attempts;
        let wait = FIRST_RETRY.saturating_mul(2u32.saturating_pow(*failures)).min(LONGEST_RETRY);
        *failures = failures.saturating_add(1);
        *retry_at = (!again).then(|| Instant::now() + wait);
        let error = Some((why, error.to_string()));
        let news = *last_error != error;
        *last_error = error;
        news
    }

    pub(crate) fn answer(&mut self, outcome: &Result<(), String>) {
        for (_, caller) in self.callers.drain(..) {
            let _ = caller.send(outcome.clone());
        }
    }

    /// Answers those who have waited for tables for long enough.
    fn answer_late(&mut self, now: Instant) {
        let (late, waiting) = std::mem::take(&mut self.callers).into_iter().partition(|(deadline, _)| *deadline <= now);
        self.callers = waiting;
        for (_, caller) in late {
            let _ = caller.send(Err(AWAITS_TABLES.to_owned()));
        }
    }

    /// As others are told.
    pub(crate) fn state(&self) -> enrolled::Enrolled {
        let because = || self.enrolment.to_string();
        let (redirection, reason) = match (self.enrolment, self.reached.stage()) {
            (_, Stage::Leaving) => (Redirection::Leaving, "it leaves the mesh; its peers are told".to_owned()),
            (Enrolment::Out(_), _) => (Redirection::Disabled, because()),
            (Enrolment::In(_), Stage::Captured) => (Redirection::Enabled, because()),
            (Enrolment::In(_), Stage::Serving) => (Redirection::Joining, self.why_pending().1),
            (Enrolment::In(_), Stage::Opened) => (Redirection::Pending, self.why_pending().1),
        };
        enrolled::Enrolled { redirection, reason }
    }

    /// Why it is not complete.
    fn why_pending(&self) -> (Why, String) {
        let waiting = || match self.step(Instant::now()) {
            Step::AwaitTables => (Why::Tables, AWAITS_TABLES.to_owned()),
            Step::AwaitNetns => (Why::NoNetns, "the pod has no network namespace yet".to_owned()),
            _ => (Why::UnderWay, "being enrolled".to_owned()),
        };
        self.attempts.last_error.clone().unwrap_or_else(waiting)
    }

    /// If it should be in the mesh and is not, or not for certain.
    pub(crate) fn outside(&self) -> Option<Outside> {
        if self.gone || !matches!(self.enrolment, Enrolment::In(_)) {
            return None;
        }
        let (why, detail) = match &self.reached {
            Reached::Captured { lost: None, .. } => return None,
            Reached::Captured { lost: Some(error), .. } => (Why::RulesLost, error.clone()),
            _ => self.why_pending(),
        };
        let Pod { uid, namespace, name, .. } = &self.pod;
        Some(Outside { uid: uid.clone(), namespace: namespace.clone(), name: name.clone(), why, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::Because;
    use crate::redirect::settings::Defaults;

    /// What happens to a pod one after the other, and of which failures people are told.
    #[test]
    fn a_failure_is_news_once() {
        let pod = Pod::default();
        let (settings, _) = Settings::of(&pod, Defaults { ipv6: true, dns_capture: true, probes_any_port: false });
        let mut managed = Managed::new(&pod, Enrolment::In(Because::PodLabel), &settings);
        let mut fail = |why, text: &str, again| managed.fail(why, &text, again);
        assert!(fail(Why::NoZtunnel, "no ztunnel is connected", false));
        // Tried every few milliseconds while a mesh starts.
        for again in [false, true, false] {
            assert!(!fail(Why::NoZtunnel, "no ztunnel is connected", again));
        }
        assert!(fail(Why::Refused, "ztunnel refused the pod: ports", false));
        assert!(fail(Why::NoZtunnel, "no ztunnel is connected", false), "it has changed twice");
        managed.succeed();
        assert!(managed.fail(Why::NoZtunnel, &"no ztunnel is connected", false), "it was well in between");
        assert_eq!(managed.why_pending(), (Why::NoZtunnel, "no ztunnel is connected".to_owned()));
    }
}
