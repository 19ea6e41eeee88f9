//! Where a pod is in its life, as its object says: one answer for the folder of YAML and for Kubernetes. Pure.
//!
//! ```text
//! Pending ──▶ Starting ◀──▶ Ready ──▶ Ending ──▶ Ended
//!    └────────────┴───────────────────▶ ▲          ▲
//!                                       └──────────┘ (or at once)
//! ```
//!
//! A pod whose deletion was asked for goes on running until its programs have ended: its object stays, with
//! `deletionTimestamp`. Until then it has its address and its identity, calls and is called. Its successor of the same
//! name is another pod, with another uid.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use mesh_model::address::canonical_ip;

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has no address: nobody can know it.
    Pending,
    /// It runs, or is about to. It has its address and identity, and is not ready to be sent anything through a Service.
    Starting,
    /// It is ready.
    Ready,
    /// Its deletion was asked for and its programs still run. It is not ready for new connections through a Service.
    Ending {
        /// It would still answer: where no endpoint is ready, those that serve take their place.
        serving: bool,
    },
    /// It has run to its end: its address may be another's already.
    Ended,
}

/// Where a pod is in its life.
pub(crate) fn stage(pod: &Pod) -> Stage {
    let default = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&default);
    let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        Stage::Ended
    } else if addresses(pod).is_empty() {
        Stage::Pending
    } else if pod.metadata.deletion_timestamp.is_some() {
        Stage::Ending { serving: is_ready }
    } else if is_ready {
        Stage::Ready
    } else {
        Stage::Starting
    }
}

/// Its addresses, in normal form.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).map(canonical_ip).collect();
    if addresses.is_empty() {
        addresses.extend(status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()).map(canonical_ip));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Kind, Object};

    #[test]
    fn from_its_first_day_to_its_last() {
        let (none, some) = ("", "10.244.1.2");
        // (phase, address, Ready, deletion asked for, stage)
        for (phase, ip, ready, deleted, expected) in [
            ("Pending", none, None, false, Stage::Pending),
            ("Pending", none, None, true, Stage::Pending),
            // Its sandbox is there; init containers may run.
            ("Pending", some, Some("False"), false, Stage::Starting),
            ("Running", some, Some("False"), false, Stage::Starting),
            ("Running", some, None, false, Stage::Starting),
            ("Running", some, Some("True"), false, Stage::Ready),
            ("Running", some, Some("Unknown"), false, Stage::Starting),
            ("Running", some, Some("True"), true, Stage::Ending { serving: true }),
            ("Running", some, Some("False"), true, Stage::Ending { serving: false }),
            ("Pending", some, None, true, Stage::Ending { serving: false }),
            ("Unknown", some, Some("True"), true, Stage::Ending { serving: true }),
            ("Succeeded", some, Some("False"), false, Stage::Ended),
            ("Failed", some, Some("True"), true, Stage::Ended),
            ("Failed", none, None, false, Stage::Ended),
        ] {
            let mut value = serde_json::json!({
                "metadata": {"name": "p", "namespace": "n"},
                "spec": {"containers": []},
                "status": {"phase": phase},
            });
            if !ip.is_empty() {
                value["status"]["podIP"] = ip.into();
            }
            if let Some(ready) = ready {
                value["status"]["conditions"] = serde_json::json!([{"type": "Ready", "status": ready}]);
            }
            if deleted {
                value["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z".into();
            }
            let Object::Pod(pod) = Object::from_value(Kind::Pod, &value).unwrap() else { panic!() };
            assert_eq!(stage(&pod), expected, "{phase} {ip:?} {ready:?} {deleted}");
        }
    }
}
