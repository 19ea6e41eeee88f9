//! Probes and lifecycle hooks of a container: what is asked or done, and how often. Pure.
use super::cannot_run::CannotRun;
use k8s_openapi::api::core::v1::{self as k8s, Container, HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use std::time::Duration;

/// What is tried. The words are Kubernetes' (`exec`, `httpGet`, `tcpSocket`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    /// A TCP connection opens.
    Tcp { host: Option<IpAddr>, port: u16 },
    /// An HTTP GET is answered with a status from 200 to 399.
    Http(HttpGet),
    /// A command inside the pod ends with 0.
    Exec { command: Vec<String> },
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct HttpGet {
    /// `scheme: HTTPS`. The server's certificate is not verified, as by a kubelet.
    pub(crate) tls: bool,
    /// Where to connect; the pod's own address if none.
    pub(crate) host: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// A check that is repeated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probe {
    pub(crate) check: Check,
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    /// Failures in a row after which it counts as failed.
    pub(crate) failures: u32,
    /// Successes in a row after which it counts as passed.
    pub(crate) successes: u32,
}

/// What is done once, after a container's start or before its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Hook {
    Check(Check),
    Sleep(Duration),
}

/// Everything that is asked of a container while it lives.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Probes {
    /// Until it passes, the container has not started and nothing else is asked.
    pub(crate) startup: Option<Probe>,
    /// The container is started again when it fails.
    pub(crate) liveness: Option<Probe>,
    /// The container takes part in Services while it passes.
    pub(crate) readiness: Option<Probe>,
}

/// The hooks of a container.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Hooks {
    pub(crate) post_start: Option<Hook>,
    pub(crate) pre_stop: Option<Hook>,
}

/// The probes of `container`.
pub(super) fn probes(container: &Container) -> Result<Probes, CannotRun> {
    let probe = |what, probe: &Option<k8s::Probe>| probe.as_ref().map(|p| self::probe(container, what, p)).transpose();
    Ok(Probes {
        startup: probe("startupProbe", &container.startup_probe)?,
        liveness: probe("livenessProbe", &container.liveness_probe)?,
        readiness: probe("readinessProbe", &container.readiness_probe)?,
    })
}

/// The hooks of `container`.
pub(super) fn hooks(container: &Container) -> Result<Hooks, CannotRun> {
    let Some(lifecycle) = &container.lifecycle else { return Ok(Hooks::default()) };
    let hook = |what, handler: &Option<LifecycleHandler>| {
        handler.as_ref().map(|handler| self::hook(container, what, handler)).transpose()
    };
    Ok(Hooks {
        post_start: hook("lifecycle.postStart", &lifecycle.post_start)?,
        pre_stop: hook("lifecycle.preStop", &lifecycle.pre_stop)?,
    })
}

fn probe(container: &Container, what: &'static str, probe: &k8s::Probe) -> Result<Probe, CannotRun> {
    let check = if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref();
        Check::Tcp { host: self::host(container, what, host)?, port: port(container, what, &tcp.port)? }
    } else if let Some(http) = &probe.http_get {
        Check::Http(http_get(container, what, http)?)
    } else if let Some(exec) = &probe.exec {
        Check::Exec { command: command(container, what, exec)? }
    } else {
        return Err(CannotRun::NothingToTry { container: container.name.clone(), what });
    };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
    };
    let times = |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default).max(1);
    // Zero is "not set" in Kubernetes.
    let at_least_one = |value: Option<i32>, default: u64| seconds(value.filter(|v| *v > 0), default);
    Ok(Probe {
        check,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: at_least_one(probe.period_seconds, 10),
        timeout: at_least_one(probe.timeout_seconds, 1),
        failures: times(probe.failure_threshold.filter(|v| *v > 0), 3),
        successes: times(probe.success_threshold, 1),
    })
}

fn hook(container: &Container, what: &'static str, handler: &LifecycleHandler) -> Result<Hook, CannotRun> {
    if let Some(exec) = &handler.exec {
        Ok(Hook::Check(Check::Exec { command: command(container, what, exec)? }))
    } else if let Some(http) = &handler.http_get {
        Ok(Hook::Check(Check::Http(http_get(container, what, http)?)))
    } else if let Some(sleep) = &handler.sleep {
        Ok(Hook::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))))
    } else {
        Err(CannotRun::NothingToTry { container: container.name.clone(), what })
    }
}

fn command(container: &Container, what: &'static str, exec: &k8s::ExecAction) -> Result<Vec<String>, CannotRun> {
    match &exec.command {
        Some(command) if !command.is_empty() => Ok(command.clone()),
        _ => Err(CannotRun::NothingToTry { container: container.name.clone(), what }),
    }
}

fn http_get(container: &Container, what: &'static str, http: &HTTPGetAction) -> Result<HttpGet, CannotRun> {
    Ok(HttpGet {
        tls: http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS")),
        host: host(container, what, http.host.as_deref())?,
        port: port(container, what, &http.port)?,
        path: match http.path.as_deref() {
            None | Some("") => "/".to_owned(),
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("/{path}"),
        },
        headers: http.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

/// Where to connect instead of the pod's address. A node here resolves no names.
fn host(container: &Container, what: &'static str, host: Option<&str>) -> Result<Option<IpAddr>, CannotRun> {
    match host {
        None | Some("") => Ok(None),
        Some("localhost") => Ok(Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))),
        Some(host) => host.parse().map(Some).map_err(|_| CannotRun::ProbeHost {
            container: container.name.clone(),
            what,
            host: host.to_owned(),
        }),
    }
}

fn port(container: &Container, what: &'static str, port: &IntOrString) -> Result<u16, CannotRun> {
    let number = match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|n| *n > 0),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_ref() == Some(name))
            .and_then(|p| u16::try_from(p.container_port).ok()),
    };
    number.ok_or_else(|| CannotRun::NoPort {
        container: container.name.clone(),
        what,
        port: match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        },
    })
}
