//! What is wrong is refused where it is written: a validating webhook of the API server, by the readers that sources use.
//!
//! | file | question |
//! |---|---|
//! | [`review`] | is the object wrong, whatever else there is? (pure) |
//! | [`serve`] | answers the API server, over HTTPS |
//! | `configuration` | what is to be in the webhook's configuration? (pure) |
//! | [`keep`] | the leader writes it there, and finds out whether the webhook answers |
//! | [`metrics`] | what is counted? |
//!
//! It never refuses what depends on other objects: what is there in another moment is for status to say.

mod configuration;
pub mod keep;
pub mod metrics;
pub mod review;
pub mod serve;

pub use configuration::FailurePolicy;

use crate::resources::traffic_policy;

/// Whether objects of a group are looked at: Istio's, and ours.
fn is_validated(group: &str) -> bool {
    group.ends_with(".istio.io") || group == traffic_policy::GROUP
}

/// How the webhook is served and configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `WEBHOOK_PORT`: where it is served on all addresses, default 15017.
    pub port: u16,
    /// `VALIDATION_WEBHOOK_CONFIG_NAME`: the ValidatingWebhookConfiguration that it has.
    pub configuration: String,
    /// `VALIDATION_WEBHOOK_FAILURE_POLICY`: what becomes of a request while it does not answer, once it was seen to answer; default
    /// Fail.
    pub failure_policy: FailurePolicy,
    /// Ours.
    pub namespace: String,
    /// Ours.
    pub revision: String,
}
