//! The agent's loop: what should be, what is, and one step at a time for each pod.
//!
//! One task owns everything here. It starts operations, each pod's at most one at a time and none waiting for another
//! pod's, and takes in what happened: a new list of pods, a CNI call, an operation's end, a ztunnel's coming.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_handoff::agent_end::Event;
use mesh_runtime::readiness::Part;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::enroll::{Enrolment, Selection, WhyNot, enrolment};
use crate::enrolled::{self, Redirection, States};
use crate::kubernetes::report::Told;
use crate::managed::{Managed, Reached};
use crate::metrics::AgentMetrics;
use crate::netns::{Netns, Place};
use crate::operations::{OperationError, Sandbox, Tools, Verified, info};
use crate::outside::{self, Outside, Why};
use crate::plugin_server::Call;
use crate::pods::{KnownAs, Pod};
use crate::reconcile::{Stage, Step};
use crate::redirect::Settings;
use crate::redirect::settings::Defaults;
use crate::sandboxes::Sought;

/// How often the rules of enrolled pods are checked.
const VERIFY: Duration = Duration::from_secs(5);
/// How soon namespaces are looked for again that were not found.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a CNI call waits for its pod to appear in the list: the call may overtake the list.
const POD_LOOKUP: Duration = Duration::from_secs(2);

/// What the loop needs from outside.
pub(crate) struct Inputs {
    pub(crate) pods: watch::Receiver<Option<Vec<Pod>>>,
    /// Asks the source of pods to look again now.
    pub(crate) refresh: Arc<Notify>,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
}

/// What the loop decides by.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) selection: Selection,
    pub(crate) defaults: Defaults,
    pub(crate) enrolled_file: PathBuf,
    /// Where else it is told how far the pods got.
    pub(crate) told: watch::Sender<Told>,
}

pub(crate) struct Agent {
    tools: Arc<Tools>,
    policy: Policy,
    metrics: AgentMetrics,
    /// Where pods that are outside are told of.
    ready: Part,
    /// By UID: the pods of the list, and pods gone from it that are still being let go.
    pods: BTreeMap<String, Managed>,
    operations: JoinSet<(String, Done)>,
    /// Looks for the pods' namespaces, one at a time.
    looks: JoinSet<BTreeMap<String, Arc<Netns>>>,
    look_at: Instant,
    /// CNI calls whose pod is not in the list yet.
    early: Vec<(Instant, Call)>,
    /// What was last written for others to read.
    published: Option<States>,
    outside: Vec<Outside>,
}

/// How far a predecessor had brought a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    Nothing,
    Serving,
    Captured,
    Leaving,
}

impl Was {
    fn of(state: Option<&enrolled::Enrolled>) -> Self {
        match state.map(|state| state.redirection) {
            Some(Redirection::Enabled) => Self::Captured,
            Some(Redirection::Joining) => Self::Serving,
            Some(Redirection::Leaving) => Self::Leaving,
            Some(Redirection::Pending | Redirection::Disabled) | None => Self::Nothing,
        }
    }
}

/// How an operation ended.
enum Done {
    /// It is to be at this stage.
    Reached {
        stage: Stage,
        held: Option<Sandbox>,
        result: Result<(), OperationError>,
    },
    Released(Result<(), OperationError>),
    Verified(Result<Verified, OperationError>),
}

impl Agent {
    pub(crate) fn new(tools: Arc<Tools>, policy: Policy, metrics: AgentMetrics, ready: Part) -> Self {
        Self {
            tools,
            policy,
            metrics,
            ready,
            pods: BTreeMap::new(),
            operations: JoinSet::new(),
            looks: JoinSet::new(),
            look_at: Instant::now(),
            early: Vec::new(),
            published: None,
            outside: Vec::new(),
        }
    }

    /// Takes up where a predecessor left off, before any ztunnel is answered: what the snapshot leaves out is stopped.
    /// `before` is what the predecessor had reached.
    pub(crate) async fn restore(&mut self, pods: &[Pod], before: &States) {
        self.want(pods);
        if let Some(sandboxes) = self.tools.sandboxes.clone() {
            let mut sought = self.sought();
            // What a predecessor did to a pod that is not in the mesh any more is undone there.
            sought.retain(|uid, _| {
                let joins = self.pods.get(uid).is_some_and(|managed| matches!(managed.enrolment, Enrolment::In(_)));
                joins || Was::of(before.get(uid)) != Was::Nothing
            });
            let found = tokio::task::spawn_blocking(move || sandboxes.find(&sought)).await;
            self.found(found.unwrap_or_default());
        }
        let mut captures = JoinSet::new();
        for (uid, managed) in &self.pods {
            let was = Was::of(before.get(uid));
            // One that was taken out of the mesh meanwhile is let go in order.
            let ours = match managed.enrolment {
                Enrolment::In(_) => true,
                Enrolment::Out(WhyNot::Finished) => false,
                Enrolment::Out(_) => was != Was::Nothing,
            };
            let Some(place) = managed.place().filter(|_| ours) else { continue };
            let (tools, pod, settings, uid) =
                (self.tools.clone(), managed.pod.clone(), managed.settings.clone(), uid.clone());
            captures.spawn(async move {
                let captured = match Tools::open(&pod, &place, &settings) {
                    // What the predecessor redirected stays redirected, whoever serves it now; what it had not, waits
                    // for a ztunnel first.
                    Ok(held) if was == Was::Captured => tools.capture(&held).await.map(|()| held),
                    Ok(held) if was != Was::Nothing => tools.unredirect(&held).await.map(|()| held),
                    opened => opened,
                };
                (captured, uid)
            });
        }
        while let Some(captured) = captures.join_next().await {
            let Ok((captured, uid)) = captured else { continue };
            let Some(managed) = self.pods.get_mut(&uid) else { continue };
            let was = Was::of(before.get(&uid));
            match captured {
                Ok(held) => {
                    let netns = held.netns.try_clone_fd().ok();
                    self.tools.handoff.hold(&uid, info(&managed.pod), netns);
                    if let Some(probes) = self.tools.probes.as_ref().filter(|_| was == Was::Captured)
                        && let Err(error) = probes.add(&uid, &held.ips).await
                    {
                        tracing::warn!(pod = managed.pod.display_name(), %error, "probes of this pod may fail");
                    }
                    // Its peers use HBONE already; they must not be told otherwise because we restarted.
                    let stage = match was {
                        Was::Nothing => Stage::Opened,
                        Was::Serving => Stage::Serving,
                        Was::Captured => Stage::Captured,
                        Was::Leaving => Stage::Leaving,
                    };
                    managed.reached = Reached::at(stage, Some(held));
                }
                Err(error) => {
                    tracing::warn!(pod = managed.pod.display_name(), %error, "not captured at start; will try again");
                    if was != Was::Nothing {
                        self.tools.handoff.hold(&uid, info(&managed.pod), None);
                    }
                    managed.fail(Why::from(&error), &error, false);
                }
            }
        }
        self.publish();
    }

    /// Runs until all inputs are closed, which is when the process ends. Nothing is undone then: rules, sets and state
    /// stay for the successor.
    pub(crate) async fn run(&mut self, mut inputs: Inputs) {
        let mut verify = tokio::time::interval(VERIFY);
        verify.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // One moment for both: what is not due in the first must be waited for by the second.
            let now = Instant::now();
            self.advance(now);
            self.look(now);
            self.publish();
            let next = self.next_deadline(now);
            tokio::select! {
                changed = inputs.pods.changed() => {
                    if changed.is_err() { return }
                    let pods = inputs.pods.borrow_and_update().clone();
                    self.want(&pods.unwrap_or_default());
                }
                Some(call) = inputs.calls.recv() => {
                    inputs.refresh.notify_one();
                    self.admit(call, Instant::now() + POD_LOOKUP);
                }
                Some(event) = inputs.events.recv() => self.heard(event),
                Some(done) = self.operations.join_next(), if !self.operations.is_empty() => match done {
                    Ok((uid, done)) => self.finish(&uid, done),
                    // The pod stays busy: whatever panicked once must not be tried in a loop. The gauge shows it.
                    Err(error) if error.is_panic() => {
                        tracing::error!(%error, "an operation on a pod panicked; this is a bug");
                    }
                    // The runtime is ending.
                    Err(_) => {}
                },
                Some(found) = self.looks.join_next(), if !self.looks.is_empty() => self.found(found.unwrap_or_default()),
                _ = verify.tick() => self.verify(),
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Lets every pod go that is still there, in place of [`Self::run`]: the agent is uninstalled. What cannot be done is told
    /// and left.
    pub(crate) async fn let_all_go(&mut self) {
        self.operations.abort_all();
        while self.operations.join_next().await.is_some() {}
        let mut releases = JoinSet::new();
        for (uid, managed) in &mut self.pods {
            let reached = std::mem::replace(&mut managed.reached, Reached::Nothing);
            managed.enrolment = Enrolment::Out(WhyNot::NotAsked);
            let (Some(held), false) = (reached.held().cloned(), managed.gone) else { continue };
            let (tools, uid, pod) = (self.tools.clone(), uid.clone(), managed.pod.display_name());
            releases.spawn(async move { (tools.release(&uid, &held, true).await, uid, pod) });
        }
        while let Some(released) = releases.join_next().await {
            match released {
                Ok((Ok(()), uid, pod)) => tracing::info!(pod, uid, "let go: the agent is uninstalled"),
                Ok((Err(error), uid, pod)) => tracing::error!(pod, uid, %error, "not let go: restart the pod"),
                Err(error) => tracing::error!(%error, "a pod was not let go"),
            }
        }
        self.publish();
    }

    /// Takes in a list of pods.
    fn want(&mut self, pods: &[Pod]) {
        for managed in self.pods.values_mut() {
            managed.gone = true;
        }
        for pod in pods {
            let enrolment = enrolment(pod, &self.policy.selection);
            let (settings, ignored) = Settings::of(pod, self.policy.defaults);
            let known = self.pods.entry(pod.uid.clone()).or_insert_with(|| Managed::new(pod, enrolment, &settings));
            if known.pod.annotations != pod.annotations || known.reached.held().is_none() {
                for what in ignored {
                    tracing::warn!(pod = pod.display_name(), "ignored: {what}");
                }
            }
            known.want(pod, enrolment, settings);
        }
        if self.pods.values().any(is_lost) {
            self.look_at = Instant::now();
        }
        for (deadline, call) in std::mem::take(&mut self.early) {
            self.admit(call, deadline);
        }
    }

    /// The pods whose namespace is to be looked for, and what is known of it.
    fn sought(&self) -> BTreeMap<String, Sought> {
        let here = self.pods.iter().filter(|(_, managed)| !managed.gone && !managed.pod.is_finished());
        let own = here.filter(|(_, managed)| !managed.pod.host_network && !managed.pod.ips.is_empty());
        let sought = own.map(|(uid, managed)| {
            let known = managed.reached.held().map(|held| held.netns.id());
            (uid.clone(), Sought { ips: managed.pod.ips.clone(), known })
        });
        sought.collect()
    }

    /// Looks for namespaces if that is due: of pods that have none yet, and whether the others are still where they were.
    fn look(&mut self, now: Instant) {
        let Some(sandboxes) = self.tools.sandboxes.clone() else { return };
        if !self.looks.is_empty() || self.look_at > now {
            return;
        }
        let mut sought = self.sought();
        sought.retain(|uid, _| self.pods.get(uid).is_some_and(|managed| managed.matters() && !managed.is_busy()));
        self.look_at = now + VERIFY;
        if !sought.is_empty() {
            self.looks.spawn_blocking(move || sandboxes.find(&sought));
        }
    }

    /// Takes in where pods' namespaces are.
    fn found(&mut self, found: BTreeMap<String, Arc<Netns>>) {
        for (uid, netns) in found {
            let Some(managed) = self.pods.get_mut(&uid) else { continue };
            // A CNI call may have been faster, and knows better.
            let held = managed.reached.held().map(|held| held.netns.id());
            if managed.is_busy() || held == Some(netns.id()) {
                continue;
            }
            if held.is_some() {
                tracing::info!(pod = managed.pod.display_name(), uid, "the pod has a new network namespace");
                managed.reached.come_to(Stage::Opened, None);
            }
            managed.told_place = Some(Place::Open(netns));
            managed.retry_soon();
        }
        if self.pods.values().any(is_lost) {
            self.look_at = Instant::now() + LOOK_AGAIN;
        }
    }

    /// Takes in a CNI call.
    fn admit(&mut self, call: Call, deadline: Instant) {
        let request = &call.request;
        let named = |managed: &&mut Managed| {
            let pod = &managed.pod;
            !managed.gone
                && !pod.is_finished()
                && pod.name == request.pod_name
                && pod.namespace == request.pod_namespace
                && request.pod_uid.as_ref().is_none_or(|uid| *uid == pod.uid)
                // A pod of the same name with another namespace is a predecessor on its way out.
                && pod.netns.as_ref().is_none_or(|netns| *netns == request.netns)
        };
        let Some(managed) = self.pods.values_mut().find(named) else {
            self.early.push((deadline, call));
            return;
        };
        if managed.pod.netns.is_none() {
            let path = call.request.netns;
            let path = self.tools.sandboxes.as_ref().map_or_else(|| path.clone(), |node| node.seen_here(path.clone()));
            managed.told_place = Some(Place::Path(path));
        }
        if managed.pod.ips.is_empty() {
            managed.pod.ips = call.request.ips.iter().map(|ip| ip.address.ip).collect();
        }
        managed.called(call.answer);
    }

    /// Takes in what happened on the ZDS socket.
    fn heard(&mut self, event: Event) {
        match event {
            Event::Connected { ztunnel, pods } => tracing::info!(ztunnel, pods, "ztunnel connected"),
            Event::SnapshotTaken { ztunnel, refused } => {
                tracing::info!(ztunnel, refused = refused.len(), "ztunnel took the snapshot");
                self.pods.values_mut().filter(|managed| !managed.is_complete()).for_each(Managed::retry_soon);
                for (uid, reason) in refused {
                    if let Some(managed) = self.pods.get_mut(&uid) {
                        tracing::warn!(
                            pod = managed.pod.display_name(),
                            reason,
                            "ztunnel refused a pod of the snapshot"
                        );
                        managed.reached.come_to(Stage::Opened, None);
                        let again = managed.take_again();
                        managed.fail(Why::Refused, &format!("ztunnel refused the pod: {reason}"), again);
                    }
                }
            }
            Event::Disconnected { ztunnel, reason } => tracing::info!(ztunnel, reason, "ztunnel disconnected"),
            Event::AcceptFailed { reason } => tracing::warn!(reason, "cannot accept ztunnel's connection"),
        }
        self.metrics.ztunnels.set(self.tools.handoff.connected() as i64);
    }

    /// Takes in how an operation ended.
    fn finish(&mut self, uid: &str, done: Done) {
        let Some(managed) = self.pods.get_mut(uid) else { return };
        let again = managed.end();
        let pod = managed.pod.display_name();
        match done {
            Done::Reached { stage, held, result } => {
                match result {
                    Ok(()) => {
                        managed.reached.come_to(stage, held);
                        let because = &managed.enrolment;
                        match stage {
                            Stage::Captured => tracing::info!(pod, uid, %because, "enrolled"),
                            Stage::Leaving => tracing::info!(pod, uid, %because, "no longer captured"),
                            Stage::Serving | Stage::Opened => {
                                tracing::debug!(pod, uid, "served; captured once everybody's tables hold it");
                            }
                        }
                        managed.succeed();
                    }
                    Err(error) => {
                        self.metrics.failure(error.step());
                        // A step that failed is tried again from where the pod is; a way in that failed begins anew.
                        let back = match (managed.reached.stage(), stage) {
                            (reached, Stage::Leaving) | (reached @ Stage::Serving, Stage::Captured) => reached,
                            _ => Stage::Opened,
                        };
                        managed.reached.come_to(back, held);
                        // Who asked meanwhile wants to know of an attempt that began after that.
                        if !again {
                            managed.answer(&Err(error.to_string()));
                        }
                        if managed.fail(Why::from(&error), &error, again) {
                            tracing::warn!(pod, uid, %error, "not enrolled; will try again");
                        } else {
                            tracing::debug!(pod, uid, %error, "still not enrolled; will try again");
                        }
                    }
                }
            }
            Done::Released(Ok(())) => {
                tracing::info!(pod, uid, because = %managed.enrolment, gone = managed.gone, "let go");
                managed.reached = Reached::Nothing;
                managed.succeed();
            }
            Done::Released(Err(error)) => {
                self.metrics.failure(error.step());
                if managed.fail(Why::from(&error), &error, again) {
                    tracing::warn!(pod, uid, %error, "not let go; will try again");
                } else {
                    tracing::debug!(pod, uid, %error, "still not let go; will try again");
                }
            }
            Done::Verified(Ok(Verified::Captured)) => {
                managed.reached.checked(None);
            }
            Done::Verified(Ok(Verified::Moved)) => {
                tracing::info!(pod, uid, "the pod has a new network namespace");
                managed.reached.come_to(Stage::Opened, None);
                managed.retry_soon();
            }
            Done::Verified(Ok(Verified::Repaired(missing))) => {
                tracing::warn!(pod, uid, ?missing, "someone changed the pod's redirection; it is restored");
                managed.reached.checked(None);
                self.metrics.repaired.inc();
            }
            Done::Verified(Err(error)) => {
                self.metrics.failure(error.step());
                if managed.reached.checked(Some(error.to_string())) {
                    tracing::warn!(pod, uid, %error, "the pod's redirection is not certain");
                } else {
                    tracing::debug!(pod, uid, %error, "the pod's redirection is still not certain");
                }
            }
        }
    }

    /// Starts the next step of every pod that has one.
    fn advance(&mut self, now: Instant) {
        self.pods.retain(|_, managed| !managed.is_over());
        for (uid, managed) in &mut self.pods {
            if managed.is_busy() {
                continue;
            }
            let Some(next) = managed.next_step(now) else { continue };
            let (tools, uid, pod) = (self.tools.clone(), uid.clone(), managed.pod.clone());
            let held = managed.reached.held().cloned();
            match (next, managed.place(), held) {
                (Step::Enrol | Step::Serve, Some(place), held) => {
                    let settings = managed.settings.clone();
                    let stage = if next == Step::Serve { Stage::Serving } else { Stage::Captured };
                    self.operations
                        .spawn(async move { (uid, enrol(&tools, &pod, &place, settings, held, stage).await) });
                }
                // The source forgot where the namespace is; the one at hand will do.
                (Step::Enrol | Step::Serve, None, Some(held)) => {
                    self.operations.spawn(async move {
                        let (stage, result) = match next {
                            Step::Serve => (Stage::Serving, tools.serve(&pod, &held).await),
                            _ => (Stage::Captured, tools.hand_over(&pod, &held).await),
                        };
                        (uid, Done::Reached { stage, held: None, result })
                    });
                }
                (Step::Capture, _, Some(held)) => {
                    self.operations.spawn(async move {
                        let result = tools.redirect(&pod, &held).await;
                        (uid, Done::Reached { stage: Stage::Captured, held: None, result })
                    });
                }
                (Step::Uncapture, _, Some(held)) => {
                    self.operations.spawn(async move {
                        let result = tools.unredirect(&held).await;
                        (uid, Done::Reached { stage: Stage::Leaving, held: None, result })
                    });
                }
                (Step::Release { rules }, _, Some(held)) => {
                    if managed.reached.stage() == Stage::Leaving && managed.pod.known_as == KnownAs::Unsettled {
                        tracing::warn!(
                            pod = pod.display_name(),
                            "not every ztunnel has acknowledged that the pod left the mesh; it is let go all the same"
                        );
                    }
                    self.operations
                        .spawn(async move { (uid.clone(), Done::Released(tools.release(&uid, &held, rules).await)) });
                }
                _ => continue,
            }
            managed.begin();
        }
        for (deadline, call) in std::mem::take(&mut self.early) {
            if deadline > now {
                self.early.push((deadline, call));
            } else {
                let (namespace, name) = (&call.request.pod_namespace, &call.request.pod_name);
                let reason = format!("this node has no pod {namespace}/{name} with that network namespace");
                tracing::warn!("a CNI call was refused: {reason}");
                let _ = call.answer.send(Err(reason));
            }
        }
    }

    /// Starts a check of every enrolled pod.
    fn verify(&mut self) {
        for (uid, managed) in &mut self.pods {
            let Reached::Captured { held, .. } = &managed.reached else { continue };
            if managed.is_busy() || managed.gone {
                continue;
            }
            let held = held.clone();
            let (tools, uid) = (self.tools.clone(), uid.clone());
            self.operations.spawn(async move { (uid, Done::Verified(tools.verify(&held).await)) });
            managed.begin();
        }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let calls = self.early.iter().map(|(deadline, _)| *deadline);
        let pods = self.pods.values().flat_map(Managed::deadlines);
        // Past retries of pods at rest must not spin the loop.
        let look = self.tools.sandboxes.iter().filter(|_| self.looks.is_empty()).map(|_| self.look_at);
        pods.chain(calls).chain(look).filter(|at| *at > now).min().unwrap_or(now + VERIFY)
    }

    /// Tells others how far each pod got, if that changed.
    fn publish(&mut self) {
        let listed = self.pods.iter().filter(|(_, managed)| !managed.gone);
        let states: States = listed.map(|(uid, managed)| (uid.clone(), managed.state())).collect();
        let count = |redirection| states.values().filter(|state| state.redirection == redirection).count() as i64;
        self.metrics.enrolled.set(count(Redirection::Enabled));
        self.metrics.pending.set(count(Redirection::Pending) + count(Redirection::Joining));
        self.tell_of_outside();
        self.policy.told.send_if_modified(|told| {
            let now = Told { states: states.clone(), outside: self.outside.clone() };
            let different = *told != now;
            *told = now;
            different
        });
        if self.published.as_ref() == Some(&states) {
            return;
        }
        match enrolled::write(&self.policy.enrolled_file, &states) {
            Ok(()) => self.published = Some(states),
            Err(error) => {
                let file = self.policy.enrolled_file.display();
                tracing::error!(%error, %file, "cannot write the state of the pods; will try again");
            }
        }
    }
}

impl Agent {
    /// Which pods are outside, one by one.
    fn tell_of_outside(&mut self) {
        let outside: Vec<Outside> = self.pods.values().filter_map(Managed::outside).collect();
        self.metrics.not_captured.set(outside.len() as i64);
        match outside::told(&outside) {
            Some(text) => self.ready.ready_but(text),
            None => self.ready.ready(),
        }
        if outside != self.outside {
            self.metrics.outside.set(outside.iter().map(|pod| (&*pod.namespace, &*pod.name, pod.why.label())));
            self.outside = outside;
        }
    }
}

/// It belongs in the mesh and runs, and nobody has said where.
fn is_lost(managed: &Managed) -> bool {
    managed.matters() && managed.place().is_none() && !managed.pod.ips.is_empty()
}

/// Hands a pod over; and captures it, if that is the `stage`.
async fn enrol(
    tools: &Tools,
    pod: &Pod,
    place: &Place,
    settings: Settings,
    held: Option<Sandbox>,
    stage: Stage,
) -> Done {
    // Opened already, when only ztunnel was missing. Looked at again all the same, since another namespace may be
    // mounted at the same path by now.
    let current = held.filter(|held| {
        held.place == *place
            && held.settings == settings
            && held.ips == pod.ips
            && place.open().is_ok_and(|now| now.id() == held.netns.id())
    });
    let opened = match current {
        Some(held) => Ok(held),
        None => Tools::open(pod, place, &settings),
    };
    match opened {
        Ok(held) => {
            let result = match stage {
                Stage::Serving => tools.serve(pod, &held).await,
                _ => tools.hand_over(pod, &held).await,
            };
            Done::Reached { stage, held: Some(held), result }
        }
        Err(error) => Done::Reached { stage, held: None, result: Err(error) },
    }
}
