//! Keeps the webhook's configuration as it should be: the roots by which the API server checks us, and what it does while nobody answers.

use std::time::Duration;

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Event, Query, Watch};
use mesh_model::labels;
use mesh_runtime::backoff::Backoff;
use serde_json::{Value, json};

use super::Settings;
use super::configuration::{self, CONFIGURATIONS, Configuration, FailurePolicy, Heard};
use crate::ca::material::Current;
use crate::resources::Kind;
use crate::source::kubernetes::kinds;

/// Who owns what we write.
const MANAGER: &str = "istiod-lite";
/// The kind of what is offered to find out whether the webhook answers.
const OFFERED: Kind = Kind::DestinationRule;
/// How often that is found out again.
const AGAIN: Duration = Duration::from_secs(60);
/// Why it cannot answer before anything is written.
const UNTRUSTED: &str = "the API server does not know our roots";
/// Shortest and longest wait while it does not answer.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Keeps the configuration, where there is one: it comes and goes with the chart. Never returns.
pub async fn keep(client: Client, settings: Settings, mut material: Current) {
    let query = Query { fields: format!("metadata.name={}", settings.configuration), ..Query::all(CONFIGURATIONS) };
    let mut configurations = Watch::new(client.clone(), query, |raw| serde_json::from_str(raw.text).ok());
    let mut there: Option<Configuration> = None;
    let mut keeper = Keeper { offer: offer(&settings), client, settings, backoff: Backoff::default(), told: None };
    loop {
        let roots = material.borrow_and_update().roots().to_owned();
        let wait = match &there {
            Some(there) => keeper.step(there, &roots).await,
            None => Duration::MAX,
        };
        tokio::select! {
            event = configurations.next() => match event {
                Some(Event::All(all)) => there = all.into_iter().flatten().next(),
                Some(Event::Apply(now)) => there = now,
                Some(Event::Delete(_)) => there = None,
                None => return,
            },
            // Where nobody changes them any more, nobody says anything.
            Ok(()) = material.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Keeper {
    client: Client,
    settings: Settings,
    offer: Offer,
    backoff: Backoff,
    /// What was said last in the log.
    told: Option<Heard>,
}

/// Something wrong, and what the webhook says of it.
struct Offer {
    object: Value,
    sentence: String,
}

/// No host has this name, so nobody ever takes it.
fn offer(settings: &Settings) -> Offer {
    let object = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": OFFERED.as_str(),
        "metadata": {
            "name": "istiod-lite-asks-its-webhook", "namespace": settings.namespace,
            "labels": {labels::REVISION: settings.revision},
        },
        "spec": {"host": "-"},
    });
    let raw = mesh_kube::Raw { meta: mesh_kube::Meta::default(), text: &object.to_string() };
    let sentence = kinds::read(OFFERED, &raw).err().map(|rejected| rejected.sentence()).unwrap_or_default();
    Offer { object, sentence }
}

impl Keeper {
    /// Writes what is not so yet. Gives how long to wait.
    async fn step(&mut self, there: &Configuration, roots: &str) -> Duration {
        let heard = if there.trusts(roots) {
            let Offer { object, sentence } = &self.offer;
            let offered =
                write::could_create(&self.client, kinds::resource(OFFERED), &self.settings.namespace, object).await;
            configuration::heard(&offered, sentence)
        } else {
            Heard::Silence(UNTRUSTED.to_owned())
        };
        let policy = configuration::policy(there, &heard, self.settings.failure_policy);
        let written = match there.patch(roots, policy) {
            Some(patch) => self.write(&patch).await,
            None => Ok(()),
        };
        self.tell(&heard, policy, written.as_ref().err());
        if heard == Heard::Answers && written.is_ok() {
            self.backoff.reset();
            return AGAIN;
        }
        self.backoff.next_wait().saturating_mul(10).clamp(WAITS.0, WAITS.1)
    }

    async fn write(&self, patch: &Value) -> Result<(), WriteError> {
        let (kind, place) = ((CONFIGURATIONS, CONFIGURATIONS.versions[0]), ("", &*self.settings.configuration));
        write::apply(&self.client, kind, place, "", patch, (MANAGER, true)).await
    }

    /// In the log once, until it is something else.
    fn tell(&mut self, heard: &Heard, policy: FailurePolicy, failed: Option<&WriteError>) {
        let (configuration, policy) = (&*self.settings.configuration, policy.as_str());
        if let Some(error) = failed {
            tracing::warn!(configuration, %error, "the webhook's configuration is not written, and tried again");
        }
        // That it is not trusted before we have said by which roots, is no news.
        if self.told.as_ref() == Some(heard) || *heard == Heard::Silence(UNTRUSTED.to_owned()) {
            return;
        }
        match heard {
            Heard::Answers => tracing::info!(configuration, policy, "the validating webhook answers"),
            Heard::Silence(why) => tracing::warn!(configuration, policy, why, "the validating webhook does not answer"),
            Heard::Nothing(why) => {
                tracing::warn!(configuration, policy, why, "it cannot be told whether the validating webhook answers");
            }
        }
        self.told = Some(heard.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_wrong_and_only_that() {
        let settings = Settings {
            port: 0,
            configuration: "validator".to_owned(),
            failure_policy: FailurePolicy::Fail,
            namespace: "istio-system".to_owned(),
            revision: "default".to_owned(),
        };
        let Offer { object, sentence } = offer(&settings);
        assert!(sentence.starts_with("spec.host: "), "{sentence:?}");
        assert_eq!(object["metadata"]["labels"]["istio.io/rev"], "default");
    }
}
