//! A program's environment: the machine's, the container's `env`, references expanded. Pure.
use super::{CannotRun, Given};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use std::collections::BTreeMap;

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
    set("HOSTNAME", super::hostname(pod).to_owned());
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
