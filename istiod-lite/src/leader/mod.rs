//! One of several control planes of a revision writes what all of them would write: the leader.
//!
//! | file | question |
//! |---|---|
//! | this one | asks, and carries the answers out |
//! | [`election`] | who leads, and what is to be done about it now? (pure) |
//! | [`lease`] | what does a Lease say? (pure) |
//!
//! Every replica serves proxies. Only the leader writes status, conditions, events, addresses, root ConfigMaps, and the objects of
//! waypoints. It holds a Lease of its own namespace, with the fields of client-go's leader election.

pub mod election;
pub mod lease;

use std::time::{Duration, Instant, SystemTime};

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Event, Query, Resource, Watch};
use mesh_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use self::election::{Election, Next, RETRY};
use self::lease::Lease;

const LEASES: Resource = Resource { group: "coordination.k8s.io", versions: &["v1"], plural: "leases" };
/// Who owns what we write.
const MANAGER: &str = "istiod-lite";
/// How long one look at the lease may take, with the write that follows from it.
const ANSWER: Duration = Duration::from_secs(5);
/// How long writers may take to stop before the lease is let go.
const STOP: Duration = Duration::from_secs(1);
/// How long letting it go may take: with [`STOP`], less than a program has to end.
const LET_GO: Duration = Duration::from_secs(3);

/// Handles into the registry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct LeaderMetrics {
    leads: Gauge,
    began: Counter,
}

impl LeaderMetrics {
    /// Registers them.
    pub fn register(&self, metrics: &mut Metrics) {
        let registry = metrics.registry_mut();
        let help =
            "1 if this replica is the leader, which writes status and what else is written once for all replicas";
        registry.register("ambit_leader", help, self.leads.clone());
        registry.register("ambit_leader_began", "Times this replica became the leader", self.began.clone());
    }
}

/// Which lease, and who we are.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The namespace of the lease.
    pub namespace: String,
    /// Its name: one for each revision.
    pub lease: String,
    /// Nobody else's.
    pub identity: String,
}

impl Candidate {
    /// The name of the lease of a revision.
    pub fn lease_of(revision: &str) -> String {
        match revision {
            "" | "default" => "istiod-lite-leader".to_owned(),
            other => format!("istiod-lite-leader-{other}"),
        }
    }

    /// An identity for a pod, or a machine, that no other life of it has.
    pub fn identity_of(name: &str) -> String {
        let mut bytes = [0; 8];
        // Without chance, the process still tells lives apart.
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            bytes = u64::from(std::process::id()).to_be_bytes();
        }
        format!("{name}_{}", bytes.map(|byte| format!("{byte:02x}")).concat())
    }
}

/// Does `work` whenever we lead, from the start each time; stops it when we do not. Ends when nobody tells any more.
pub async fn while_leading<F: Future<Output = ()>>(mut leads: watch::Receiver<bool>, work: impl Fn() -> F) {
    while leads.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            () = work() => return,
            lost = leads.wait_for(|leads| !*leads) => if lost.is_err() {
                return;
            },
        }
    }
}

/// Takes part in the election until `stop`, and lets the lease go then. `leads` tells whether we lead; once it is false, those
/// who wrote have stopped writing.
pub async fn run(
    client: Client,
    candidate: Candidate,
    leads: watch::Sender<bool>,
    metrics: LeaderMetrics,
    stop: impl Future<Output = ()>,
) {
    let mut election = Election::new(candidate.identity.clone());
    let query = Query {
        namespace: Some(candidate.namespace.clone()),
        fields: format!("metadata.name={}", candidate.lease),
        ..Query::all(LEASES)
    };
    // Only whether it was let go: the lease itself is read when it is written.
    let mut freed =
        Watch::new(client.clone(), query, |raw| serde_json::from_str(raw.text).is_ok_and(|l: Object| l.spec.is_free()));
    let mut trouble = None;
    tokio::pin!(stop);
    loop {
        let in_time = election.leads_for(Instant::now()).unwrap_or(ANSWER).min(ANSWER);
        let look = timeout(in_time, look(&client, &candidate, &mut election));
        let wait = tokio::select! {
            () = &mut stop => break,
            looked = look => match looked {
                Ok(Ok(wait)) => {
                    trouble = None;
                    wait
                }
                Ok(Err(error)) => {
                    tell(&candidate, &mut trouble, error.to_string());
                    RETRY
                }
                Err(_) => {
                    tell(&candidate, &mut trouble, "the API server does not answer in time".to_owned());
                    RETRY
                }
            },
        };
        settle(&candidate, &election, &leads, &metrics);
        // Candidates that began together do not go on together.
        let leads_for = election.leads_for(Instant::now());
        let wait = leads_for.map_or(wait.mul_f64(0.9 + 0.2 * chance()), |left| wait.min(left));
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(wait) => {}
            () = is_freed(&mut freed) => {}
        }
        settle(&candidate, &election, &leads, &metrics);
    }
    let led = election.leads(Instant::now());
    leads.send_replace(false);
    metrics.leads.set(0);
    if led {
        // What they have under way is not sent after somebody else has begun.
        let _ = timeout(STOP, leads.closed()).await;
        match timeout(LET_GO, release(&client, &candidate, &mut election)).await {
            Ok(Ok(())) => tracing::info!(lease = candidate.lease, "let go: another replica leads now"),
            Ok(Err(error)) => tracing::warn!(lease = candidate.lease, %error, "not let go: it expires by itself"),
            Err(_) => tracing::warn!(lease = candidate.lease, "not let go in time: it expires by itself"),
        }
    }
}

/// Says what changed.
fn settle(candidate: &Candidate, election: &Election, leads: &watch::Sender<bool>, metrics: &LeaderMetrics) {
    let now = election.leads(Instant::now());
    let changed = leads.send_if_modified(|leads| std::mem::replace(leads, now) != now);
    metrics.leads.set(now.into());
    if !changed {
        return;
    }
    if now {
        metrics.began.inc();
        tracing::info!(lease = candidate.lease, identity = candidate.identity, "this replica leads: it writes status");
    } else {
        tracing::warn!(lease = candidate.lease, holder = election.holder(), "this replica leads no more");
    }
}

/// In the log once, until it is something else.
fn tell(candidate: &Candidate, trouble: &mut Option<String>, now: String) {
    if trouble.as_ref() != Some(&now) {
        let Candidate { namespace, lease, .. } = candidate;
        tracing::warn!(
            namespace,
            lease,
            "the leader's lease can be neither read nor written, and is tried again: {now}"
        );
        *trouble = Some(now);
    }
}

/// A Lease, as much of it as is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Lease,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

/// Looks once, and does what follows. Gives when to look again.
async fn look(client: &Client, candidate: &Candidate, election: &mut Election) -> Result<Duration, WriteError> {
    let Candidate { namespace, lease: name, .. } = candidate;
    let there = match write::get::<Object>(client, LEASES, namespace, name).await {
        Ok(there) => Some(there),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let version = there.as_ref().map(|there| there.metadata.resource_version.clone());
    let sent = Instant::now();
    let lease = match election.found(there.map(|there| there.spec), sent, SystemTime::now()) {
        Next::Wait(wait) => return Ok(wait),
        Next::Write(lease) => lease,
    };
    match put(client, candidate, version, &lease).await {
        Ok(()) => {
            election.written(lease, sent);
            Ok(RETRY)
        }
        // Another was faster.
        Err(WriteError::Refused { code: 409, .. }) => Ok(Duration::ZERO),
        Err(error) => Err(error),
    }
}

async fn release(client: &Client, candidate: &Candidate, election: &mut Election) -> Result<(), WriteError> {
    let there: Object = write::get(client, LEASES, &candidate.namespace, &candidate.lease).await?;
    let Some(free) = election.release(&there.spec, SystemTime::now()) else { return Ok(()) };
    put(client, candidate, Some(there.metadata.resource_version), &free).await
}

/// Writes it, if it is still of this version; None: if there is none.
async fn put(client: &Client, candidate: &Candidate, version: Option<String>, lease: &Lease) -> Result<(), WriteError> {
    let Candidate { namespace, lease: name, .. } = candidate;
    let object = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": version},
        "spec": lease,
    });
    match version {
        Some(_) => write::merge(client, LEASES, (namespace, name), "", &object, MANAGER).await,
        None => write::create::<serde::de::IgnoredAny>(client, LEASES, namespace, &object).await.map(drop),
    }
}

/// Returns when the lease was let go, or is not there.
async fn is_freed(lease: &mut Watch<bool>) {
    loop {
        match lease.next().await {
            Some(Event::All(all)) if all.is_empty() || all.contains(&true) => return,
            Some(Event::Apply(true) | Event::Delete(_)) => return,
            Some(_) => {}
            // Then it is only looked at now and then.
            None => std::future::pending().await,
        }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut byte = [0];
    // Without chance, all waits are alike.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn names() {
        assert_eq!(Candidate::lease_of("default"), "istiod-lite-leader");
        assert_eq!(Candidate::lease_of("blue"), "istiod-lite-leader-blue");
        let (one, other) = (Candidate::identity_of("istiod-0"), Candidate::identity_of("istiod-0"));
        assert!(one.starts_with("istiod-0_") && one != other, "{one}");
    }

    /// Work begins anew with each time that we lead, and is stopped in between.
    #[tokio::test]
    async fn work_is_done_while_leading_and_no_longer() {
        let leads = watch::Sender::new(false);
        let (begun, running) = (Arc::new(AtomicU32::new(0)), Arc::new(()));
        let work = {
            let (begun, running) = (begun.clone(), running.clone());
            move || {
                let running = running.clone();
                begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    let _running = running;
                    std::future::pending().await
                }
            }
        };
        let task = tokio::spawn(while_leading(leads.subscribe(), work));
        let settled = async |begun_now: u32, runs: usize| {
            // This one's, the closure's, and that of the work.
            let so = async {
                while (begun.load(Ordering::SeqCst), Arc::strong_count(&running)) != (begun_now, 2 + runs) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), so).await.expect("the work is as it should be");
        };
        settled(0, 0).await;
        leads.send_replace(true);
        settled(1, 1).await;
        leads.send_replace(false);
        settled(1, 0).await;
        leads.send_replace(true);
        settled(2, 1).await;
        drop(leads);
        task.await.unwrap();
    }
}
