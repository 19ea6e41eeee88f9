//! What was set → what it means. Everything is set by environment variables, under istiod's names where it has them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_kube::Access;
use mesh_model::address::NamespacedName;
use mesh_runtime::config::{ConfigError, Env};
use mesh_runtime::log::LogConfig;
use mesh_xds::server::Limits;

use crate::admission::{self, FailurePolicy};
use crate::ca::sign::Lifetimes;
use crate::deploy;
use crate::jwks::{self, allowed::Allowed};
use crate::mode::{self, Mode, Part};
use crate::translate::{Mesh, Pools};
use crate::untaint;

/// Most bytes that a bound may be set to: what the length of a gRPC message can say.
const MAX_BYTES: usize = u32::MAX as usize;

/// Shortest time after which keys are fetched again: issuers are not ours to wear out.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// What the process is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// `FOLDER` (or arguments): the user's directories or files, separated by colons. None: the objects are in a cluster.
    pub folders: Vec<PathBuf>,
    /// `KUBECONFIG` (or `--kubeconfig`), or the pod that we run in: the cluster's API server, where no folder is named.
    pub cluster: Option<Access>,
    /// `POD_NAMESPACE`: where a cluster keeps our own objects, default `istio-system`.
    pub own_namespace: String,
    /// `POD_NAME`: what this replica is called where it says that it leads, default `istiod-lite`.
    pub pod_name: String,
    /// `PILOT_CA_CERT_CONFIGMAP`: where namespaces of a cluster find the roots, default `istio-ca-root-cert`.
    pub root_map: String,
    /// `WAYPOINT_IMAGE`: what runs waypoints of a cluster; none are run, when unset. `WAYPOINT_CLASSES`: of which Gateways, default
    /// `ambit-waypoint`. `WAYPOINT_CA_ADDRESS`: with `WAYPOINTS_ONLY`, who signs their certificates, default
    /// `https://istiod.NAMESPACE.svc:15012` of our namespace.
    pub waypoints: Option<deploy::Settings>,
    /// `VALIDATION_WEBHOOK_CONFIG_NAME`, `VALIDATION_WEBHOOK_FAILURE_POLICY`, `WEBHOOK_PORT`: the validating webhook of a cluster; there is
    /// none, when its configuration is not named.
    pub webhook: Option<admission::Settings>,
    /// `PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS`, `UNTAINT_NAMESPACE`: where the node agents are whose nodes lose a taint once they are ready;
    /// none does, unless that is asked for.
    pub untaint: Option<untaint::Settings>,
    /// `OVERLAY`: the directory of status that the machinery writes.
    pub overlay: Option<PathBuf>,
    /// `STATE_DIR`: where the CA's key is kept, default `./istiod-state`.
    pub state: PathBuf,
    /// `PLUGGED_CA`: a directory with the user's own intermediate.
    pub plugged_ca: Option<PathBuf>,
    /// `LISTEN_ADDRESS`: for proxies, default `[::]:15012`.
    pub listen: SocketAddr,
    /// `HEALTH_PORT`: readiness on all addresses, default 15021.
    pub health_port: u16,
    /// `MONITORING_PORT`: `/metrics` on all addresses, default 15014.
    pub monitoring_port: u16,
    /// `DEBUG_PORT`: debug pages on localhost, default 15000.
    pub debug_port: u16,
    /// `STATUS_FILE`: where to write what was rejected and accepted.
    pub status_file: Option<PathBuf>,
    /// `ACKNOWLEDGED_FILE`: where to write which pods and services the tables of all proxies hold.
    pub acknowledged_file: Option<PathBuf>,
    /// `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`, `BLOCKED_CIDRS_IN_JWKS_URIS`, `ALLOWED_CIDRS_IN_JWKS_URIS`, `JWKS_EXTRA_ROOT_CA`: how the keys
    /// are fetched that RequestAuthentications name by address.
    pub jwks: jwks::Settings,
    /// `TOKEN_PUBLIC_KEY`: file with the keys that tokens are checked with, PEM or JWKS. None: a cluster reviews them.
    pub token_keys: Option<PathBuf>,
    /// `TOKEN_AUDIENCES`, default `istio-ca`.
    pub token_audiences: Vec<String>,
    /// `TOKEN_ISSUER`: the only issuer accepted; whoever has the key, when unset.
    pub token_issuer: Option<String>,
    /// `CA_TRUSTED_NODE_ACCOUNTS`: `namespace/name` of node proxies, default `istio-system/ztunnel`.
    pub trusted_accounts: Vec<NamespacedName>,
    /// `DEFAULT_WORKLOAD_CERT_TTL` (24h) and `MAX_WORKLOAD_CERT_TTL` (2160h).
    pub lifetimes: Lifetimes,
    /// `ISTIOD_CUSTOM_HOST`: more names and addresses in our own certificate.
    pub hosts: Vec<String>,
    /// `ISTIOD_MAX_CONNECTIONS`: open at once, default 4096.
    pub connections: usize,
    /// `ISTIO_GPRC_MAXRECVMSGSIZE`, `XDS_NAMES_PER_CALLER`, `XDS_NAMES`: what subscribers may send and hold, in bytes.
    /// `KEEPALIVE_MAX_SERVER_CONNECTION_AGE`: for how long a stream lasts, default 30m; 0s is for ever.
    pub subscribers: Limits,
    /// `WAYPOINTS_ONLY`, `CLUSTER_ID`, `TRUST_DOMAIN`, `CLUSTER_DOMAIN`, `ROOT_NAMESPACE`, `REVISION`, `REVISION_TAGS`,
    /// `AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`, `PILOT_ENABLE_IP_AUTOALLOCATE` and its prefixes.
    pub mesh: Mesh,
}

impl Config {
    /// Reads the settings; `folders` given as arguments come before `FOLDER`.
    ///
    /// # Errors
    /// Names the setting, its value and the form expected.
    pub fn from_env(env: &Env, mut folders: Vec<PathBuf>) -> Result<Self, ConfigError> {
        let path = |name| env.non_empty(name).map(PathBuf::from);
        let text = |name: &str, default: &str| env.non_empty(name).unwrap_or(default).to_owned();
        let (named, kubeconfig) = (env.non_empty("FOLDER"), env.non_empty("KUBECONFIG"));
        // As the kubelet sets it in every pod.
        let in_pod = env.non_empty("KUBERNETES_SERVICE_HOST").is_some();
        let mut cluster = None;
        if folders.is_empty() {
            folders = named
                .into_iter()
                .flat_map(|list| list.split(':'))
                .filter(|f| !f.is_empty())
                .map(PathBuf::from)
                .collect();
        }
        if folders.is_empty() {
            if kubeconfig.is_none() && !in_pod {
                let form =
                    "a directory of Kubernetes YAML, or several separated by colons; or set KUBECONFIG, for a cluster";
                env.required("FOLDER", form)?;
            }
            cluster = Some(Access::from_setting(kubeconfig));
        }
        let mut token_keys = path("TOKEN_PUBLIC_KEY");
        if cluster.is_none() {
            let form = "the file with the keys that tokens are checked with";
            token_keys = Some(env.required("TOKEN_PUBLIC_KEY", form)?.into());
        }
        let waypoints_only = env.bool("WAYPOINTS_ONLY")?.unwrap_or(false);
        contradiction(env, waypoints_only, &folders)?;
        let defaults = Mesh::default();
        let allocates = env.bool("PILOT_ENABLE_IP_AUTOALLOCATE")?.unwrap_or(true);
        let pools = Pools {
            ipv4: env
                .parse("PILOT_IP_AUTOALLOCATE_IPV4_PREFIX", "an IPv4 prefix such as 240.240.0.0/16")?
                .unwrap_or(Pools::default().ipv4),
            ipv6: env
                .parse("PILOT_IP_AUTOALLOCATE_IPV6_PREFIX", "an IPv6 prefix such as 2001:2::/48")?
                .unwrap_or(Pools::default().ipv6),
        };
        let subscribers = Limits::default();
        let bytes = |name, default: usize| Ok(env.number(name, 1..=MAX_BYTES)?.unwrap_or(default));
        let root_namespace = text("ROOT_NAMESPACE", &defaults.root_namespace);
        let accounts =
            env.read("CA_TRUSTED_NODE_ACCOUNTS", "namespace/name, or several separated by commas", |list| {
                commas(list).map(|account| NamespacedName::parse(&account)).collect::<Option<Vec<_>>>()
            })?;
        let max = env.duration("MAX_WORKLOAD_CERT_TTL")?.unwrap_or(Duration::from_secs(90 * 24 * 3600));
        let default = env.duration("DEFAULT_WORKLOAD_CERT_TTL")?.unwrap_or(Duration::from_secs(24 * 3600));
        let own_namespace = text("POD_NAMESPACE", "istio-system");
        let root_map = text("PILOT_CA_CERT_CONFIGMAP", "istio-ca-root-cert");
        let (cluster_id, revision) = (text("CLUSTER_ID", &defaults.cluster_id), text("REVISION", &defaults.revision));
        let classes: Vec<_> = commas(&text("WAYPOINT_CLASSES", "ambit-waypoint")).collect();
        let mode = if waypoints_only { Mode::WaypointsOnly { classes: classes.clone() } } else { Mode::Mesh };
        let suffix = if revision == *defaults.revision { String::new() } else { format!("-{revision}") };
        let config_map = NamespacedName::new(own_namespace.as_str(), format!("istio{suffix}"));
        let control_plane = format!("https://{}{suffix}.{own_namespace}.svc:15012", mode.service());
        let ca =
            waypoints_only.then(|| text("WAYPOINT_CA_ADDRESS", &format!("https://istiod.{own_namespace}.svc:15012")));
        let waypoints = env.non_empty("WAYPOINT_IMAGE").map(|image| deploy::Settings {
            image: image.to_owned(),
            ca: ca.unwrap_or_else(|| control_plane.clone()),
            control_plane,
            mode: mode.clone(),
            serving_root: None,
            cluster_id: cluster_id.clone(),
            root_map: root_map.clone(),
            classes,
        });
        let failure_policy = env.read("VALIDATION_WEBHOOK_FAILURE_POLICY", "Fail or Ignore", FailurePolicy::parse)?;
        let (webhook_port, configuration) = (
            env.number("WEBHOOK_PORT", 0..=u16::MAX)?.unwrap_or(15017),
            env.non_empty("VALIDATION_WEBHOOK_CONFIG_NAME"),
        );
        let webhook = configuration.map(|configuration| admission::Settings {
            port: webhook_port,
            configuration: configuration.to_owned(),
            failure_policy: failure_policy.unwrap_or(FailurePolicy::Fail),
            namespace: own_namespace.clone(),
            revision: revision.clone(),
        });
        let networks = |name| {
            let form = "prefixes such as 10.0.0.0/8, separated by commas";
            let parse = |list: &str| commas(list).map(|net| net.parse().ok()).collect::<Option<Vec<_>>>();
            Ok(env.read(name, form, parse)?.unwrap_or_default())
        };
        // Whoever signs for ztunnels serves them.
        let trusted_accounts = accounts.unwrap_or_else(|| {
            let ztunnel = || NamespacedName::new("istio-system", "ztunnel");
            mode.does(Part::Certificates).then(ztunnel).into_iter().collect()
        });
        let untaints = env.bool("PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS")?.unwrap_or(false);
        let untaint = untaint::Settings {
            namespace: text("UNTAINT_NAMESPACE", &own_namespace),
            ztunnels: trusted_accounts.clone(),
        };
        let refresh = env.duration("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL")?.unwrap_or(jwks::Settings::default().refresh);
        let jwks = jwks::Settings {
            refresh: refresh.max(SHORTEST_REFRESH),
            allowed: Allowed {
                blocked: networks("BLOCKED_CIDRS_IN_JWKS_URIS")?,
                excepted: networks("ALLOWED_CIDRS_IN_JWKS_URIS")?,
            },
            extra_root: path("JWKS_EXTRA_ROOT_CA"),
        };
        Ok(Self {
            folders,
            cluster,
            own_namespace,
            pod_name: text("POD_NAME", "istiod-lite"),
            root_map,
            waypoints,
            webhook,
            untaint: untaints.then_some(untaint),
            overlay: path("OVERLAY"),
            state: path("STATE_DIR").unwrap_or_else(|| "./istiod-state".into()),
            plugged_ca: path("PLUGGED_CA"),
            listen: env
                .parse("LISTEN_ADDRESS", "an address and port such as 0.0.0.0:15012")?
                .unwrap_or_else(|| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 15012))),
            health_port: env.number("HEALTH_PORT", 0..=u16::MAX)?.unwrap_or(15021),
            monitoring_port: env.number("MONITORING_PORT", 0..=u16::MAX)?.unwrap_or(15014),
            debug_port: env.number("DEBUG_PORT", 0..=u16::MAX)?.unwrap_or(15000),
            status_file: path("STATUS_FILE"),
            acknowledged_file: path("ACKNOWLEDGED_FILE"),
            jwks,
            token_keys,
            token_audiences: commas(&text("TOKEN_AUDIENCES", "istio-ca")).collect(),
            token_issuer: env.non_empty("TOKEN_ISSUER").map(str::to_owned),
            trusted_accounts,
            // A default above the limit would refuse everybody who leaves the choice to us.
            lifetimes: Lifetimes { default: default.min(max), max },
            hosts: env.non_empty("ISTIOD_CUSTOM_HOST").map(|list| commas(list).collect()).unwrap_or_default(),
            connections: env.number("ISTIOD_MAX_CONNECTIONS", 1..=usize::MAX)?.unwrap_or(4096),
            subscribers: Limits {
                request: bytes("ISTIO_GPRC_MAXRECVMSGSIZE", subscribers.request)?,
                names_each: bytes("XDS_NAMES_PER_CALLER", subscribers.names_each)?,
                names: bytes("XDS_NAMES", subscribers.names)?,
                // Zero is none, as gRPC has it.
                age: env
                    .duration("KEEPALIVE_MAX_SERVER_CONNECTION_AGE")?
                    .or(subscribers.age)
                    .filter(|age| !age.is_zero()),
            },
            mesh: Mesh {
                cluster_id: cluster_id.into(),
                trust_domain: text("TRUST_DOMAIN", &defaults.trust_domain).into(),
                domain: text("CLUSTER_DOMAIN", &defaults.domain).into(),
                root_namespace: root_namespace.into(),
                revision: revision.into(),
                revision_tags: commas(&text("REVISION_TAGS", "")).collect(),
                dry_run_policies: env.bool("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY")?.unwrap_or(false),
                config_map,
                // Addresses that istiod has allocated are read.
                pools: Some(pools).filter(|_| allocates || waypoints_only),
                mode,
            },
        })
    }

    /// What these settings mean, without starting anything: for whoever is about to start istiod-lite with them. Those that have no
    /// default may be left out.
    ///
    /// # Errors
    /// Names the setting that cannot be used, or that istiod-lite does not have.
    pub fn check(env: &Env) -> Result<Self, ConfigError> {
        // Waypoints alone are of a cluster.
        let place = if env.bool("WAYPOINTS_ONLY")? == Some(true) { "KUBECONFIG" } else { "FOLDER" };
        let required = [(place, "."), ("TOKEN_PUBLIC_KEY", "key.pem")];
        let whole = env.clone().over(required.into_iter().collect());
        let config = Self::from_env(&whole, Vec::new())?;
        LogConfig::from_env(&whole)?;
        env.all_known()?;
        Ok(config)
    }

    /// The names in our own certificate: what proxies check when they connect.
    pub fn server_names(&self) -> Vec<String> {
        let (service, namespace) = (self.mesh.mode.service(), &self.mesh.root_namespace);
        let mut names = vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{}", self.mesh.domain),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        names.extend(self.hosts.iter().cloned());
        if !self.listen.ip().is_unspecified() && !self.listen.ip().is_loopback() {
            names.push(self.listen.ip().to_string());
        }
        names
    }
}

/// Refuses settings that contradict each other, by name.
fn contradiction(env: &Env, waypoints_only: bool, folders: &[PathBuf]) -> Result<(), ConfigError> {
    let argument = folders.first().map(|folder| folder.display().to_string());
    let value = |name: &str| env.non_empty(name).or(argument.as_deref().filter(|_| name == "FOLDER"));
    match mode::contradiction(waypoints_only, value) {
        None => Ok(()),
        Some((name, expected)) => Err(match value(name) {
            Some(value) => ConfigError::Invalid { name: name.to_owned(), value: value.to_owned(), expected },
            None => ConfigError::Missing { name: name.to_owned(), expected },
        }),
    }
}

/// An environment of which every setting has been read.
pub(crate) fn every_setting() -> Env {
    let env = Env::default();
    // Only which settings are read matters here.
    let _ = Config::check(&env);
    env
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mesh { cluster_id, trust_domain, root_namespace, revision, mode, .. } = &self.mesh;
        if let Mode::WaypointsOnly { classes } = mode {
            write!(f, "nothing but waypoints, of the classes {classes:?}: ")?;
        }
        match &self.cluster {
            None => write!(f, "folders {:?}, overlay {:?}", self.folders, self.overlay)?,
            Some(Access::InCluster) => write!(f, "the cluster around")?,
            Some(Access::Kubeconfig(files)) => write!(f, "the cluster of {files:?}")?,
        }
        write!(
            f,
            ", listening on {}, cluster {cluster_id}, trust domain {trust_domain}, root \
             namespace {root_namespace}, revision {revision}, certificates for {:?} (at most {:?})",
            self.listen, self.lifetimes.default, self.lifetimes.max
        )
    }
}

fn commas(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn settings_and_their_meaning() {
        let set = [("FOLDER", "/a:/b"), ("TOKEN_PUBLIC_KEY", "/k"), ("LISTEN_ADDRESS", "172.30.0.1:15012")];
        let config = Config::from_env(&env(&set), Vec::new()).unwrap();
        assert_eq!(config.folders, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(config.trusted_accounts, [NamespacedName::new("istio-system", "ztunnel")]);
        assert_eq!(config.lifetimes.default, Duration::from_secs(86400));
        assert_eq!(
            config.server_names(),
            [
                "istiod.istio-system.svc",
                "istiod.istio-system.svc.cluster.local",
                "localhost",
                "127.0.0.1",
                "::1",
                "172.30.0.1"
            ]
        );
        let with = |name, value| Config::from_env(&env(&[set.as_slice(), &[(name, value)]].concat()), Vec::new());
        for (age, expected) in [("0s", None), ("5m", Some(Duration::from_secs(300)))] {
            assert_eq!(with("KEEPALIVE_MAX_SERVER_CONNECTION_AGE", age).unwrap().subscribers.age, expected, "{age}");
        }
        assert_eq!(config.subscribers.age, Some(Duration::from_secs(1800)));
        assert_eq!(with("MAX_WORKLOAD_CERT_TTL", "10s").unwrap().lifetimes.default, Duration::from_secs(10));
        for (name, value) in
            [("CA_TRUSTED_NODE_ACCOUNTS", "ztunnel"), ("LISTEN_ADDRESS", "15012"), ("HEALTH_PORT", "-1")]
        {
            assert!(with(name, value).unwrap_err().to_string().contains(name), "{name}");
        }
        assert!(Config::from_env(&env(&[]), Vec::new()).unwrap_err().to_string().contains("FOLDER"));
    }

    #[test]
    fn waypoints_alone_have_two_control_planes() {
        let set = [("KUBECONFIG", "/c"), ("WAYPOINTS_ONLY", "true"), ("WAYPOINT_IMAGE", "ambit:1")];
        let with = |more: &[(&str, &str)], folders| Config::from_env(&env(&[set.as_slice(), more].concat()), folders);
        let config = with(&[("POD_NAMESPACE", "mesh"), ("ROOT_NAMESPACE", "mesh")], Vec::new()).unwrap();
        let waypoints = config.waypoints.clone().unwrap();
        assert_eq!(
            (&*waypoints.control_plane, &*waypoints.ca),
            ("https://istiod-lite.mesh.svc:15012", "https://istiod.mesh.svc:15012")
        );
        assert!(config.server_names().contains(&"istiod-lite.mesh.svc".to_owned()));
        assert_eq!(config.trusted_accounts, []);
        let other = with(&[("WAYPOINT_CA_ADDRESS", "https://ca.corp:443"), ("REVISION", "v2")], Vec::new()).unwrap();
        let waypoints = other.waypoints.unwrap();
        assert_eq!(
            (&*waypoints.control_plane, &*waypoints.ca),
            ("https://istiod-lite-v2.istio-system.svc:15012", "https://ca.corp:443")
        );
        let refused = |more: &[(&str, &str)], folders: &[&str]| {
            with(more, folders.iter().map(PathBuf::from).collect()).unwrap_err().to_string()
        };
        let error = refused(&[("PLUGGED_CA", "/ca")], &[]);
        assert!(error.contains("PLUGGED_CA") && error.contains("WAYPOINTS_ONLY"), "{error}");
        assert!(refused(&[("TOKEN_PUBLIC_KEY", "/k")], &["/yaml"]).contains("FOLDER=\"/yaml\""));
        let whole = Config::from_env(&env(&[("KUBECONFIG", "/c"), ("WAYPOINT_IMAGE", "ambit:1")]), Vec::new()).unwrap();
        let waypoints = whole.waypoints.unwrap();
        assert_eq!(waypoints.control_plane, waypoints.ca);
    }

    #[test]
    fn a_folder_or_a_cluster() {
        let (folder, config) = (("FOLDER", "/a"), ("KUBECONFIG", "/c"));
        let (pod, key) = (("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("TOKEN_PUBLIC_KEY", "/k"));
        let file = || Some(Access::Kubeconfig(vec!["/c".into()]));
        for (set, arguments, expected) in [
            (vec![folder, key], vec![], None),
            // Whoever names a folder means it.
            (vec![folder, key, config, pod], vec![], None),
            (vec![key, config], vec!["/a"], None),
            (vec![config], vec![], file()),
            (vec![config, pod], vec![], file()),
            (vec![pod], vec![], Some(Access::InCluster)),
        ] {
            let arguments = arguments.into_iter().map(PathBuf::from).collect();
            let config = Config::from_env(&env(&set), arguments).unwrap();
            assert_eq!(config.cluster, expected, "{set:?}");
            assert_eq!(config.folders.is_empty(), expected.is_some(), "{set:?}");
            assert_eq!(config.token_keys.is_none(), expected.is_some(), "{set:?}");
        }
    }
}
