//! Is this pod in the mesh? Pure, with the reason.

use std::fmt;

use mesh_model::labels;

use crate::pods::Pod;

/// What makes a pod part of the mesh, or keeps it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// In the mesh.
    In(Because),
    /// Not in the mesh.
    Out(WhyNot),
}

/// Why a pod is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Its own label says so.
    PodLabel,
    /// The label of its namespace says so, and its own does not say otherwise.
    NamespaceLabel,
}

/// Why a pod is not in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// Neither the pod nor its namespace asks.
    NotAsked,
    /// The pod's label takes it out of a namespace that is in.
    OptedOut,
    /// It has no network of its own to redirect.
    HostNetwork,
    /// A sidecar handles its traffic already.
    Sidecar,
    /// The node's settings exclude its namespace.
    ExcludedNamespace,
    /// It is ztunnel itself.
    Ztunnel,
    /// It has run to its end.
    Finished,
}

/// The node's settings that bear on enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Namespaces that are never enrolled: `EXCLUDE_NAMESPACES`.
    pub excluded_namespaces: Vec<String>,
    /// Where the mesh's own components run: `SYSTEM_NAMESPACE`.
    pub system_namespace: String,
}

impl Default for Selection {
    fn default() -> Self {
        Self { excluded_namespaces: vec!["kube-system".to_owned()], system_namespace: "istio-system".to_owned() }
    }
}

/// Decides. What can never be enrolled comes before what was asked, so that the reason is the one to act on.
pub fn enrolment(pod: &Pod, selection: &Selection) -> Enrolment {
    use Enrolment::{In, Out};
    let asked = pod.labels.get(labels::DATAPLANE_MODE).map(String::as_str);
    let namespace_asked = pod.namespace_labels.get(labels::DATAPLANE_MODE).map(String::as_str);
    if pod.is_finished() {
        Out(WhyNot::Finished)
    } else if pod.host_network {
        Out(WhyNot::HostNetwork)
    } else if selection.excluded_namespaces.contains(&pod.namespace) {
        Out(WhyNot::ExcludedNamespace)
    } else if pod.namespace == selection.system_namespace && pod.labels.get("app").is_some_and(|app| app == "ztunnel") {
        Out(WhyNot::Ztunnel)
    } else if pod.annotations.contains_key(labels::SIDECAR_STATUS) {
        Out(WhyNot::Sidecar)
    } else if asked == Some(labels::DATAPLANE_MODE_AMBIENT) {
        In(Because::PodLabel)
    } else if namespace_asked == Some(labels::DATAPLANE_MODE_AMBIENT) {
        if asked == Some(labels::DATAPLANE_MODE_NONE) { Out(WhyNot::OptedOut) } else { In(Because::NamespaceLabel) }
    } else {
        Out(WhyNot::NotAsked)
    }
}

impl fmt::Display for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = labels::DATAPLANE_MODE;
        match self {
            Self::In(Because::PodLabel) => write!(f, "the pod has the label {label}=ambient"),
            Self::In(Because::NamespaceLabel) => write!(f, "the pod's namespace has the label {label}=ambient"),
            Self::Out(WhyNot::NotAsked) => write!(f, "neither the pod nor its namespace has the label {label}=ambient"),
            Self::Out(WhyNot::OptedOut) => write!(f, "the pod has the label {label}=none"),
            Self::Out(WhyNot::HostNetwork) => f.write_str("the pod uses the host's network"),
            Self::Out(WhyNot::Sidecar) => write!(f, "the pod has a sidecar ({})", labels::SIDECAR_STATUS),
            Self::Out(WhyNot::ExcludedNamespace) => {
                f.write_str("the node agent's settings exclude the pod's namespace")
            }
            Self::Out(WhyNot::Ztunnel) => f.write_str("the pod is ztunnel"),
            Self::Out(WhyNot::Finished) => f.write_str("the pod has run to its end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::Phase;

    fn decide(change: impl FnOnce(&mut Pod)) -> Enrolment {
        let mut pod = Pod { uid: "u".into(), name: "p".into(), namespace: "ns".into(), ..Pod::default() };
        change(&mut pod);
        enrolment(&pod, &Selection::default())
    }

    fn label(pod: &mut Pod, value: &str) {
        pod.labels.insert(labels::DATAPLANE_MODE.into(), value.into());
    }

    fn namespace(pod: &mut Pod, value: &str) {
        pod.namespace_labels.insert(labels::DATAPLANE_MODE.into(), value.into());
    }

    #[test]
    fn what_is_asked() {
        use Enrolment::{In, Out};
        for (pod_label, namespace_label, expected) in [
            (None, None, Out(WhyNot::NotAsked)),
            (Some("ambient"), None, In(Because::PodLabel)),
            (None, Some("ambient"), In(Because::NamespaceLabel)),
            (Some("none"), Some("ambient"), Out(WhyNot::OptedOut)),
            (Some("ambient"), Some("none"), In(Because::PodLabel)),
            (Some("none"), None, Out(WhyNot::NotAsked)),
            // Not a word we know: the namespace decides.
            (Some("sidecar"), Some("ambient"), In(Because::NamespaceLabel)),
            (Some("Ambient"), None, Out(WhyNot::NotAsked)),
        ] {
            let decided = decide(|pod| {
                pod_label.into_iter().for_each(|value| label(pod, value));
                namespace_label.into_iter().for_each(|value| namespace(pod, value));
            });
            assert_eq!(decided, expected, "{pod_label:?} {namespace_label:?}");
        }
    }

    #[test]
    fn what_can_never_be() {
        type Change = fn(&mut Pod);
        let cases: [(Change, WhyNot); 6] = [
            (|pod| pod.host_network = true, WhyNot::HostNetwork),
            (|pod| pod.namespace = "kube-system".into(), WhyNot::ExcludedNamespace),
            (|pod| pod.phase = Phase::Succeeded, WhyNot::Finished),
            (|pod| pod.phase = Phase::Failed, WhyNot::Finished),
            (|pod| drop(pod.annotations.insert(labels::SIDECAR_STATUS.into(), "{}".into())), WhyNot::Sidecar),
            (
                |pod| {
                    pod.namespace = "istio-system".into();
                    pod.labels.insert("app".into(), "ztunnel".into());
                },
                WhyNot::Ztunnel,
            ),
        ];
        for (change, expected) in cases {
            let decided = decide(|pod| {
                label(pod, "ambient");
                change(pod);
            });
            assert_eq!(decided, Enrolment::Out(expected));
        }
        // The name alone does not make a ztunnel.
        let decided = decide(|pod| {
            label(pod, "ambient");
            pod.labels.insert("app".into(), "ztunnel".into());
        });
        assert_eq!(decided, Enrolment::In(Because::PodLabel));
    }
}
