//! What is asked of the API server next, and after how long. Pure.

use std::time::Duration;

use mesh_runtime::backoff::Backoff;

use crate::resource::Resource;

/// How often a kind that was there must be answered with "not found" before its objects are taken for gone: an API server that
/// has just started knows some kinds later than others.
const ABSENT: u32 = 3;
/// How often a watch may fail to go on from where it was before everything is asked for anew: the API server's store may
/// have been put back to an older state.
const RESUMPTIONS: u32 = 5;
/// Longest wait before a kind that is not installed is looked for again, and before anything else is tried again.
const LONGEST: Duration = Duration::from_secs(5);

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Everything, and what changes, in one answer.
    Stream,
    /// Everything, page by page.
    Pages,
    /// What changed since.
    Changes { since: String },
}

/// How asking ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The list is whole; this is its version.
    Listed { version: String },
    /// As it is meant to.
    Served,
    /// The server refuses, with HTTP's code.
    Refused { code: u16, message: String },
    /// No answer, or half of one.
    Broken(String),
}

/// What follows from an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// The kind is not there: it has no objects.
    pub(super) nothing: bool,
    /// Wait so long, or a part of it.
    pub(super) wait: Duration,
    /// What to tell who operates it.
    pub(super) trouble: Option<String>,
}

/// Where a watch stands.
#[derive(Debug)]
pub(super) struct Plan {
    resource: Resource,
    /// Index of the version in use.
    version: usize,
    /// The server can send everything as a stream, or was not asked yet.
    streams: bool,
    /// What was said is true as of this version of the whole.
    at: Option<String>,
    /// Everything was said once.
    told: bool,
    /// The last that was said is that there is nothing.
    empty: bool,
    /// How often in a row no version of the kind was found.
    absent: u32,
    /// How often in a row something else went wrong.
    failures: u32,
    backoff: Backoff,
}

impl Plan {
    pub(super) fn new(resource: Resource) -> Self {
        let backoff = Backoff::default();
        Self {
            resource,
            version: 0,
            streams: true,
            at: None,
            told: false,
            empty: false,
            absent: 0,
            failures: 0,
            backoff,
        }
    }

    /// The version of the kind to ask for.
    pub(super) fn version(&self) -> &'static str {
        self.resource.versions[self.version]
    }

    /// What to ask.
    pub(super) fn ask(&self) -> Ask {
        match &self.at {
            Some(since) => Ask::Changes { since: since.clone() },
            None if self.streams => Ask::Stream,
            None => Ask::Pages,
        }
    }

    /// The server said something of use: what was said is true as of `version`. Whether there was trouble before.
    pub(super) fn heard(&mut self, version: &str) -> bool {
        self.at = Some(version.to_owned());
        (self.told, self.empty) = (true, false);
        self.recovered()
    }

    fn recovered(&mut self) -> bool {
        self.absent = 0;
        self.backoff.reset();
        std::mem::take(&mut self.failures) > 0
    }

    /// What follows.
    pub(super) fn after(&mut self, end: End) -> Next {
        let go_on = Next { nothing: false, wait: Duration::ZERO, trouble: None };
        let (code, message) = match end {
            End::Listed { version } => {
                self.heard(&version);
                return go_on;
            }
            // The wait is for a server that ends every answer at once.
            End::Served => return Next { wait: self.wait(), ..go_on },
            End::Refused { code, message } => (code, message),
            End::Broken(message) => (0, message),
        };
        match code {
            404 => self.absent(),
            410 => {
                self.at = None;
                Next { wait: self.wait(), ..go_on }
            }
            // It does not know what `sendInitialEvents` is, or may not do it.
            400 | 422 if self.streams && self.at.is_none() => {
                self.streams = false;
                go_on
            }
            _ => {
                self.failures += 1;
                if self.failures >= RESUMPTIONS && code != 0 {
                    self.at = None;
                }
                let hint = match code {
                    401 => ": the API server does not know who we are; is the token mounted?",
                    403 => ": is it in the ClusterRole?",
                    _ => "",
                };
                Next { wait: self.wait(), trouble: Some(format!("{message}{hint}")), ..go_on }
            }
        }
    }

    /// No such version of the kind: the next one, and after the last one all over again.
    fn absent(&mut self) -> Next {
        self.at = None;
        self.version = (self.version + 1) % self.resource.versions.len();
        if self.version != 0 {
            return Next { nothing: false, wait: Duration::ZERO, trouble: None };
        }
        self.absent = self.absent.saturating_add(1);
        let nothing = !self.empty && (!self.told || self.absent >= ABSENT);
        (self.told, self.empty) = (self.told || nothing, self.empty || nothing);
        Next { nothing, wait: self.wait(), trouble: None }
    }

    fn wait(&mut self) -> Duration {
        self.backoff.next_wait().min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: Resource = Resource { group: "g", versions: &["v1", "v1beta1"], plural: "policies" };

    fn refused(code: u16) -> End {
        End::Refused { code, message: "no".into() }
    }

    fn changes(since: &str) -> Ask {
        Ask::Changes { since: since.into() }
    }

    #[test]
    fn a_server_without_streaming_lists_is_asked_for_pages() {
        for code in [400, 422] {
            let mut plan = Plan::new(Resource::core("pods"));
            assert_eq!(plan.ask(), Ask::Stream);
            assert_eq!(plan.after(refused(code)).wait, Duration::ZERO);
            assert_eq!(plan.ask(), Ask::Pages);
            plan.after(End::Listed { version: "7".into() });
            assert_eq!(plan.ask(), changes("7"));
            plan.after(refused(410));
            assert_eq!(plan.ask(), Ask::Pages);
        }
    }

    #[test]
    fn it_goes_on_from_where_it_was_and_begins_anew_where_that_is_forgotten() {
        let mut plan = Plan::new(Resource::core("pods"));
        plan.heard("5");
        for end in [End::Served, End::Broken("reset".into()), refused(500)] {
            plan.after(end);
            assert_eq!(plan.ask(), changes("5"));
        }
        assert!(plan.heard("6"), "there was trouble");
        assert!(!plan.heard("7"));
        plan.after(refused(410));
        assert_eq!(plan.ask(), Ask::Stream);
        plan.heard("8");
        // Nobody answers: nothing says that it is forgotten.
        (0..20).for_each(|_| drop(plan.after(End::Broken("refused".into()))));
        assert_eq!(plan.ask(), changes("8"));
        // Somebody does, and cannot go on from there: the store was put back.
        plan.heard("9");
        for _ in 1..RESUMPTIONS {
            plan.after(refused(504));
            assert_eq!(plan.ask(), changes("9"));
        }
        plan.after(refused(504));
        assert_eq!(plan.ask(), Ask::Stream);
    }

    #[test]
    fn a_kind_that_is_not_installed_has_no_objects() {
        let mut plan = Plan::new(POLICIES);
        assert_eq!(plan.version(), "v1");
        assert!(!plan.after(refused(404)).nothing);
        assert_eq!(plan.version(), "v1beta1");
        let next = plan.after(refused(404));
        assert!(next.nothing && next.trouble.is_none());
        // Said once.
        (0..20).for_each(|_| assert!(!plan.after(refused(404)).nothing));
        // An older definition.
        assert_eq!((plan.version(), plan.ask()), ("v1", Ask::Stream));
        plan.after(refused(404));
        plan.heard("3");
        assert_eq!((plan.version(), plan.ask()), ("v1beta1", changes("3")));
        // It is taken away again: said once it has stayed away for a while.
        let said: Vec<_> = (0..20).map(|_| plan.after(refused(404)).nothing).collect();
        assert_eq!(said.iter().filter(|said| **said).count(), 1);
        assert!(!said[0] && !said[1] && !said[2]);
    }

    #[test]
    fn waits_grow_and_end_and_trouble_is_told() {
        let mut plan = Plan::new(Resource::core("pods"));
        let waits: Vec<_> = (0..12).map(|_| plan.after(refused(403)).wait).collect();
        assert!(waits.is_sorted() && waits[0] < Duration::from_millis(50) && waits[11] == LONGEST, "{waits:?}");
        assert_eq!(plan.after(refused(403)).trouble.unwrap(), "no: is it in the ClusterRole?");
        plan.heard("1");
        assert!(plan.after(End::Served).wait < Duration::from_millis(50));
    }
}
