//! Who leads, and what is to be done about it now. Pure: time is given.
//!
//! As client-go does it: a lease that another holds is expired when it was not seen to change for as long as it says, counted by
//! our own clock from when we saw it. So clocks may differ; only their speed must be about the same. A leader that could not
//! renew for [`RENEW_DEADLINE`] stops leading before anybody else can take over, which is [`DURATION`] after its last renewal at
//! the earliest.

use std::time::{Duration, Instant, SystemTime};

use super::lease::Lease;

/// How long a lease is its holder's after each renewal: after a leader was killed, nobody leads for at most this long.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a leader leads. The rest of [`DURATION`] is for what it has under way, and for clocks that
/// are slow.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked at, and renewed.
pub const RETRY: Duration = Duration::from_secs(2);

/// One candidate.
#[derive(Debug)]
pub struct Election {
    identity: String,
    /// What the lease said last, and when it began to say so.
    seen: Option<(Lease, Instant)>,
    /// When the last renewal of ours was sent that was taken; None while another leads, or nobody.
    renewed: Option<Instant>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this, if nobody has written since.
    Write(Lease),
    /// Look again after this.
    Wait(Duration),
}

impl Election {
    /// `identity` must be nobody else's.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed: None }
    }

    /// The lease says this, or there is none.
    pub fn found(&mut self, lease: Option<Lease>, now: Instant, wall: SystemTime) -> Next {
        let Some(lease) = lease else {
            self.seen = None;
            return Next::Write(Lease::held(None, &self.identity, DURATION, wall));
        };
        let since = match &self.seen {
            Some((before, since)) if *before == lease => *since,
            _ => now,
        };
        let (ours, free) = (lease.holder_identity == self.identity, lease.is_free());
        let expires = since + lease.duration();
        let held = Lease::held(Some(&lease), &self.identity, DURATION, wall);
        self.seen = Some((lease, since));
        if ours || free || now >= expires {
            return Next::Write(held);
        }
        self.renewed = None;
        Next::Wait(RETRY.min(expires - now))
    }

    /// What was to be written is written; `sent` is when we began to send it.
    pub fn written(&mut self, lease: Lease, sent: Instant) {
        self.seen = Some((lease, sent));
        self.renewed = Some(sent);
    }

    /// For how long we lead, if nothing more is heard. None while we do not.
    pub fn leads_for(&self, now: Instant) -> Option<Duration> {
        let left = (self.renewed? + RENEW_DEADLINE).saturating_duration_since(now);
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether we lead.
    pub fn leads(&self, now: Instant) -> bool {
        self.leads_for(now).is_some()
    }

    /// Who leads, as far as was seen.
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().map(|(lease, _)| &*lease.holder_identity).filter(|holder| !holder.is_empty())
    }

    /// What to write to let it go, if the lease that was found is ours.
    pub fn release(&mut self, found: &Lease, wall: SystemTime) -> Option<Lease> {
        self.renewed = None;
        (found.holder_identity == self.identity).then(|| found.released(wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, one step after the other.
    #[derive(Clone, Debug)]
    enum Step {
        /// Candidate looks, and what it then has to write is written.
        Look(usize),
        /// Candidate looks, and its write does not arrive.
        Fail(usize),
        /// Candidate looks, and another write comes first: that of this candidate.
        Conflict(usize, usize),
        Pass(Duration),
        Release(usize),
        /// Somebody deletes the lease.
        Delete,
    }

    /// Candidates "a", "b" and "c", whose wall clocks differ by hours, around one lease.
    struct Stage {
        all: [Election; 3],
        lease: Option<Lease>,
        now: Instant,
        passed: Duration,
    }

    impl Stage {
        fn new() -> Self {
            let all = ["a", "b", "c"].map(|name| Election::new(name.to_owned()));
            Self { all, lease: None, now: Instant::now(), passed: Duration::ZERO }
        }

        /// b is five hours ahead of a, and c is behind.
        fn wall(&self, who: usize) -> SystemTime {
            let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + self.passed;
            [noon, noon + Duration::from_secs(18_000), noon - Duration::from_secs(18_000)][who]
        }

        fn look(&mut self, who: usize, arrives: bool) {
            let (wall, now) = (self.wall(who), self.now);
            if let Next::Write(lease) = self.all[who].found(self.lease.clone(), now, wall)
                && arrives
            {
                self.lease = Some(lease.clone());
                self.all[who].written(lease, now);
            }
        }

        fn step(&mut self, step: &Step) {
            match *step {
                Step::Look(who) => self.look(who, true),
                Step::Fail(who) => self.look(who, false),
                Step::Conflict(who, first) => {
                    let there = self.lease.clone();
                    self.look(first, true);
                    let (wall, now) = (self.wall(who), self.now);
                    // What it then writes is of an older version, and refused.
                    let _ = self.all[who].found(there, now, wall);
                }
                Step::Pass(time) => {
                    self.now += time;
                    self.passed += time;
                }
                Step::Release(who) => {
                    let (wall, found) = (self.wall(who), self.lease.clone().expect("a lease"));
                    self.lease = self.all[who].release(&found, wall).or(Some(found));
                }
                Step::Delete => self.lease = None,
            }
            let leaders = self.all.iter().filter(|candidate| candidate.leads(self.now)).count();
            assert!(leaders <= 1, "two lead after {step:?}");
        }
    }

    #[test]
    fn who_leads_when() {
        use Step::{Conflict, Delete, Fail, Look, Pass, Release};
        let seconds = |seconds| Pass(Duration::from_secs(seconds));
        let almost = |time: Duration| Pass(time - Duration::from_millis(1));
        let rest = || Pass(Duration::from_millis(1));
        let rows: Vec<(&str, Vec<Step>, Option<usize>, u64)> = vec![
            ("the first takes it", vec![Look(0), Look(1), Look(2)], Some(0), 0),
            ("and keeps it by renewing", vec![Look(0), Look(1), seconds(9), Look(0), seconds(9), Look(1)], Some(0), 0),
            // b is hours ahead and would think it expired long ago; c is behind and would wait for hours.
            ("clocks do not count", vec![Look(0), Look(1), seconds(2), Look(1), Look(2)], Some(0), 0),
            ("nobody leads without renewing", vec![Look(0), Pass(RENEW_DEADLINE)], None, 0),
            ("until then it leads", vec![Look(0), almost(RENEW_DEADLINE)], Some(0), 0),
            // b sees it at the moment at which it is taken.
            ("not taken before it is expired", vec![Look(0), Look(1), almost(DURATION), Look(1)], None, 0),
            ("taken once it is", vec![Look(0), Look(1), almost(DURATION), rest(), Look(1)], Some(1), 1),
            (
                "expiry is counted from when a change was seen",
                vec![Look(0), seconds(14), Look(1), almost(DURATION), Look(1)],
                None,
                0,
            ),
            (
                "each renewal begins the time anew",
                vec![Look(0), Look(2), seconds(8), Look(0), seconds(8), Look(2), almost(DURATION), Look(2)],
                None,
                0,
            ),
            ("a renewal that fails costs nothing", vec![Look(0), seconds(4), Fail(0), seconds(4), Look(0)], Some(0), 0),
            ("but no time is gained by it", vec![Look(0), seconds(4), Fail(0), seconds(6)], None, 0),
            (
                "who comes back after its time finds its own lease",
                vec![Look(0), seconds(12), Look(0), Look(1)],
                Some(0),
                0,
            ),
            (
                "who comes back after another has it follows",
                vec![Look(0), Look(1), Pass(DURATION), Look(1), Look(0)],
                Some(1),
                1,
            ),
            ("one of two who take it at once has it", vec![Conflict(1, 0), Look(1)], Some(0), 0),
            ("let go, the next has it at once", vec![Look(0), Look(1), Release(0), Look(1), Look(0)], Some(1), 1),
            ("who does not lead lets nothing go", vec![Look(0), Look(1), Release(1), Look(2)], Some(0), 0),
            ("let go, it leads no more", vec![Look(0), Release(0)], None, 0),
            ("deleted, its holder makes it anew", vec![Look(0), Delete, Look(0), Look(1)], Some(0), 0),
            ("and nobody leads twice", vec![Look(0), Pass(RENEW_DEADLINE), Delete, Look(1), Look(0)], Some(1), 0),
        ];
        for (what, steps, leader, transitions) in rows {
            let mut stage = Stage::new();
            steps.iter().for_each(|step| stage.step(step));
            let leads = (0..3).find(|who| stage.all[*who].leads(stage.now));
            assert_eq!(leads, leader, "{what}: {steps:?}");
            assert_eq!(stage.lease.unwrap().lease_transitions, transitions, "{what}: {steps:?}");
        }
    }

    #[test]
    fn who_follows_looks_again_in_time() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let lease = Lease::held(None, "a", DURATION, wall);
        let mut b = Election::new("b".to_owned());
        assert_eq!(b.found(Some(lease.clone()), now, wall), Next::Wait(RETRY));
        let late = now + DURATION - Duration::from_millis(300);
        assert_eq!(b.found(Some(lease.clone()), late, wall), Next::Wait(Duration::from_millis(300)));
        assert_eq!(b.holder(), Some("a"));
        assert!(matches!(b.found(Some(lease), now + DURATION, wall), Next::Write(_)));
    }
}
