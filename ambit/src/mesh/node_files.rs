//! What a node's agent is told (`pods.json`), how it decides, and what it answers (`enrolled.json`): in the agent's own
//! types, by its own rules and with the settings that it was started with.
use node_agent::config::Config;
use node_agent::enroll::{Enrolment, enrolment};
use node_agent::enrolled::States;
use node_agent::pods::Pod;
use node_agent::redirect::Settings;
use std::path::Path;

/// Whether a pod belongs to the mesh, as its node's agent decides; with the reason either way.
pub(crate) fn belongs(pod: &Pod, agent: &Config) -> Result<String, String> {
    let decided = enrolment(pod, &agent.selection);
    match decided {
        Enrolment::In(_) => Ok(decided.to_string()),
        Enrolment::Out(_) => Err(decided.to_string()),
    }
}

/// Whether a pod's DNS goes to ztunnel: it is to be in the mesh, and neither it nor the agent's settings say otherwise.
pub(crate) fn dns_is_captured(pod: &Pod, agent: &Config) -> bool {
    pod.netns.is_some() && belongs(pod, agent).is_ok() && Settings::of(pod, agent.redirection).0.dns_capture
}

/// What a node's agent did about its pods, by their uid. A broken file is logged as the agent's fault.
pub(crate) fn enrolled(path: &Path) -> States {
    node_agent::enrolled::read(path).unwrap_or_else(|e| {
        tracing::warn!("{} is not what a node agent writes: {e}", path.display());
        States::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_model::labels;

    #[test]
    fn the_settings_of_the_agent_decide() {
        let ambient = || [(labels::DATAPLANE_MODE.to_owned(), labels::DATAPLANE_MODE_AMBIENT.to_owned())];
        let pod = |namespace: &str| Pod {
            uid: "u".into(),
            name: "web".into(),
            namespace: namespace.into(),
            namespace_labels: ambient().into(),
            netns: Some("/run/netns/u".into()),
            ..Pod::default()
        };
        let asks = Pod { annotations: [(labels::DNS_CAPTURE.to_owned(), "true".to_owned())].into(), ..pod("shop") };
        let without = Pod { netns: None, ..pod("shop") };
        // (settings, pod, belongs, its DNS is captured)
        for (set, pod, belongs, dns) in [
            (&[][..], &pod("shop"), true, true),
            (&[], &pod("kube-system"), false, false),
            (&[], &without, true, false),
            (&[("EXCLUDE_NAMESPACES", "shop")], &pod("shop"), false, false),
            (&[("EXCLUDE_NAMESPACES", "other")], &pod("kube-system"), true, true),
            (&[("AMBIENT_DNS_CAPTURE", "false")], &pod("shop"), true, false),
            (&[("AMBIENT_DNS_CAPTURE", "false")], &asks, true, true),
        ] {
            let agent = node_agent::config::check(&set.iter().copied().collect()).unwrap();
            let decided = super::belongs(pod, &agent);
            assert_eq!(decided.is_ok(), belongs, "{set:?} {pod:?} {decided:?}");
            assert_eq!(dns_is_captured(pod, &agent), dns, "{set:?} {pod:?}");
        }
    }
}
