//! What a pod's spec asks to be run, decided before anything is started.
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Probe};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Why a pod cannot run here.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum CannotRun {
    #[error("the pod has no containers")]
    NoContainers,
    #[error(
        "container {container} has no `command`: ambit pulls no images, it runs programs of this machine; \
         name one in spec.containers[].command"
    )]
    NoCommand { container: String },
    #[error("container {container}: program `{program}` is not on this machine (looked in {path})")]
    NoProgram { container: String, program: String, path: String },
    #[error("container {container}: workingDir {directory} is not a directory on this machine")]
    NoDirectory { container: String, directory: String },
    #[error("container {container}: environment variable {name}: {why}")]
    BadVariable { container: String, name: String, why: String },
    #[error("container {container}: its readinessProbe has none of exec, httpGet and tcpSocket")]
    NoProbe { container: String },
    #[error("container {container}: its readinessProbe names port `{port}`, which the container does not have")]
    NoProbePort { container: String, port: String },
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    /// Whether to start again after this end.
    pub(crate) fn again(self, success: bool) -> bool {
        match self {
            Restart::Always => true,
            Restart::OnFailure => !success,
            Restart::Never => false,
        }
    }
}

/// One program of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// The container's name.
    pub(crate) container: String,
    /// The file to run.
    pub(crate) program: PathBuf,
    /// As the user wrote it.
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) readiness: Option<Readiness>,
}

/// How to find out whether a program is ready.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Readiness {
    pub(crate) check: Check,
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    /// Failures in a row that make a ready program unready.
    pub(crate) failures: u32,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    Tcp { port: u16 },
    Http { port: u16, path: String, host: Option<String> },
    Exec { command: Vec<String> },
}

/// All programs of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Each must end well before the next, and before the others start.
    pub(crate) first: Vec<Program>,
    pub(crate) programs: Vec<Program>,
    pub(crate) restart: Restart,
    pub(crate) grace: Duration,
}

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

/// Decides what to run.
pub(crate) fn plan(pod: &Pod, given: &Given<'_>) -> Result<Plan, CannotRun> {
    let spec = pod.spec.as_ref().filter(|s| !s.containers.is_empty()).ok_or(CannotRun::NoContainers)?;
    let restart = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let programs = spec.containers.iter().map(|c| program(pod, c, given)).collect::<Result<_, _>>()?;
    let first = spec.init_containers.iter().flatten().map(|c| program(pod, c, given)).collect::<Result<_, _>>()?;
    let grace = spec.termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30);
    Ok(Plan { first, programs, restart, grace: Duration::from_secs(grace) })
}

/// What the spec asks for and does not get here; the pod runs without.
pub(crate) fn ignored(pod: &Pod) -> Vec<&'static str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ignored = Vec::new();
    if containers().any(|c| c.volume_mounts.as_ref().is_some_and(|m| !m.is_empty())) {
        ignored.push("volumeMounts: programs see this machine's files");
    }
    if containers().any(|c| c.liveness_probe.is_some() || c.startup_probe.is_some()) {
        ignored.push("livenessProbe and startupProbe: only readiness is asked");
    }
    let user = containers().any(|c| c.security_context.as_ref().is_some_and(|s| s.run_as_user.is_some()));
    if user || spec.security_context.as_ref().is_some_and(|s| s.run_as_user.is_some()) {
        ignored.push("runAsUser: programs run as whoever started the mesh");
    }
    if containers().any(|c| c.env_from.as_ref().is_some_and(|e| !e.is_empty())) {
        ignored.push("envFrom");
    }
    ignored
}

fn program(pod: &Pod, container: &Container, given: &Given<'_>) -> Result<Program, CannotRun> {
    let env = environment(pod, container, given)?;
    let path = env.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.clone()).unwrap_or_default();
    let expand = |text: &String| self::expand(text, &env);
    let mut words = container.command.iter().flatten().map(expand);
    let name = words.next().ok_or_else(|| CannotRun::NoCommand { container: container.name.clone() })?;
    let args: Vec<String> = words.chain(container.args.iter().flatten().map(expand)).collect();
    let directory = container.working_dir.as_ref().map(PathBuf::from);
    if let Some(directory) = directory.as_ref().filter(|d| !d.is_dir()) {
        return Err(CannotRun::NoDirectory {
            container: container.name.clone(),
            directory: directory.display().to_string(),
        });
    }
    let program = find(&name, &path, directory.as_deref(), given.own_exe).ok_or_else(|| CannotRun::NoProgram {
        container: container.name.clone(),
        program: name.clone(),
        path: if name.contains('/') { "the path as given".into() } else { path },
    })?;
    let readiness = container.readiness_probe.as_ref().map(|p| readiness(container, p)).transpose()?;
    Ok(Program { container: container.name.clone(), program, name, args, env, directory, readiness })
}

/// Finds a program the way a shell does. `ambit` is ourselves.
fn find(name: &str, path: &str, directory: Option<&Path>, own_exe: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name == "ambit" {
        return Some(own_exe.to_owned());
    }
    if name.contains('/') {
        let full = directory.unwrap_or(Path::new("/")).join(name);
        return runs(&full).then_some(full);
    }
    path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name)).find(|p| runs(p))
}

fn environment(pod: &Pod, container: &Container, given: &Given<'_>) -> Result<Vec<(String, String)>, CannotRun> {
    let mut env: Vec<(String, String)> = given.machine_env.to_vec();
    let mut set = |name: &str, value: String| match env.iter_mut().find(|(k, _)| k == name) {
        Some(slot) => slot.1 = value,
        None => env.push((name.to_owned(), value)),
    };
    set("HOSTNAME", pod.metadata.name.clone().unwrap_or_default());
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
fn expand(text: &str, env: &[(String, String)]) -> String {
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

fn readiness(container: &Container, probe: &Probe) -> Result<Readiness, CannotRun> {
    let port = |port: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString| {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
        let number = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_ref() == Some(name))
                .and_then(|p| u16::try_from(p.container_port).ok()),
        };
        number.ok_or_else(|| CannotRun::NoProbePort {
            container: container.name.clone(),
            port: match port {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name.clone(),
            },
        })
    };
    let check = if let Some(tcp) = &probe.tcp_socket {
        Check::Tcp { port: port(&tcp.port)? }
    } else if let Some(http) = &probe.http_get {
        Check::Http {
            port: port(&http.port)?,
            path: http.path.clone().unwrap_or_else(|| "/".into()),
            host: http.host.clone(),
        }
    } else if let Some(exec) = &probe.exec {
        Check::Exec { command: exec.command.clone().unwrap_or_default() }
    } else {
        return Err(CannotRun::NoProbe { container: container.name.clone() });
    };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
    };
    Ok(Readiness {
        check,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
        timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
        failures: probe.failure_threshold.and_then(|v| u32::try_from(v).ok()).unwrap_or(3).max(1),
    })
}

/// Pause before start number `attempt` (from 1) of a program that keeps ending; doubles from a second to a minute.
pub(crate) fn back_off(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given<'static> {
        static ENV: std::sync::LazyLock<Vec<(String, String)>> =
            std::sync::LazyLock::new(|| vec![("PATH".into(), "/bin:/usr/bin".into())]);
        static IPS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2))];
        Given {
            ips: &IPS,
            node: "node1",
            node_ip: "172.30.0.11".parse().unwrap(),
            uid: "u",
            machine_env: &ENV,
            own_exe: Path::new("/proc/self/exe"),
        }
    }

    fn planned(containers: &str) -> Result<Plan, CannotRun> {
        let pod: Pod = serde_saphyr::from_str(&format!(
            "{{metadata: {{name: p, namespace: n}}, spec: {{containers: [{containers}]}}}}"
        ))
        .unwrap();
        plan(&pod, &given())
    }

    #[test]
    fn command_lines() {
        let cases: [(&str, &[&str]); 5] = [
            ("{name: c, command: [sh, -c], args: [echo]}", &["/bin/sh", "-c", "echo"]),
            ("{name: c, command: [/bin/sh]}", &["/bin/sh"]),
            ("{name: c, command: [ambit, tool]}", &["/proc/self/exe", "tool"]),
            (
                "{name: c, command: [sh, $(A) $$(A) $(NO) $x], env: [{name: A, value: a}]}",
                &["/bin/sh", "a $(A) $(NO) $x"],
            ),
            (
                "{name: c, command: [sh, $(IP)], env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}",
                &["/bin/sh", "10.244.1.2"],
            ),
        ];
        for (containers, expected) in cases {
            let plan = planned(containers).unwrap_or_else(|e| panic!("{containers}: {e}"));
            let program = &plan.programs[0];
            let mut line = vec![program.program.display().to_string()];
            line.extend(program.args.clone());
            assert_eq!(line, expected, "{containers}");
        }
    }

    #[test]
    fn what_cannot_run_says_why() {
        let cases = [
            ("", "no containers"),
            ("{name: c}", "pulls no images"),
            (
                "{name: c, command: [no-such-program-here]}",
                "`no-such-program-here` is not on this machine (looked in /bin",
            ),
            ("{name: c, command: [/no/such]}", "the path as given"),
            ("{name: c, command: [sh], workingDir: /no/such}", "workingDir /no/such"),
            ("{name: c, command: [sh], env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}", "variable A"),
            ("{name: c, command: [sh], readinessProbe: {}}", "none of exec"),
            ("{name: c, command: [sh], readinessProbe: {tcpSocket: {port: web}}}", "port `web`"),
        ];
        for (containers, expected) in cases {
            let error = planned(containers).unwrap_err().to_string();
            assert!(error.contains(expected), "{containers}: {error}");
        }
    }

    #[test]
    fn what_is_ignored_is_said() {
        let pod: Pod = serde_saphyr::from_str(
            "{metadata: {name: p}, spec: {securityContext: {runAsUser: 5},
              containers: [{name: c, volumeMounts: [{name: v, mountPath: /v}]}]}}",
        )
        .unwrap();
        assert_eq!(ignored(&pod).len(), 2);
    }

    #[test]
    fn restarts() {
        for (policy, success, again) in [
            (Restart::Always, true, true),
            (Restart::OnFailure, true, false),
            (Restart::OnFailure, false, true),
            (Restart::Never, false, false),
        ] {
            assert_eq!(policy.again(success), again, "{policy:?} {success}");
        }
        assert_eq!([1, 2, 3, 7, 99].map(|n| back_off(n).as_secs()), [1, 2, 4, 60, 60]);
    }
}
