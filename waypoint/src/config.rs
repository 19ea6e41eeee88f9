//! What was set → what it means. The names are Istio's.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_control::channel::Token;
use mesh_hbone::Settings;
use mesh_model::labels;
use mesh_model::pod::PodInfo;
use mesh_proxy::control::{self, ControlPlane};
use mesh_proxy::quota::Limits;
use mesh_runtime::config::{ConfigError, Env};
use mesh_runtime::log::LogConfig;
use mesh_xds::node::{NodeInfo, ProxyType};

use crate::ends;

/// Bytes of handshake messages and header blocks that are not whole, of one data thread.
const UNFINISHED: usize = 16 << 20;

/// How long an HTTP connection of a caller goes on, unless `WAYPOINT_MAX_CONNECTION_AGE` says otherwise.
const AGE: Duration = Duration::from_secs(600);
/// Within how long of more pods of the waypoint their part of the connections moves.
const SPREAD: Duration = Duration::from_secs(10);
/// How long a connection goes on without a request after its service has left the waypoint: less than requests are still taken.
const LEFT: Duration = Duration::from_secs(5);

/// Everything a waypoint is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POD_NAME`, `POD_NAMESPACE`, `SERVICE_ACCOUNT`: its own pod, as the control plane knows it.
    pub pod: PodInfo,
    /// `GATEWAY_NAME`: the Gateway, of its own namespace, that it serves.
    pub gateway: String,
    /// `INSTANCE_IP`.
    pub ip: Option<IpAddr>,
    /// `NODE_NAME`.
    pub node: String,
    /// `CLUSTER_ID` or `ISTIO_META_CLUSTER_ID`.
    pub cluster: String,
    /// `NETWORK` or `ISTIO_META_NETWORK`: empty is the default network.
    pub network: String,
    /// `XDS_ADDRESS`.
    pub xds: ControlPlane,
    /// `CA_ADDRESS`.
    pub ca: ControlPlane,
    /// `AUTH_TOKEN`: how it proves itself to the control plane.
    pub token: Token,
    /// `SECRET_TTL`: certificate lifetime to ask for.
    pub certificate_lifetime: Duration,
    /// `CRL_PATH`: certificates that were taken back.
    pub crl: Option<PathBuf>,
    /// `WAYPOINT_WORKER_THREADS`: threads that serve requests.
    pub workers: usize,
    /// `IPV6_ENABLED`: listeners take both families.
    pub ipv6: bool,
    /// HTTP/2 of tunnels.
    pub hbone: Settings,
    /// `WAYPOINT_MAX_CONNECTIONS`: connections and tunnels open at once.
    pub limits: Limits,
    /// `WAYPOINT_MAX_REQUESTS`: requests and connections under way to endpoints at once, each in a tunnel of its own; default a quarter of
    /// the connections, and at least 1,024.
    pub under_way: Option<usize>,
    /// `WAYPOINT_MAX_CONNECTION_AGE`: for how long HTTP connections of callers go on.
    pub(crate) connections: ends::Limits,
    /// `AUTHZ_POLICY_INFO_LOGGING`: what policies decide is logged at INFO, not DEBUG.
    pub policy_info_logging: bool,
    /// `CONNECTION_TERMINATION_DEADLINE`: how long open connections may go on after SIGTERM.
    pub drain: Duration,
    /// Its ports.
    pub ports: Ports,
}

/// Ports of a waypoint.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// `HBONE_PORT`: tunnels.
    pub hbone: u16,
    /// `ADMIN_PORT`: loopback only.
    pub admin: u16,
    /// `STATS_PORT`: `/metrics`.
    pub metrics: u16,
    /// `READINESS_PORT`: `/healthz/ready`.
    pub readiness: u16,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the setting, what it holds and what it should hold.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let text = |name: &str, default: &str| env.non_empty(name).unwrap_or(default).to_owned();
        let needed = |name: &str| {
            env.non_empty(name).map(str::to_owned).ok_or_else(|| ConfigError::Invalid {
                name: name.to_owned(),
                value: String::new(),
                expected: "a name: a waypoint is one pod, of one Gateway".to_owned(),
            })
        };
        let port = |name: &str, default: u16| Ok(env.number(name, 1..=65_535)?.unwrap_or(default));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            pod: PodInfo {
                name: needed("POD_NAME")?,
                namespace: needed("POD_NAMESPACE")?,
                service_account: needed("SERVICE_ACCOUNT")?,
            },
            gateway: needed("GATEWAY_NAME")?,
            ip: env.parse("INSTANCE_IP", "an IP address")?,
            node: text("NODE_NAME", ""),
            cluster: env
                .non_empty("CLUSTER_ID")
                .map_or_else(|| text("ISTIO_META_CLUSTER_ID", "Kubernetes"), Into::into),
            network: env.non_empty("NETWORK").map_or_else(|| text("ISTIO_META_NETWORK", ""), Into::into),
            xds: ControlPlane::from_env(env, "XDS"),
            ca: ControlPlane::from_env(env, "CA"),
            token: control::token(env),
            certificate_lifetime: env.duration("SECRET_TTL")?.unwrap_or(Duration::from_secs(24 * 3600)),
            crl: env.non_empty("CRL_PATH").map(Into::into),
            workers: env.number("WAYPOINT_WORKER_THREADS", 1..=256)?.unwrap_or(threads),
            ipv6: env.bool("IPV6_ENABLED")?.unwrap_or(true),
            hbone: Settings { unfinished_bytes: UNFINISHED, ..Settings::default() },
            limits: Limits {
                connections: env.number("WAYPOINT_MAX_CONNECTIONS", 1..=100_000_000)?,
                ..Limits::default()
            },
            under_way: env.number("WAYPOINT_MAX_REQUESTS", 1..=100_000_000)?,
            connections: ends::Limits {
                age: env.duration("WAYPOINT_MAX_CONNECTION_AGE")?.or(Some(AGE)).filter(|age| !age.is_zero()),
                spread: SPREAD,
                left: LEFT,
            },
            policy_info_logging: env.bool("AUTHZ_POLICY_INFO_LOGGING")?.unwrap_or(false),
            drain: env.duration("CONNECTION_TERMINATION_DEADLINE")?.unwrap_or(Duration::from_secs(25)),
            ports: Ports {
                hbone: port("HBONE_PORT", 15_008)?,
                admin: port("ADMIN_PORT", 15_000)?,
                metrics: port("STATS_PORT", 15_020)?,
                readiness: port("READINESS_PORT", 15_021)?,
            },
        })
    }

    /// How it introduces itself to the control plane.
    pub(crate) fn node_info(&self) -> NodeInfo {
        NodeInfo {
            kind: ProxyType::Waypoint,
            instance_ip: self.ip.map(|ip| ip.to_string()),
            pod_name: self.pod.name.clone(),
            pod_namespace: self.pod.namespace.clone(),
            node_name: self.node.clone(),
            cluster_id: self.cluster.clone(),
            labels: vec![(labels::GATEWAY_NAME.to_owned(), self.gateway.clone())],
            extra: Vec::new(),
        }
    }
}

/// What these settings mean, without starting anything: for whoever is about to start a waypoint with them.
///
/// # Errors
/// Names the setting that cannot be used, or that a waypoint does not have.
pub fn check(env: &Env) -> Result<Config, ConfigError> {
    let config = Config::from_env(env)?;
    LogConfig::from_env(env)?;
    env.all_known()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [(&str, &str); 4] =
        [("POD_NAME", "w-1"), ("POD_NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "w"), ("GATEWAY_NAME", "w")];

    #[test]
    fn a_waypoint_has_to_know_who_it_is() {
        let config = check(&OWN.into_iter().collect()).unwrap();
        assert_eq!((&*config.gateway, config.ports.hbone), ("w", 15_008));
        for (name, _) in OWN {
            let error = check(&OWN.into_iter().filter(|(other, _)| *other != name).collect()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
