//! Pods that should be in the mesh and are not, or not for certain: which, why, and what to do. Never in silence.

use std::fmt::Write as _;

use mesh_handoff::agent_end::AddError;

use crate::operations::OperationError;

/// Most pods that the readiness detail names.
const NAMED: usize = 10;

/// Why a pod is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has no network namespace yet.
    NoNetns,
    /// Its turn has not come, or is under way.
    UnderWay,
    /// ztunnel serves it; not everybody's tables hold that it takes HBONE.
    Tables,
    /// Its network namespace cannot be opened.
    Netns,
    /// No ztunnel is there.
    NoZtunnel,
    /// ztunnel does not serve it.
    Refused,
    /// Its redirection rules cannot be made.
    Rules,
    /// The node's rules for its probes cannot be made.
    Probes,
    /// It was captured; now its rules are not as they should be, or cannot be looked at.
    RulesLost,
}

impl Why {
    /// The word for it in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoNetns => "no_netns",
            Self::UnderWay => "under_way",
            Self::Tables => "tables",
            Self::Netns => "netns",
            Self::NoZtunnel => "no_ztunnel",
            Self::Refused => "refused_by_ztunnel",
            Self::Rules => "rules",
            Self::Probes => "probes",
            Self::RulesLost => "rules_lost",
        }
    }

    /// What a person can do. The agent tries again by itself.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::NoNetns => "wait for the container runtime, or see why the pod's sandbox does not start",
            Self::UnderWay => "wait",
            Self::Tables => "see that the control plane runs, and which ztunnel does not answer it",
            Self::Netns => "delete the pod, so that it gets a new sandbox",
            Self::NoZtunnel => "start ztunnel on this node",
            Self::Refused => "free ports 15001, 15006 and 15008 in the pod, and see ztunnel's log",
            Self::Rules | Self::Probes => "give the agent CAP_NET_ADMIN and the node's kernel nf_tables",
            Self::RulesLost => "find what else edits nftables in the pod, and delete the pod if it does not recover",
        }
    }
}

impl From<&OperationError> for Why {
    fn from(error: &OperationError) -> Self {
        match error {
            OperationError::Netns(_) | OperationError::Descriptor(_) => Self::Netns,
            OperationError::Rules(_) => Self::Rules,
            OperationError::Handoff(AddError::NoZtunnel | AddError::Lost(_)) => Self::NoZtunnel,
            OperationError::Handoff(AddError::Refused(_) | AddError::TooLong(_)) => Self::Refused,
            OperationError::Probes(_) => Self::Probes,
        }
    }
}

/// A pod that is outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) why: Why,
    /// In words.
    pub(crate) detail: String,
}

/// All of them in one line, the first ones each with its reason and what to do; `None` if there are none.
pub(crate) fn told(pods: &[Outside]) -> Option<String> {
    let mut text = match pods.len() {
        0 => return None,
        1 => "1 pod should be in the mesh and is not: ".to_owned(),
        n => format!("{n} pods should be in the mesh and are not: "),
    };
    for (i, Outside { namespace, name, why, detail, .. }) in pods.iter().take(NAMED).enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{namespace}/{name} because {detail} (to do: {})", why.advice());
    }
    if pods.len() > NAMED {
        let _ = write!(text, "; and {} more", pods.len() - NAMED);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_why_and_what_to_do() {
        let pods: Vec<Outside> = (0..12)
            .map(|i| Outside {
                uid: String::new(),
                namespace: "shop".to_owned(),
                name: format!("web-{i}"),
                why: if i == 0 { Why::NoZtunnel } else { Why::Netns },
                detail: format!("of reason {i}"),
            })
            .collect();
        assert_eq!(told(&[]), None);
        assert_eq!(
            told(&pods[..2]).unwrap(),
            "2 pods should be in the mesh and are not: shop/web-0 because of reason 0 (to do: start ztunnel on this \
             node); shop/web-1 because of reason 1 (to do: delete the pod, so that it gets a new sandbox)"
        );
        let all = told(&pods).unwrap();
        assert!(all.contains("web-9") && !all.contains("web-10") && all.ends_with("; and 2 more"), "{all}");
    }

    #[test]
    fn each_failure_has_its_word() {
        let lost = OperationError::from(AddError::Lost("reset".to_owned()));
        let refused = OperationError::from(AddError::Refused("port in use".to_owned()));
        let words = [&OperationError::from(AddError::NoZtunnel), &lost, &refused].map(|error| Why::from(error).label());
        assert_eq!(words, ["no_ztunnel", "no_ztunnel", "refused_by_ztunnel"]);
    }
}
