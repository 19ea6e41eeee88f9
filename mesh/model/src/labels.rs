//! The labels and annotations by which users speak to the mesh: Istio's and the Gateway API's words.

/// Label on a Namespace or Pod: `ambient` joins the mesh, `none` on a Pod stays out.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Value of [`DATAPLANE_MODE`] that joins.
pub const DATAPLANE_MODE_AMBIENT: &str = "ambient";
/// Value of [`DATAPLANE_MODE`] on a Pod that stays out of a namespace that joined.
pub const DATAPLANE_MODE_NONE: &str = "none";
/// Annotation on a Pod, written by the node agent: how far its enrolment got.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Value of [`REDIRECTION`]: captured and served by ztunnel; peers may use HBONE.
pub const REDIRECTION_ENABLED: &str = "enabled";
/// Value of [`REDIRECTION`]: it should be in the mesh, and no ztunnel serves it (yet).
pub const REDIRECTION_PENDING: &str = "pending";
/// Annotation on a Pod (bool): inbound plaintext is not captured.
pub const BYPASS_INBOUND_CAPTURE: &str = "ambient.istio.io/bypass-inbound-capture";
/// Annotation on a Pod (bool): overrides the node's default for DNS capture.
pub const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// Annotation on a Pod: comma list of interfaces whose TCP counts as the pod's own outbound.
pub const REROUTE_VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation on a Pod that already has a sidecar.
pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
/// Label on a Pod or WorkloadEntry (`http`): it terminates HBONE itself.
pub const TUNNEL: &str = "networking.istio.io/tunnel";
/// Label on a Namespace (its network), Gateway or Node.
pub const TOPOLOGY_NETWORK: &str = "topology.istio.io/network";
/// Label on a Node.
pub const TOPOLOGY_REGION: &str = "topology.kubernetes.io/region";
/// Label on a Node.
pub const TOPOLOGY_ZONE: &str = "topology.kubernetes.io/zone";
/// Label on a Node.
pub const TOPOLOGY_SUBZONE: &str = "topology.istio.io/subzone";
/// Label on a Pod: canonical name, first choice.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Label on a Pod: canonical revision, first choice.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Label on a Pod: canonical name, second choice.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Label on a Pod: canonical revision, second choice.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// Label on a Service, ServiceEntry, Pod, WorkloadEntry or Namespace: the waypoint in the way to it; [`USE_WAYPOINT_NONE`] is none.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Value of [`USE_WAYPOINT`]: none, whatever the namespace says.
pub const USE_WAYPOINT_NONE: &str = "none";
/// Label beside [`USE_WAYPOINT`]: the waypoint's namespace, the object's own when left out.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Label on a Gateway or its GatewayClass: what it is in the way to, `service`, `workload`, `all` or `none`.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Annotation on a Service or Namespace (bool): connections go around a waypoint that is missing or not ready, and around its
/// policies.
pub const WAYPOINT_FAIL_OPEN: &str = "ambit.dev/waypoint-fail-open";
/// Label on what belongs to a gateway or waypoint, with its name.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label on an object of Istio's: the revision of the control plane that it is for, or a tag of it.
pub const REVISION: &str = "istio.io/rev";
/// Label on a Service: a tag of the revision that its label [`REVISION`] names.
pub const TAG: &str = "istio.io/tag";
/// Label on a ServiceEntry (bool): `false` allocates no addresses to its hosts.
pub const ENABLE_AUTOALLOCATE_IP: &str = "networking.istio.io/enable-autoallocate-ip";
/// Label on a WorkloadEntry: the name users know its owner by.
pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Annotation on a WorkloadEntry that registered itself: the WorkloadGroup.
pub const AUTO_REGISTRATION_GROUP: &str = "istio.io/autoRegistrationGroup";
/// Annotation on an AuthorizationPolicy (bool): decide and log, enforce nothing.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// Annotation on a Service, ServiceEntry or Namespace: locality preference where the spec has none.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Parses a boolean the way Go's `strconv.ParseBool` does, as Istio's annotations are read.
/// `None` when it is none of Go's spellings.
pub fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_spelt_as_in_go() {
        for (spellings, read) in [
            (&["1", "t", "T", "TRUE", "true", "True"][..], Some(true)),
            (&["0", "f", "F", "FALSE", "false", "False"], Some(false)),
            (&["", "yes", "tRUE", "on", " true", "2"], None),
        ] {
            for spelling in spellings {
                assert_eq!(parse_bool(spelling), read, "{spelling:?}");
            }
        }
    }
}
