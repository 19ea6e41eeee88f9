//! What to do about one pod next: what should be against what is. Pure.

use std::path::Path;

use crate::enroll::{Enrolment, WhyNot};
use crate::redirect::Settings;

/// What is wanted of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether it is in the mesh.
    pub enrolment: Enrolment,
    /// Its redirection.
    pub settings: &'a Settings,
    /// Where its namespace can be opened, once it has one.
    pub netns: Option<&'a Path>,
}

/// What the agent has done to a pod.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The redirection it was given.
    pub settings: &'a Settings,
    /// The namespace that was opened.
    pub netns: &'a Path,
    /// All steps succeeded; otherwise some of them may have.
    pub complete: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All is as it should be.
    Rest,
    /// It belongs in the mesh, but has no network namespace yet.
    AwaitNetns,
    /// Enrol it, or enrol it again.
    Enrol,
    /// Let it go. With `rules`, its namespace lives on and must be as it was before.
    Release {
        /// Take the rules out.
        rules: bool,
    },
}

/// Decides. `wanted` is `None` for a pod that is gone from the node.
pub fn step(wanted: Option<Wanted<'_>>, held: Option<Held<'_>>) -> Step {
    match (wanted, held) {
        (None, None) => Step::Rest,
        // Its namespace goes with it.
        (None, Some(_)) => Step::Release { rules: false },
        (Some(Wanted { enrolment: Enrolment::Out(_), .. }), None) => Step::Rest,
        (Some(Wanted { enrolment: Enrolment::Out(WhyNot::Finished), .. }), Some(_)) => Step::Release { rules: false },
        (Some(Wanted { enrolment: Enrolment::Out(_), .. }), Some(_)) => Step::Release { rules: true },
        (Some(Wanted { netns: None, .. }), None) => Step::AwaitNetns,
        (Some(_), None) => Step::Enrol,
        (Some(Wanted { settings, netns, .. }), Some(held)) => {
            let same = held.settings == settings && netns.is_none_or(|path| path == held.netns);
            if held.complete && same { Step::Rest } else { Step::Enrol }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::Because;

    #[test]
    fn from_what_is_to_what_should_be() {
        let plain = Settings { ipv6: true, inbound_capture: true, dns_capture: false, outbound_interfaces: Vec::new() };
        let ingress = Settings { inbound_capture: false, ..plain.clone() };
        let (a, b) = (Path::new("/netns/a"), Path::new("/netns/b"));
        let member = Enrolment::In(Because::PodLabel);
        let wanted = |enrolment, netns| Some(Wanted { enrolment, settings: &plain, netns });
        let held = |settings, netns, complete| Some(Held { settings, netns, complete });

        for (name, wanted, held, expected) in [
            ("never seen", None, None, Step::Rest),
            ("gone", None, held(&plain, a, true), Step::Release { rules: false }),
            ("gone half way", None, held(&plain, a, false), Step::Release { rules: false }),
            ("not asked", wanted(Enrolment::Out(WhyNot::NotAsked), Some(a)), None, Step::Rest),
            (
                "label removed",
                wanted(Enrolment::Out(WhyNot::NotAsked), Some(a)),
                held(&plain, a, true),
                Step::Release { rules: true },
            ),
            (
                "label removed half way",
                wanted(Enrolment::Out(WhyNot::OptedOut), Some(a)),
                held(&plain, a, false),
                Step::Release { rules: true },
            ),
            (
                "finished",
                wanted(Enrolment::Out(WhyNot::Finished), Some(a)),
                held(&plain, a, true),
                Step::Release { rules: false },
            ),
            ("no sandbox yet", wanted(member, None), None, Step::AwaitNetns),
            ("new", wanted(member, Some(a)), None, Step::Enrol),
            ("done", wanted(member, Some(a)), held(&plain, a, true), Step::Rest),
            ("done, source forgot where", wanted(member, None), held(&plain, a, true), Step::Rest),
            ("half way", wanted(member, Some(a)), held(&plain, a, false), Step::Enrol),
            ("annotation changed", wanted(member, Some(a)), held(&ingress, a, true), Step::Enrol),
            ("new sandbox", wanted(member, Some(b)), held(&plain, a, true), Step::Enrol),
        ] {
            assert_eq!(step(wanted, held), expected, "{name}");
        }
    }
}
