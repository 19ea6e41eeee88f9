//! What a pod asks for and does not get here. Pure.
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// The fields that are not done, each with what happens instead; the pod runs without. The recipe "Run a mesh from YAML" has the
/// same table.
pub(crate) fn ignored(pod: &Pod) -> Vec<&'static str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    NOT_DONE.iter().filter(|(_, asked)| asked(spec)).map(|(what, _)| *what).collect()
}

type Asked = fn(&PodSpec) -> bool;

const NOT_DONE: &[(&str, Asked)] = &[
    ("volumeMounts: programs see this machine's files", |s| any(s, |c| some(c.volume_mounts.as_ref()))),
    ("envFrom: write the variables in env", |s| any(s, |c| some(c.env_from.as_ref()))),
    ("securityContext: programs run as whoever started the mesh, with a pod's usual capabilities", |s| {
        s.security_context.as_ref().is_some_and(|c| *c != <_>::default()) || any(s, |c| c.security_context.is_some())
    }),
    ("resources.limits: programs may use what the machine has", |s| {
        any(s, |c| c.resources.as_ref().is_some_and(|r| some_map(r.limits.as_ref())))
    }),
    ("ports.hostPort: the port is reached at the pod's address only", |s| {
        any(s, |c| c.ports.iter().flatten().any(|p| p.host_port.is_some()))
    }),
    ("lifecycle.stopSignal: programs are ended with SIGTERM", |s| {
        any(s, |c| c.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some()))
    }),
    ("dnsPolicy and dnsConfig: names are resolved as in a cluster", |s| {
        s.dns_config.is_some() || s.dns_policy.as_deref().is_some_and(|p| p != "ClusterFirst")
    }),
    ("activeDeadlineSeconds: the pod runs until it ends", |s| s.active_deadline_seconds.is_some()),
    ("hostPID, hostIPC and shareProcessNamespace: each container has its own processes", |s| {
        [s.host_pid, s.host_ipc, s.share_process_namespace].contains(&Some(true))
    }),
    ("affinity, nodeSelector and topologySpreadConstraints: write nodeName", |s| {
        s.affinity.is_some() || some_map(s.node_selector.as_ref()) || some(s.topology_spread_constraints.as_ref())
    }),
    ("schedulingGates: the pod starts at once", |s| some(s.scheduling_gates.as_ref())),
    ("readinessGates: only the containers decide", |s| some(s.readiness_gates.as_ref())),
    ("ephemeralContainers", |s| some(s.ephemeral_containers.as_ref())),
];

fn any(spec: &PodSpec, asked: impl Fn(&Container) -> bool) -> bool {
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(asked)
}

fn some<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn some_map<K, V>(map: Option<&std::collections::BTreeMap<K, V>>) -> bool {
    map.is_some_and(|map| !map.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_said() {
        for (spec, expected) in [
            ("containers: [{name: c}]", None),
            ("containers: [{name: c, volumeMounts: [{name: v, mountPath: /v}]}]", Some("volumeMounts")),
            (
                "containers: [{name: c}], initContainers: [{name: i, envFrom: [{configMapRef: {name: m}}]}]",
                Some("envFrom"),
            ),
            ("containers: [{name: c}], securityContext: {}", None),
            ("containers: [{name: c}], securityContext: {runAsUser: 5}", Some("securityContext")),
            ("containers: [{name: c, securityContext: {runAsUser: 5}}]", Some("securityContext")),
            ("containers: [{name: c, resources: {requests: {cpu: 1}}}]", None),
            ("containers: [{name: c, resources: {limits: {cpu: 1}}}]", Some("resources.limits")),
            ("containers: [{name: c, ports: [{containerPort: 80}]}]", None),
            ("containers: [{name: c, ports: [{containerPort: 80, hostPort: 80}]}]", Some("ports.hostPort")),
            ("containers: [{name: c, lifecycle: {stopSignal: SIGUSR1}}]", Some("lifecycle.stopSignal")),
            ("containers: [{name: c, lifecycle: {preStop: {sleep: {seconds: 1}}}}]", None),
            ("containers: [{name: c}], dnsPolicy: ClusterFirst", None),
            ("containers: [{name: c}], dnsPolicy: Default", Some("dnsPolicy")),
            ("containers: [{name: c}], activeDeadlineSeconds: 5", Some("activeDeadlineSeconds")),
            ("containers: [{name: c}], shareProcessNamespace: true", Some("hostPID")),
            ("containers: [{name: c}], nodeSelector: {a: b}", Some("affinity")),
            ("containers: [{name: c}], schedulingGates: [{name: g}]", Some("schedulingGates")),
            ("containers: [{name: c}], readinessGates: [{conditionType: g}]", Some("readinessGates")),
            ("containers: [{name: c}], ephemeralContainers: [{name: e}]", Some("ephemeralContainers")),
        ] {
            let pod: Pod = serde_saphyr::from_str(&format!("{{metadata: {{name: p}}, spec: {{{spec}}}}}")).unwrap();
            match (ignored(&pod).as_slice(), expected) {
                ([], None) => {}
                ([one], Some(begins)) if one.starts_with(begins) => {}
                (other, _) => panic!("{spec}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_recipe_has_the_same_table() {
        let recipe = include_str!("../../../../docs/recipes/run-a-mesh.md");
        for (what, _) in NOT_DONE {
            let fields = what.split(':').next().unwrap_or(what);
            assert!(recipe.contains(&format!("| {fields} |")), "docs/recipes/run-a-mesh.md has no row `{fields}`");
        }
    }
}
