//! What was set → what it means. The names are Istio's: an operator's DaemonSet works unchanged.

mod layers;
mod mode;
mod threads;
mod unsupported;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_control::channel::Token;
use mesh_hbone::Settings;
use mesh_model::pod::PodInfo;
use mesh_proxy::control::{self, ControlPlane};
use mesh_proxy::quota::Limits;
use mesh_runtime::config::{ConfigError, Env, FileOrInline};
use mesh_runtime::log::LogConfig;
use mesh_xds::node::NodeInfo;

pub use self::layers::{MESH_CONFIG, with_mesh_config};
pub use self::mode::Mode;
pub use self::unsupported::ignored;
use crate::dns::answer::NameSettings;
use crate::dns::{DnsConfig, ProxyAddress};
use crate::sockets::{OriginalSource, PACKET_MARK, SocketSettings};

/// Bytes of handshake messages and header blocks that are not whole, of all data threads together.
const UNFINISHED: usize = 32 << 20;
/// The same of one data thread, however many there are: half a hundred of the longest, so that sharing means something.
const UNFINISHED_EACH: usize = 4 << 20;

/// Everything ztunnel is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `PROXY_MODE`: whom it serves.
    pub mode: Mode,
    /// `ENABLE_PROXY`: off, only DNS is served in pods.
    pub proxy: bool,
    /// `NODE_NAME`: the node whose pods it serves.
    pub node: String,
    /// `CLUSTER_ID` or `ISTIO_META_CLUSTER_ID`.
    pub cluster: String,
    /// `NETWORK`: empty is the default network.
    pub network: String,
    /// `POD_NAME`, `POD_NAMESPACE`, `SERVICE_ACCOUNT`, `INSTANCE_IP`: ztunnel's own pod, as the control plane knows it.
    pub pod: OwnPod,
    /// `ISTIO_META_<X>`: more about this node, for the control plane.
    pub metadata: Vec<(String, String)>,
    /// `INPOD_UDS`: the node agent's socket.
    pub agent_socket: PathBuf,
    /// `XDS_ADDRESS`: `None` is off.
    pub xds: Option<ControlPlane>,
    /// `CA_ADDRESS`.
    pub ca: ControlPlane,
    /// `LOCAL_XDS_PATH` or `LOCAL_XDS`: workloads, services and policies without a control plane.
    pub local_xds: Option<FileOrInline>,
    /// `XDS_ON_DEMAND`: addresses come when a connection needs them, instead of all of them beforehand.
    pub on_demand: bool,
    /// `XDS_ON_DEMAND_UNUSED_RELEASE_TIMEOUT`: what nobody has used for so long is let go of again.
    pub on_demand_unused: Duration,
    /// `AUTH_TOKEN`: how it proves itself to the control plane.
    pub token: Token,
    /// `SECRET_TTL`: certificate lifetime to ask for.
    pub certificate_lifetime: Duration,
    /// `TLS12_ENABLED`.
    pub tls12: bool,
    /// `COMPLIANCE_POLICY=pqc`: post-quantum key exchange only.
    pub post_quantum: bool,
    /// `CRL_PATH`: certificates that were taken back.
    pub crl: Option<PathBuf>,
    /// `ZTUNNEL_WORKER_THREADS`: threads that move bytes.
    pub workers: usize,
    /// HTTP/2.
    pub hbone: Settings,
    /// How much may be open at once.
    pub limits: Limits,
    /// Sockets in pods.
    pub sockets: SocketSettings,
    /// `ISTIO_META_DNS_CAPTURE`: `None` is off.
    pub dns: Option<DnsConfig>,
    /// `UNSTABLE_ENABLE_SOCKS5`: pods may ask for connections on port 15080 of their loopback.
    pub socks: bool,
    /// `SAME_NODE_ENCRYPTION`: tunnels between two pods of this node are encrypted, too.
    pub same_node_encryption: bool,
    /// `AUTHZ_POLICY_INFO_LOGGING`: what policies decide is logged at INFO, not DEBUG.
    pub policy_info_logging: bool,
    /// `ENABLE_RESPONSE_BAGGAGE`: describe the destination in the answer, and read the caller's description.
    pub baggage: bool,
    /// `LOCALHOST_APP_TUNNEL`: an application that takes PROXY headers is dialled on loopback.
    pub localhost_app_tunnel: bool,
    /// `CONNECTION_TERMINATION_DEADLINE`: how long open connections may go on after SIGTERM.
    pub drain: Duration,
    /// Ports of admin, metrics and readiness.
    pub ports: AdminPorts,
}

/// ztunnel's own pod.
#[derive(Clone, Debug, Default)]
pub struct OwnPod {
    /// `POD_NAME`
    pub name: String,
    /// `POD_NAMESPACE`
    pub namespace: String,
    /// `SERVICE_ACCOUNT`
    pub service_account: String,
    /// `INSTANCE_IP`
    pub ip: Option<IpAddr>,
}

impl OwnPod {
    /// As a workload of the mesh, if all of it is known.
    pub(crate) fn workload(&self) -> Option<PodInfo> {
        let Self { name, namespace, service_account, .. } = self.clone();
        let known = ![&name, &namespace, &service_account].iter().any(|text| text.is_empty());
        known.then_some(PodInfo { name, namespace, service_account })
    }
}

/// Ports in ztunnel's own namespace.
#[derive(Clone, Copy, Debug)]
pub struct AdminPorts {
    /// Loopback only.
    pub admin: u16,
    /// `/metrics`
    pub metrics: u16,
    /// `/healthz/ready`
    pub readiness: u16,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the setting, what it holds and what it should hold.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        unsupported::refuse(env)?;
        let text = |name: &str, default: &str| env.non_empty(name).unwrap_or(default).to_owned();
        let duration = |name: &str, default: Duration| Ok(env.duration(name)?.unwrap_or(default));
        let yes = |name: &str, default: bool| Ok(env.bool(name)?.unwrap_or(default));
        let secs = Duration::from_secs;
        let hbone = Settings::default();
        let workers = threads::workers(env, std::thread::available_parallelism().map_or(1, usize::from))?;
        let window = |name: &str, default: u32| {
            // RFC 9113 6.9.1: a window is at most 2^31 - 1.
            Ok(env.number(name, 65_535..=(u32::MAX >> 1))?.unwrap_or(default))
        };
        let keepalive = match yes("KEEPALIVE_ENABLED", true)? {
            true => Some((
                duration("KEEPALIVE_TIME", secs(180))?,
                duration("KEEPALIVE_INTERVAL", secs(180))?,
                env.number("KEEPALIVE_RETRIES", 1..=100)?.unwrap_or(9),
            )),
            false => None,
        };
        let mode = mode::mode(env)?;
        // Whoever redirects to a dedicated ztunnel says by which mark, if by any.
        let mark = env.number("PACKET_MARK", 1..=u32::MAX)?.or((mode == Mode::Shared).then_some(PACKET_MARK));
        Ok(Self {
            mode,
            proxy: yes("ENABLE_PROXY", true)?,
            node: text("NODE_NAME", ""),
            cluster: env
                .non_empty("CLUSTER_ID")
                .map_or_else(|| text("ISTIO_META_CLUSTER_ID", "Kubernetes"), Into::into),
            network: text("NETWORK", ""),
            pod: OwnPod {
                name: text("POD_NAME", ""),
                namespace: text("POD_NAMESPACE", ""),
                service_account: text("SERVICE_ACCOUNT", ""),
                ip: env.parse("INSTANCE_IP", "an IP address")?,
            },
            metadata: pairs(env, "ISTIO_META_"),
            agent_socket: text("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock").into(),
            xds: match env.text("XDS_ADDRESS") {
                Some("") => None,
                _ => Some(ControlPlane::from_env(env, "XDS")),
            },
            ca: ControlPlane::from_env(env, "CA"),
            local_xds: local_xds(env)?,
            on_demand: on_demand(env)?,
            on_demand_unused: duration("XDS_ON_DEMAND_UNUSED_RELEASE_TIMEOUT", secs(600))?,
            token: control::token(env),
            certificate_lifetime: duration("SECRET_TTL", secs(24 * 3600))?,
            tls12: yes("TLS12_ENABLED", false)?,
            post_quantum: env.choice("COMPLIANCE_POLICY", &[("pqc", true)])?.unwrap_or(false),
            crl: env.non_empty("CRL_PATH").map(Into::into),
            workers,
            hbone: Settings {
                stream_window: window("HTTP2_STREAM_WINDOW_SIZE", hbone.stream_window)?,
                connection_window: window("HTTP2_CONNECTION_WINDOW_SIZE", hbone.connection_window)?,
                // RFC 9113 6.5.2.
                frame_size: env.number("HTTP2_FRAME_SIZE", 16_384..=16_777_215)?.unwrap_or(hbone.frame_size),
                client_streams: env
                    .number("POOL_MAX_STREAMS_PER_CONNECTION", 1..=65_535)?
                    .unwrap_or(hbone.client_streams),
                unused_release: duration("POOL_UNUSED_RELEASE_TIMEOUT", hbone.unused_release)?,
                unfinished_bytes: (UNFINISHED / workers).max(UNFINISHED_EACH),
                ..hbone
            },
            limits: Limits {
                connections: env.number("ZTUNNEL_MAX_CONNECTIONS", 1..=100_000_000)?,
                per_pod: env.number("ZTUNNEL_MAX_CONNECTIONS_PER_POD", 1..=100_000_000)?,
                handshakes: env.number("ZTUNNEL_MAX_HANDSHAKES", 1..=1_000_000)?,
            },
            sockets: SocketSettings {
                ipv6: yes("IPV6_ENABLED", true)?,
                mark,
                reuse_port: yes("INPOD_PORT_REUSE", true)?,
                keepalive,
                user_timeout: yes("USER_TIMEOUT_ENABLED", false)?,
                original_source: match env.bool("ENABLE_ORIG_SRC")? {
                    None => OriginalSource::BestEffort,
                    Some(true) => OriginalSource::Required,
                    Some(false) => OriginalSource::Off,
                },
            },
            dns: dns(env)?,
            socks: yes("UNSTABLE_ENABLE_SOCKS5", false)?,
            same_node_encryption: yes("SAME_NODE_ENCRYPTION", false)?,
            policy_info_logging: yes("AUTHZ_POLICY_INFO_LOGGING", false)?,
            baggage: yes("ENABLE_RESPONSE_BAGGAGE", true)?,
            localhost_app_tunnel: yes("LOCALHOST_APP_TUNNEL", true)?,
            drain: drain(env)?,
            ports: AdminPorts {
                admin: env.number("ADMIN_PORT", 1..=65_535)?.unwrap_or(15_000),
                metrics: env.number("STATS_PORT", 1..=65_535)?.unwrap_or(15_020),
                readiness: env.number("READINESS_PORT", 1..=65_535)?.unwrap_or(15_021),
            },
        })
    }
}

/// What these settings mean, without starting anything: for whoever is about to start a ztunnel with them.
///
/// # Errors
/// Names the setting that cannot be used, or that ztunnel does not have.
pub fn check(env: &Env) -> Result<Config, ConfigError> {
    let layered = with_mesh_config(env.clone(), Path::new(MESH_CONFIG))?;
    let config = Config::from_env(&layered)?;
    LogConfig::from_env(&layered)?;
    ignored(&layered);
    env.all_known()?;
    Ok(config)
}

impl Config {
    /// How it introduces itself to the control plane.
    pub(crate) fn node_info(&self) -> NodeInfo {
        NodeInfo {
            instance_ip: self.pod.ip.map(|ip| ip.to_string()),
            pod_name: self.pod.name.clone(),
            pod_namespace: self.pod.namespace.clone(),
            node_name: self.node.clone(),
            cluster_id: self.cluster.clone(),
            extra: self.metadata.clone(),
            ..NodeInfo::default()
        }
    }
}

/// `LOCAL_XDS_PATH`, a file, or `LOCAL_XDS`, its text: not both.
fn local_xds(env: &Env) -> Result<Option<FileOrInline>, ConfigError> {
    match (env.non_empty("LOCAL_XDS_PATH"), env.non_empty("LOCAL_XDS")) {
        (Some(path), Some(_)) => Err(ConfigError::Invalid {
            name: "LOCAL_XDS_PATH".into(),
            value: path.into(),
            expected: "nothing while LOCAL_XDS is set: one of the two".into(),
        }),
        (Some(path), None) => Ok(Some(FileOrInline::File(path.into()))),
        (None, text) => Ok(text.map(|text| FileOrInline::Inline(text.into()))),
    }
}

/// What was set with a prefix, without it.
fn pairs(env: &Env, prefix: &str) -> Vec<(String, String)> {
    env.with_prefix(prefix).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `XDS_ON_DEMAND`: not while DNS is answered here, which needs all services beforehand (contract, section 7.3).
fn on_demand(env: &Env) -> Result<bool, ConfigError> {
    let on = env.bool("XDS_ON_DEMAND")?.unwrap_or(false);
    match on && dns(env)?.is_some() {
        true => Err(ConfigError::Invalid {
            name: "XDS_ON_DEMAND".into(),
            value: "true".into(),
            expected: "false unless ISTIO_META_DNS_CAPTURE=false: names are answered from tables that are complete"
                .into(),
        }),
        false => Ok(on),
    }
}

/// `ISTIO_META_DNS_CAPTURE`: unset is on, and of all values only `true` (upstream's reading). Pods see it only where the
/// node agent captures their DNS.
fn dns(env: &Env) -> Result<Option<DnsConfig>, ConfigError> {
    let on = env.non_empty("ISTIO_META_DNS_CAPTURE").is_none_or(|value| value == "true");
    let address = env.parse("ISTIO_META_DNS_PROXY_ADDR", "localhost:PORT, or an address and a port")?;
    let ipv6 = env.bool("IPV6_ENABLED")?.unwrap_or(true);
    Ok(on.then(|| DnsConfig {
        address: address.unwrap_or(ProxyAddress::Localhost(15_053)),
        names: NameSettings {
            domain: env.non_empty("CLUSTER_DOMAIN").unwrap_or("cluster.local").to_ascii_lowercase(),
            preferred_namespace: env.non_empty("PREFERED_SERVICE_NAMESPACE").map(Into::into),
            ipv6,
        },
    }))
}

/// `CONNECTION_TERMINATION_DEADLINE`, else what is left of `TERMINATION_GRACE_PERIOD_SECONDS` for a clean end.
fn drain(env: &Env) -> Result<Duration, ConfigError> {
    if let Some(deadline) = env.duration("CONNECTION_TERMINATION_DEADLINE")? {
        return Ok(deadline);
    }
    let grace: Option<u64> = env.number("TERMINATION_GRACE_PERIOD_SECONDS", 0..=86_400)?;
    Ok(Duration::from_secs(match grace {
        None => 5,
        Some(grace) if grace > 10 => grace - 5,
        Some(grace) => grace.saturating_sub(1).max(1),
    }))
}

#[cfg(test)]
mod tests;
