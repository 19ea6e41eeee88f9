//! What a Lease says, in client-go's fields. Pure.
//!
//! Its times are written for people and for other clients: nobody here reads them as times, because clocks of machines differ. What
//! counts is that they change.

use std::time::{Duration, SystemTime};

use mesh_runtime::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// `spec` of a `coordination.k8s.io/v1` Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lease {
    /// Who leads; empty once it was let go.
    pub holder_identity: String,
    /// For how long it is the holder's after each renewal.
    pub lease_duration_seconds: u64,
    /// When the holder got it.
    pub acquire_time: Option<String>,
    /// When the holder said last that it goes on.
    pub renew_time: Option<String>,
    /// How often the holder changed.
    pub lease_transitions: u64,
}

impl Lease {
    /// Nobody holds it.
    pub fn is_free(&self) -> bool {
        self.holder_identity.is_empty()
    }

    /// How long it is the holder's, seen to change now.
    pub(super) fn duration(&self) -> Duration {
        Duration::from_secs(self.lease_duration_seconds)
    }

    /// Taken, or renewed, by `holder` for `duration`. `before` is what is there.
    pub(super) fn held(before: Option<&Self>, holder: &str, duration: Duration, now: SystemTime) -> Self {
        let now = Some(Timestamp::from(now).to_string());
        let renewed = before.filter(|before| before.holder_identity == holder);
        Self {
            holder_identity: holder.to_owned(),
            lease_duration_seconds: duration.as_secs(),
            acquire_time: renewed.map_or(now.clone(), |before| before.acquire_time.clone()),
            renew_time: now,
            lease_transitions: match (before, renewed) {
                (_, Some(before)) => before.lease_transitions,
                (Some(before), None) => before.lease_transitions + 1,
                (None, None) => 0,
            },
        }
    }

    /// Let go by its holder: whoever comes next need not wait.
    pub(super) fn released(&self, now: SystemTime) -> Self {
        let now = Some(Timestamp::from(now).to_string());
        Self {
            holder_identity: String::new(),
            // Zero is none: an API server refuses it.
            lease_duration_seconds: 1,
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: self.lease_transitions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_other_clients() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first = Lease::held(None, "a", Duration::from_secs(15), at(0));
        let expected = serde_json::json!({
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "1970-01-01T00:00:00.000000Z",
            "renewTime": "1970-01-01T00:00:00.000000Z",
            "leaseTransitions": 0,
        });
        assert_eq!(serde_json::to_value(&first).unwrap(), expected);
        let renewed = Lease::held(Some(&first), "a", Duration::from_secs(15), at(2));
        assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&first.acquire_time, 0));
        assert_ne!(renewed.renew_time, first.renew_time);
        let free = renewed.released(at(3));
        assert!(free.is_free() && free.lease_duration_seconds == 1);
        let next = Lease::held(Some(&free), "b", Duration::from_secs(15), at(4));
        assert_eq!((&*next.holder_identity, next.lease_transitions), ("b", 1));
        // What others leave out.
        assert!(serde_json::from_str::<Lease>("{}").unwrap().is_free());
    }
}
