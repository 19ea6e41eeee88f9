//! Is the agent being uninstalled, or only replaced? Its DaemonSet knows, which is gone in the first case and there in the
//! second. What an agent leaves in pods and on the node is for its successor, and must not outlive the last one.
//!
//! An uninstallation takes the agent's rights away at about the same time as its pods. So the DaemonSet is watched from the
//! start, and the API server need not answer a question at the end.

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Event, Query, Raw, Resource, Watch};
use std::time::Duration;
use tokio::sync::watch;

use super::objects;

const DAEMONSETS: Resource = Resource { group: "apps", versions: &["v1"], plural: "daemonsets" };
/// How long the API server may take to answer an agent that leaves.
const PATIENCE: Duration = Duration::from_secs(2);

/// The DaemonSet that made this agent's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The agent's namespace.
    pub namespace: String,
    /// The DaemonSet's name.
    pub name: String,
}

/// What is known of the DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// It is there, to stay.
    There,
    /// It is gone, or on its way out.
    Gone,
}

/// Watches the DaemonSet.
pub(crate) struct Watched {
    client: Client,
    owner: Owner,
    known: watch::Receiver<Known>,
}

impl Watched {
    /// Begins.
    pub(crate) fn new(client: Client, owner: Owner) -> Self {
        let query = Query {
            namespace: Some(owner.namespace.clone()),
            fields: format!("metadata.name={}", owner.name),
            ..Query::all(DAEMONSETS)
        };
        let mut events =
            Watch::new(client.clone(), query, |raw: Raw<'_>| objects::is_being_deleted(raw.text).unwrap_or(false));
        let (sender, known) = watch::channel(Known::Nothing);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                sender.send_modify(|known| *known = heard(*known, &event));
                if sender.is_closed() {
                    return;
                }
            }
        });
        Self { client, owner, known }
    }

    /// Whether an agent that was told to leave is the last one on its node.
    pub(crate) async fn is_gone(&self) -> bool {
        if *self.known.borrow() == Known::Gone {
            return true;
        }
        let Owner { namespace, name } = &self.owner;
        let asked = write::get::<serde_json::Value>(&self.client, DAEMONSETS, namespace, name);
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(object)) => Ok(objects::is_being_deleted(&object.to_string()).unwrap_or(false)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(WriteError::Broken(format!("none within {PATIENCE:?}"))),
        };
        // The watch may have said it meanwhile.
        *self.known.borrow() == Known::Gone || gone(&answer, &self.owner)
    }
}

/// What is known after the watch said this.
fn heard(before: Known, event: &Event<bool>) -> Known {
    let is = |deleted: bool| if deleted { Known::Gone } else { Known::There };
    match event {
        Event::All(all) => match all.first() {
            Some(deleted) => is(*deleted),
            // An agent that was started by hand has none, and never had.
            None if before == Known::Nothing => Known::Nothing,
            None => Known::Gone,
        },
        Event::Apply(deleted) => is(*deleted),
        Event::Delete(_) => Known::Gone,
    }
}

/// What the answer to a question means. Who may not ask any more does not know, and leaves everything for a successor.
fn gone(answer: &Result<bool, WriteError>, owner: &Owner) -> bool {
    match answer {
        Ok(deleted) => *deleted,
        Err(WriteError::Refused { code: 404, .. }) => true,
        Err(error) => {
            let Owner { namespace, name } = owner;
            tracing::warn!(%error, "whether the DaemonSet {namespace}/{name} is gone is not known: nothing is taken away");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_kube::Meta;

    use super::*;

    #[test]
    fn what_the_watch_says() {
        use Known::{Gone, Nothing, There};
        for (before, event, expected) in [
            (Nothing, Event::All(vec![false]), There),
            (Nothing, Event::All(vec![true]), Gone),
            (Nothing, Event::All(vec![]), Nothing),
            (There, Event::All(vec![]), Gone),
            (There, Event::Apply(true), Gone),
            (There, Event::Delete(Meta::default()), Gone),
            // It was made again.
            (Gone, Event::Apply(false), There),
            (Gone, Event::All(vec![]), Gone),
        ] {
            assert_eq!(heard(before, &event), expected, "{before:?} {event:?}");
        }
    }

    #[test]
    fn what_the_answer_means() {
        let owner = Owner { namespace: "istio-system".into(), name: "istio-cni-node".into() };
        let refused = |code| Err(WriteError::Refused { code, message: String::new() });
        for (answer, expected) in [
            (Ok(false), false),
            (Ok(true), true),
            (refused(404), true),
            // The rights are gone, or never were there: an agent that is replaced must not take the node out of the mesh.
            (refused(401), false),
            (refused(403), false),
            (Err(WriteError::Broken("connection refused".into())), false),
        ] {
            assert_eq!(gone(&answer, &owner), expected, "{answer:?}");
        }
    }
}
