//! Certificates, as they are shown. Keys never are.

use mesh_identity::describe::{Description, base64, describe_all};
use mesh_identity::store::{State, Status};
use mesh_runtime::timestamp::Timestamp;
use serde_json::{Value, json};

/// What is held for one identity.
pub(super) fn held(status: &Status) -> Value {
    let state = match &status.state {
        State::Pending => "Initializing".to_owned(),
        State::Valid => "Available".to_owned(),
        State::Expired => "Expired".to_owned(),
        State::RenewalFails(error) => format!("Available, renewal fails: {error}"),
        State::Unavailable(error) => format!("Unavailable: {error}"),
    };
    let held = status.credentials.as_ref().map(|credentials| credentials.certificate());
    let (chain, roots) =
        held.map(|held| (describe_all(held.chain()), describe_all(held.roots().certificates()))).unwrap_or_default();
    json!({
        "identity": status.id.to_string(),
        "state": state,
        "certChain": chain.iter().map(certificate).collect::<Vec<_>>(),
        "rootCerts": roots.iter().map(certificate).collect::<Vec<_>>(),
    })
}

fn certificate(shown: &Description) -> Value {
    json!({
        // PEM within base64: what scripts for Istio take apart.
        "pem": base64(shown.pem.as_bytes()),
        "serialNumber": shown.serial,
        "validFrom": Timestamp::from(shown.not_before).to_string(),
        "expirationTime": Timestamp::from(shown.not_after).to_string(),
    })
}
