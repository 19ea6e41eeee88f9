//! Which endpoints are preferred: `spec.trafficDistribution`, else the annotation
//! `networking.istio.io/traffic-distribution` of the Service, else that of its namespace.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::labels;
use mesh_model::service::{BalanceMode, Scope};

use super::condition::Condition;

/// Which endpoints are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    Any,
    SameZone,
    SameNode,
}

impl Distribution {
    /// As proxies are told.
    pub(super) fn balance(self) -> (Vec<Scope>, BalanceMode) {
        match self {
            Self::Any => (Vec::new(), BalanceMode::Any),
            Self::SameZone => (vec![Scope::Network, Scope::Region, Scope::Zone], BalanceMode::Failover),
            Self::SameNode => {
                (vec![Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node], BalanceMode::Failover)
            }
        }
    }
}

/// What a service asks for. A word that nobody knows asks for nothing: the next place is looked at, as istiod does.
pub(super) fn of(service: &Service, namespace: Option<&Namespace>) -> Distribution {
    let field = service.spec.as_ref().and_then(|s| s.traffic_distribution.as_deref()).and_then(from_field);
    let own = || annotation(&service.metadata).and_then(from_annotation);
    let inherited = || annotation(&namespace?.metadata).and_then(from_annotation);
    field.or_else(own).or_else(inherited).unwrap_or(Distribution::Any)
}

/// What a ServiceEntry asks for: it has no field for it.
pub(super) fn of_entry(metadata: &ObjectMeta, namespace: Option<&Namespace>) -> Distribution {
    let own = annotation(metadata).and_then(from_annotation);
    let inherited = || annotation(&namespace?.metadata).and_then(from_annotation);
    own.or_else(inherited).unwrap_or(Distribution::Any)
}

/// The words of the API reference, as it spells them.
fn from_field(word: &str) -> Option<Distribution> {
    match word {
        "PreferClose" | "PreferSameZone" => Some(Distribution::SameZone),
        "PreferSameNode" => Some(Distribution::SameNode),
        _ => None,
    }
}

/// The same words; capitals do not count.
fn from_annotation(word: &str) -> Option<Distribution> {
    match word.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => Some(Distribution::SameZone),
        "prefersamenode" => Some(Distribution::SameNode),
        _ => None,
    }
}

fn annotation(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(labels::TRAFFIC_DISTRIBUTION).map(String::as_str)
}

/// The word in a service that nobody knows, for its writer.
pub(super) fn unknown_in_service(object: &Service) -> Option<Condition> {
    let field = object.spec.as_ref().and_then(|s| s.traffic_distribution.as_deref());
    let field = field.filter(|word| from_field(word).is_none()).map(|word| {
        format!(
            "spec.trafficDistribution: {word:?} is not known, and decides nothing: write PreferSameZone, PreferSameNode \
             or PreferClose"
        )
    });
    field.or_else(|| complaint(&object.metadata)).map(|message| Condition::unsupported(true, message))
}

/// The word on a namespace that nobody knows, for its writer.
pub(super) fn unknown_on_namespace(object: &Namespace) -> Option<Condition> {
    complaint(&object.metadata).map(|message| Condition::unsupported(true, message))
}

fn complaint(metadata: &ObjectMeta) -> Option<String> {
    let word = annotation(metadata).filter(|word| from_annotation(word).is_none())?;
    Some(format!(
        "annotation {}: {word:?} is not known, and decides nothing: write PreferSameZone, PreferSameNode or \
         PreferClose",
        labels::TRAFFIC_DISTRIBUTION
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides() {
        for (field, own, inherited, expected) in [
            (None, None, None, Distribution::Any),
            (Some("PreferClose"), None, None, Distribution::SameZone),
            (Some("PreferSameZone"), None, None, Distribution::SameZone),
            (Some("PreferSameNode"), Some("PreferClose"), None, Distribution::SameNode),
            (Some("preferclose"), None, None, Distribution::Any),
            (Some("Nearby"), Some("PreferClose"), None, Distribution::SameZone),
            (None, Some("preferclose"), None, Distribution::SameZone),
            (None, Some("PREFERSAMEZONE"), None, Distribution::SameZone),
            (None, Some("preferSameNode"), None, Distribution::SameNode),
            (None, None, Some("prefersamenode"), Distribution::SameNode),
            (None, Some("close"), Some("PreferClose"), Distribution::SameZone),
            (None, Some("close"), None, Distribution::Any),
        ] {
            let annotations =
                |word: Option<&str>| Some([(labels::TRAFFIC_DISTRIBUTION.to_owned(), word?.to_owned())].into());
            let mut service = Service::default();
            service.spec.get_or_insert_default().traffic_distribution = field.map(str::to_owned);
            service.metadata.annotations = annotations(own);
            let mut namespace = Namespace::default();
            namespace.metadata.annotations = annotations(inherited);
            assert_eq!(of(&service, Some(&namespace)), expected, "{field:?} {own:?} {inherited:?}");
        }
    }
}
