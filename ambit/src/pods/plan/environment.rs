//! A program's environment: the machine's, the container's `env`, references expanded. Pure.
use super::cannot_run::CannotRun;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// What a pod is given by the machine.
#[derive(Debug, Clone)]
pub(crate) struct Given<'a> {
    pub(crate) ips: &'a [IpAddr],
    pub(crate) node: &'a str,
    pub(crate) node_ip: IpAddr,
    pub(crate) uid: &'a str,
    /// Variables of the machine that programs need to run at all, `PATH` among them.
    pub(crate) machine_env: &'a [(String, String)],
    /// Stands for the program `ambit`.
    pub(crate) own_exe: &'a Path,
}

/// The host name that the pod's programs see.
pub(crate) fn hostname(pod: &Pod) -> &str {
    let written = pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    written.or(pod.metadata.name.as_deref()).unwrap_or_default()
}

/// All variables of a container, in the order in which they are set.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    given: &Given<'_>,
) -> Result<Vec<(String, String)>, CannotRun> {
    let mut env: Vec<(String, String)> = given.machine_env.to_vec();
    let mut set = |name: &str, value: String| match env.iter_mut().find(|(k, _)| k == name) {
        Some(slot) => slot.1 = value,
        None => env.push((name.to_owned(), value)),
    };
    set("HOSTNAME", hostname(pod).to_owned());
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = value_of(pod, variable, given, &known).map_err(|why| CannotRun::BadVariable {
            container: container.name.clone(),
            name: variable.name.clone(),
            why,
        })?;
        known.insert(variable.name.clone(), value.clone());
        set(&variable.name, value);
    }
    Ok(env)
}

fn value_of(
    pod: &Pod,
    variable: &EnvVar,
    given: &Given<'_>,
    known: &BTreeMap<String, String>,
) -> Result<String, String> {
    let Some(source) = &variable.value_from else {
        let known: Vec<(String, String)> = known.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        return Ok(expand(variable.value.as_deref().unwrap_or_default(), &known));
    };
    let Some(field) = &source.field_ref else {
        return Err("only value and valueFrom.fieldRef are supported".into());
    };
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    Ok(match field.field_path.as_str() {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => given.uid.to_owned(),
        "spec.nodeName" => given.node.to_owned(),
        "spec.serviceAccountName" => {
            spec.and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".into())
        }
        "status.podIP" => given.ips.first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => given.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "status.hostIP" => given.node_ip.to_string(),
        other => return Err(format!("fieldPath {other} is not supported")),
    })
}

/// Replaces `$(NAME)` by a known variable, as Kubernetes does; `$$` is a dollar, an unknown name stays as written.
pub(super) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        match name.and_then(|(name, after)| Some((env.iter().find(|(k, _)| k == name)?, after))) {
            Some(((_, value), after)) => {
                out.push_str(value);
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}
