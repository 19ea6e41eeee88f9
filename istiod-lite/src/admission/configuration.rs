//! What is to be in the webhook's configuration. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_kube::Resource;
use mesh_kube::write::WriteError;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) const CONFIGURATIONS: Resource =
    Resource { group: "admissionregistration.k8s.io", versions: &["v1"], plural: "validatingwebhookconfigurations" };

/// What the API server does with a request while a webhook does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It refuses it.
    Fail,
    /// It goes on as if there were no webhook.
    Ignore,
}

impl FailurePolicy {
    /// From Kubernetes' word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fail, Self::Ignore].into_iter().find(|policy| policy.as_str() == text)
    }

    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "Fail",
            Self::Ignore => "Ignore",
        }
    }
}

/// What is read of a configuration.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Configuration {
    metadata: Metadata,
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    name: String,
    uid: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    name: String,
    #[serde(default)]
    client_config: ClientConfig,
    failure_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    #[serde(default)]
    ca_bundle: String,
}

impl Configuration {
    /// The API server checks us by these roots.
    pub(super) fn trusts(&self, roots: &str) -> bool {
        let bundle = STANDARD.encode(roots);
        self.webhooks.iter().all(|webhook| webhook.client_config.ca_bundle == bundle)
    }

    /// Requests are refused while we do not answer.
    pub(super) fn fails(&self) -> bool {
        let fails = Some(FailurePolicy::Fail.as_str());
        self.webhooks.iter().any(|webhook| webhook.failure_policy.as_deref() == fails)
    }

    /// What to apply, so that it says this; None if it does.
    pub(super) fn patch(&self, roots: &str, policy: FailurePolicy) -> Option<Value> {
        let says = |webhook: &Webhook| webhook.failure_policy.as_deref() == Some(policy.as_str());
        if self.trusts(roots) && self.webhooks.iter().all(says) {
            return None;
        }
        let bundle = STANDARD.encode(roots);
        let webhooks = self.webhooks.iter().map(|webhook| {
            json!({
                "name": webhook.name, "clientConfig": {"caBundle": bundle}, "failurePolicy": policy.as_str(),
            })
        });
        Some(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            // One of the same name that came since is another object.
            "metadata": {"name": self.metadata.name, "uid": self.metadata.uid},
            "webhooks": webhooks.collect::<Vec<_>>(),
        }))
    }
}

/// What was heard when something wrong was offered to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The webhook refused it.
    Answers,
    /// It was not asked, or did not answer: with what was seen of that.
    Silence(String),
    /// Somebody else refused it before: nothing is known.
    Nothing(String),
}

/// What the API server's answer means; `sentence` is what the webhook says of what was offered.
pub(super) fn heard(offered: &Result<(), WriteError>, sentence: &str) -> Heard {
    match offered {
        Ok(()) => Heard::Silence("the API server takes what the webhook refuses".to_owned()),
        Err(WriteError::Refused { message, .. })
            if message.contains("denied the request") && message.contains(sentence) =>
        {
            Heard::Answers
        }
        Err(WriteError::Refused { message, .. }) if message.contains("failed calling webhook") => {
            Heard::Silence(message.clone())
        }
        Err(other) => Heard::Nothing(other.to_string()),
    }
}

/// Which failure policy follows.
pub(super) fn policy(there: &Configuration, heard: &Heard, wanted: FailurePolicy) -> FailurePolicy {
    match heard {
        Heard::Answers => wanted,
        Heard::Nothing(_) if there.fails() => wanted,
        Heard::Silence(_) | Heard::Nothing(_) => FailurePolicy::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundle: &str, policies: [&str; 2]) -> Configuration {
        let [first, second] = policies;
        serde_json::from_value(json!({
            "metadata": {"name": "validator", "uid": "u1", "labels": {}},
            "webhooks": [
                {"name": "rev.validation.istio.io", "clientConfig": {"caBundle": bundle, "service": {}}, "failurePolicy": first},
                {"name": "validation.istio.io", "clientConfig": {"caBundle": bundle}, "failurePolicy": second},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn only_what_differs_is_written_and_nothing_of_what_others_say() {
        use FailurePolicy::{Fail, Ignore};
        // "roots" in base64.
        const ROOTS: &str = "cm9vdHM=";
        for (bundle, there, wanted, writes) in [
            (ROOTS, ["Fail", "Fail"], Fail, false),
            (ROOTS, ["Ignore", "Ignore"], Ignore, false),
            (ROOTS, ["Fail", "Ignore"], Fail, true),
            (ROOTS, ["Fail", "Fail"], Ignore, true),
            ("b3RoZXJz", ["Fail", "Fail"], Fail, true),
            ("", ["Ignore", "Ignore"], Ignore, true),
        ] {
            let patch = configuration(bundle, there).patch("roots", wanted);
            assert_eq!(patch.is_some(), writes, "{bundle} {there:?} {wanted:?}");
            let Some(patch) = patch else { continue };
            assert_eq!(patch["metadata"], json!({"name": "validator", "uid": "u1"}));
            let webhook = json!({"name": "validation.istio.io", "clientConfig": {"caBundle": ROOTS}, "failurePolicy": wanted.as_str()});
            assert_eq!(patch["webhooks"][1], webhook);
        }
        assert!(
            configuration("", ["Ignore"; 2])
                .patch("roots", Ignore)
                .is_some_and(|patch| patch["webhooks"][0]["name"] == "rev.validation.istio.io")
        );
    }

    #[test]
    fn requests_are_refused_in_its_absence_only_once_it_was_seen_to_answer() {
        use FailurePolicy::{Fail, Ignore};
        let refused = |code, message: &str| Err(WriteError::Refused { code, message: message.to_owned() });
        let denied = "admission webhook \"rev.validation.istio.io\" denied the request: spec.host: no";
        let unreached =
            "Internal error occurred: failed calling webhook \"rev.validation.istio.io\": connection refused";
        for (answer, from_ignore, from_fail) in [
            (refused(400, denied), Fail, Fail),
            (Ok(()), Ignore, Ignore),
            (refused(500, unreached), Ignore, Ignore),
            // Others may say no, or nobody: nothing is known of the webhook.
            (refused(400, "admission webhook \"other\" denied the request: no"), Ignore, Fail),
            (refused(403, "forbidden"), Ignore, Fail),
            (refused(404, "no such kind"), Ignore, Fail),
            (Err(WriteError::Broken("nobody answers".to_owned())), Ignore, Fail),
        ] {
            let heard = heard(&answer, "spec.host: no");
            for (there, expected) in [("Ignore", from_ignore), ("Fail", from_fail)] {
                let there = configuration("", [there; 2]);
                assert_eq!(policy(&there, &heard, Fail), expected, "{answer:?}");
                assert_eq!(policy(&there, &heard, Ignore), Ignore, "{answer:?}");
            }
        }
    }
}
