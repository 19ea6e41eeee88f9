//! What to do about one pod next: what should be against what is. Pure.
//!
//! Between two captured pods nothing may travel in the clear, so a pod is captured only when everybody's tables say that
//! it takes HBONE, and takes HBONE for as long as anybody's tables may say so:
//!
//! ```text
//!            Serve             everybody: HBONE             label removed            everybody: TCP
//! (nothing) ──────▶ Serving ─────────────────▶ Captured ─────────────────▶ Leaving ────────────────▶ (nothing)
//!                      └──────────────────── label removed ──────────────────▲
//! ```
//!
//! Where nobody tells what the tables hold, a pod is enrolled and released in one step. On a cluster nobody does either, but
//! peers are known to hear of it: a pod is enrolled in one step, since what is sent to it in plain text is captured too, and
//! when it leaves it takes HBONE for a while.

use crate::enroll::{Enrolment, WhyNot};
use crate::netns::Place;
use crate::pods::KnownAs;
use crate::redirect::Settings;

/// What is wanted of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether it is in the mesh.
    pub enrolment: Enrolment,
    /// Its redirection.
    pub settings: &'a Settings,
    /// Where its namespace is, once that is known.
    pub netns: Option<&'a Place>,
    /// What everybody's tables hold of it.
    pub known_as: KnownAs,
}

/// What the agent has done to a pod.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The redirection it was given.
    pub settings: &'a Settings,
    /// The namespace that was opened.
    pub netns: &'a Place,
    /// How far it is.
    pub stage: Stage,
    /// Everybody's tables were awaited for long enough.
    pub waited_out: bool,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its namespace is open; steps may have failed half way.
    Opened,
    /// ztunnel serves it; nothing is redirected.
    Serving,
    /// ztunnel serves it and its traffic is redirected.
    Captured,
    /// Nothing is redirected any more; ztunnel serves it for those who do not know.
    Leaving,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All is as it should be.
    Rest,
    /// It belongs in the mesh, but has no network namespace yet.
    AwaitNetns,
    /// Everybody's tables have to hold what it is first.
    AwaitTables,
    /// Have ztunnel serve it, and redirect nothing yet.
    Serve,
    /// Redirect its traffic: ztunnel serves it.
    Capture,
    /// Have ztunnel serve it and redirect its traffic; or do so again.
    Enrol,
    /// Redirect its traffic no more; ztunnel serves on.
    Uncapture,
    /// Let it go. With `rules`, its namespace lives on and must be as it was before.
    Release {
        /// Take the rules out.
        rules: bool,
    },
}

/// Decides. `wanted` is `None` for a pod that is gone from the node.
pub fn step(wanted: Option<Wanted<'_>>, held: Option<Held<'_>>) -> Step {
    let (wanted, held) = match (wanted, held) {
        (None, None) => return Step::Rest,
        // Its namespace goes with it.
        (None, Some(_)) => return Step::Release { rules: false },
        (Some(wanted), held) => (wanted, held),
    };
    let staged = wanted.known_as != KnownAs::NotTold;
    let joins_staged = staged && wanted.known_as != KnownAs::Later;
    match (wanted.enrolment, held) {
        (Enrolment::Out(_), None) => Step::Rest,
        (Enrolment::Out(WhyNot::Finished), Some(_)) => Step::Release { rules: false },
        // What leaves leaves altogether before it comes back: who comes back half way could meet tables of either kind.
        (_, Some(held)) if held.stage == Stage::Leaving => {
            let everybody_knows = !staged || wanted.known_as == KnownAs::Tcp;
            if everybody_knows || held.waited_out { Step::Release { rules: true } } else { Step::AwaitTables }
        }
        (Enrolment::Out(_), Some(held)) => match held.stage {
            Stage::Serving | Stage::Captured if staged => Step::Uncapture,
            _ => Step::Release { rules: true },
        },
        (Enrolment::In(_), None) if wanted.netns.is_none() => Step::AwaitNetns,
        (Enrolment::In(_), None) => join(joins_staged),
        (Enrolment::In(_), Some(held)) => {
            let same_netns = wanted.netns.is_none_or(|place| place == held.netns);
            match held.stage {
                _ if !same_netns => join(joins_staged),
                Stage::Captured if held.settings == wanted.settings => Step::Rest,
                // Captured it stays: the new rules take the place of the old ones in one moment.
                Stage::Captured => Step::Enrol,
                Stage::Serving if !joins_staged || wanted.known_as == KnownAs::Hbone => Step::Capture,
                Stage::Serving => Step::AwaitTables,
                Stage::Opened | Stage::Leaving => join(joins_staged),
            }
        }
    }
}

fn join(staged: bool) -> Step {
    if staged { Step::Serve } else { Step::Enrol }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::Because;
    use crate::pods::Pod;
    use crate::redirect::settings::Defaults;

    #[test]
    fn from_what_is_to_what_should_be() {
        use KnownAs::{Hbone, Later, NotTold, Tcp, Unsettled};
        use Stage::{Captured, Leaving, Opened, Serving};
        let (plain, _) =
            Settings::of(&Pod::default(), Defaults { ipv6: true, dns_capture: false, probes_any_port: false });
        let ingress = Settings { inbound_capture: false, ..plain.clone() };
        let (a, b) = (&Place::Path("/netns/a".into()), &Place::Path("/netns/b".into()));
        let member = Enrolment::In(Because::PodLabel);
        let out = |why| Enrolment::Out(why);
        let wanted = |enrolment, netns, known_as| Some(Wanted { enrolment, settings: &plain, netns, known_as });
        let held = |stage| Some(Held { settings: &plain, netns: a, stage, waited_out: false });
        let in_vain = |stage| Some(Held { settings: &plain, netns: a, stage, waited_out: true });
        let other = |stage| Some(Held { settings: &ingress, netns: a, stage, waited_out: false });
        let (with_rules, without) = (Step::Release { rules: true }, Step::Release { rules: false });

        for (name, wanted, held, expected) in [
            ("never seen", None, None, Step::Rest),
            ("gone", None, held(Captured), without),
            ("gone half way", None, held(Opened), without),
            ("gone while joining", None, held(Serving), without),
            ("gone while leaving", None, held(Leaving), without),
            ("not asked", wanted(out(WhyNot::NotAsked), Some(a), Tcp), None, Step::Rest),
            ("finished", wanted(out(WhyNot::Finished), Some(a), Hbone), held(Captured), without),
            ("no sandbox yet", wanted(member, None, Unsettled), None, Step::AwaitNetns),
            // Where nobody tells.
            ("new", wanted(member, Some(a), NotTold), None, Step::Enrol),
            ("half way", wanted(member, Some(a), NotTold), held(Opened), Step::Enrol),
            ("the source stopped telling", wanted(member, Some(a), NotTold), held(Serving), Step::Capture),
            ("done", wanted(member, Some(a), NotTold), held(Captured), Step::Rest),
            ("label removed", wanted(out(WhyNot::NotAsked), Some(a), NotTold), held(Captured), with_rules),
            ("label removed half way", wanted(out(WhyNot::OptedOut), Some(a), NotTold), held(Opened), with_rules),
            // On a cluster.
            ("new, on a cluster", wanted(member, Some(a), Later), None, Step::Enrol),
            ("done, on a cluster", wanted(member, Some(a), Later), held(Captured), Step::Rest),
            ("half way, on a cluster", wanted(member, Some(a), Later), held(Serving), Step::Capture),
            ("new sandbox, on a cluster", wanted(member, Some(b), Later), held(Captured), Step::Enrol),
            ("removed, on a cluster", wanted(out(WhyNot::NotAsked), Some(a), Later), held(Captured), Step::Uncapture),
            ("peers may not know", wanted(out(WhyNot::NotAsked), Some(a), Later), held(Leaving), Step::AwaitTables),
            ("they know by now", wanted(out(WhyNot::NotAsked), Some(a), Later), in_vain(Leaving), with_rules),
            ("back, on a cluster", wanted(member, Some(a), Later), held(Leaving), Step::AwaitTables),
            // Joining, in order.
            ("new, told", wanted(member, Some(a), Unsettled), None, Step::Serve),
            ("new, known as plain", wanted(member, Some(a), Tcp), None, Step::Serve),
            ("serving failed half way", wanted(member, Some(a), Tcp), held(Opened), Step::Serve),
            ("served, known as plain", wanted(member, Some(a), Tcp), held(Serving), Step::AwaitTables),
            ("served, not known to all", wanted(member, Some(a), Unsettled), held(Serving), Step::AwaitTables),
            ("served, known", wanted(member, Some(a), Hbone), held(Serving), Step::Capture),
            ("done, told", wanted(member, Some(a), Hbone), held(Captured), Step::Rest),
            ("done; the control plane starts again", wanted(member, Some(a), Unsettled), held(Captured), Step::Rest),
            ("done, source forgot where", wanted(member, None, Hbone), held(Captured), Step::Rest),
            // Leaving, in order.
            ("label removed, told", wanted(out(WhyNot::NotAsked), Some(a), Hbone), held(Captured), Step::Uncapture),
            (
                "removed while joining",
                wanted(out(WhyNot::OptedOut), Some(a), Unsettled),
                held(Serving),
                Step::Uncapture,
            ),
            ("removed half way, told", wanted(out(WhyNot::OptedOut), Some(a), Tcp), held(Opened), with_rules),
            ("leaving, still HBONE", wanted(out(WhyNot::NotAsked), Some(a), Hbone), held(Leaving), Step::AwaitTables),
            ("leaving, not all", wanted(out(WhyNot::NotAsked), Some(a), Unsettled), held(Leaving), Step::AwaitTables),
            ("leaving, all know", wanted(out(WhyNot::NotAsked), Some(a), Tcp), held(Leaving), with_rules),
            ("leaving, in vain", wanted(out(WhyNot::NotAsked), Some(a), Unsettled), in_vain(Leaving), with_rules),
            // Changes.
            ("back while leaving", wanted(member, Some(a), Hbone), held(Leaving), Step::AwaitTables),
            ("back, all know that it left", wanted(member, Some(a), Tcp), held(Leaving), with_rules),
            ("annotation changed", wanted(member, Some(a), Hbone), other(Captured), Step::Enrol),
            ("annotation changed, nobody tells", wanted(member, Some(a), NotTold), other(Captured), Step::Enrol),
            ("new sandbox", wanted(member, Some(b), NotTold), held(Captured), Step::Enrol),
            ("new sandbox, told", wanted(member, Some(b), Hbone), held(Captured), Step::Serve),
        ] {
            assert_eq!(step(wanted, held), expected, "{name}");
        }
    }
}
