//! What was set → what it means. Names are those of Istio's node agent where it has the setting.

use std::path::{Path, PathBuf};

use mesh_runtime::config::{ConfigError, Env};
use mesh_runtime::log::LogConfig;

use crate::cni::chain::Entry;
use crate::enroll::Selection;
use crate::install::Install;
use crate::kubernetes::owner::Owner;
use crate::redirect::settings::Defaults;

/// Everything the agent can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `NODE_NAME`: this node; without `PODS_FILE` it is required.
    pub node_name: String,
    /// `ZTUNNEL_UDS_ADDRESS`: where ztunnels connect.
    pub ztunnel_socket: PathBuf,
    /// `PODS_FILE`, or else an API server: the pods of this node, as they should be.
    pub source: Source,
    /// `ENROLLED_FILE`: where the agent says how far each pod got. Also read at start.
    pub enrolled_file: PathBuf,
    /// `CNI_EVENT_ADDRESS`: where the CNI plugin asks.
    pub plugin_socket: PathBuf,
    /// `AMBIENT_IPV6`, `AMBIENT_DNS_CAPTURE`, `AMBIENT_HOST_PROBES_ANY_PORT`.
    pub redirection: Defaults,
    /// `EXCLUDE_NAMESPACES` (comma list), `SYSTEM_NAMESPACE`.
    pub selection: Selection,
    /// `AMBIENT_HOST_PROBES`, `KUBELET_UID`: the user whose connections to pods pass ztunnel; `None` leaves the
    /// node's own namespace alone.
    pub kubelet_uid: Option<u32>,
    /// `HEALTH_PORT`: `/healthz` and `/readyz`; `None` (0) is off.
    pub health_port: Option<u16>,
    /// `MONITORING_PORT`: `/metrics`; `None` (0) is off.
    pub monitoring_port: Option<u16>,
    /// `RUST_LOG`, `LOG_FORMAT`.
    pub log: LogConfig,
}

/// Where the list of pods comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// `PODS_FILE`.
    File(PathBuf),
    /// A Kubernetes API server, and all that belongs to a node of it.
    Kubernetes(Box<Kubernetes>),
}

/// An agent on a node of a Kubernetes cluster.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// `KUBECONFIG`; without it the pod's service account.
    pub kubeconfig: Option<String>,
    /// `HOST_PROC`: the node's `/proc`.
    pub host_proc: PathBuf,
    /// `DAEMONSET_NAME` in `SYSTEM_NAMESPACE`: whose end is the agent's uninstallation. Without it nothing is ever taken away.
    pub owner: Option<Owner>,
    /// `CHAINED_CNI_PLUGIN` and what belongs to it; `None` leaves the node's network configuration alone.
    pub plugin: Option<Install>,
}

/// Names of the directories and sockets of Istio's node agent.
const RUN_DIR: &str = "/var/run/istio-cni";

impl Config {
    /// Reads the environment. `arguments` are `--name value` or `--name=value` for any setting in lower case with
    /// dashes, and come before it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting, its value and the form expected.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let path = |name: &str, default: &str| PathBuf::from(env.non_empty(name).unwrap_or(default));
        let pods_file = env.non_empty("PODS_FILE").map(PathBuf::from);
        let run_dir = env.non_empty("CNI_AGENT_RUN_DIR").unwrap_or(RUN_DIR);
        let beside = pods_file.as_deref().map_or(Path::new(run_dir), |file| file.parent().unwrap_or(Path::new("")));
        let enrolled_file = env.non_empty("ENROLLED_FILE").map_or_else(|| beside.join("enrolled.json"), PathBuf::from);
        let defaults = Selection::default();
        let selection = Selection {
            excluded_namespaces: env.non_empty("EXCLUDE_NAMESPACES").map_or(defaults.excluded_namespaces, list),
            system_namespace: env.non_empty("SYSTEM_NAMESPACE").map_or(defaults.system_namespace, str::to_owned),
        };
        let kubernetes = kubernetes(env, run_dir, &selection)?;
        let (node_name, source) = match pods_file {
            Some(file) => (env.non_empty("NODE_NAME").unwrap_or_default(), Source::File(file)),
            None => {
                let expected =
                    "the name of this node, to follow its pods; or PODS_FILE, the path of this node's pods.json";
                (env.required("NODE_NAME", expected)?, Source::Kubernetes(Box::new(kubernetes)))
            }
        };
        let port = |name: &str, default: u16| -> Result<Option<u16>, ConfigError> {
            Ok(Some(env.number(name, 0..=u16::MAX)?.unwrap_or(default)).filter(|port| *port != 0))
        };
        let host_probes = env.bool("AMBIENT_HOST_PROBES")?.unwrap_or(true);
        let uid = env.number("KUBELET_UID", 0..=u32::MAX)?.unwrap_or(0);
        Ok(Self {
            node_name: node_name.to_owned(),
            ztunnel_socket: path("ZTUNNEL_UDS_ADDRESS", "/var/run/ztunnel/ztunnel.sock"),
            source,
            enrolled_file,
            plugin_socket: path("CNI_EVENT_ADDRESS", &format!("{run_dir}/{}", crate::cni::SOCKET)),
            redirection: Defaults {
                ipv6: env.bool("AMBIENT_IPV6")?.unwrap_or(true),
                dns_capture: env.bool("AMBIENT_DNS_CAPTURE")?.unwrap_or(true),
                probes_any_port: env.bool("AMBIENT_HOST_PROBES_ANY_PORT")?.unwrap_or(false),
            },
            selection,
            kubelet_uid: host_probes.then_some(uid),
            health_port: port("HEALTH_PORT", 8000)?,
            monitoring_port: port("MONITORING_PORT", 15014)?,
            log: LogConfig::from_env(env)?,
        })
    }
}

fn kubernetes(env: &Env, run_dir: &str, selection: &Selection) -> Result<Kubernetes, ConfigError> {
    let path = |name: &str, default: &str| PathBuf::from(env.non_empty(name).unwrap_or(default));
    let namespace = &selection.system_namespace;
    let owner =
        env.non_empty("DAEMONSET_NAME").map(|name| Owner { namespace: namespace.clone(), name: name.to_owned() });
    let entry = Entry {
        run_dir: run_dir.to_owned(),
        agent_namespace: namespace.clone(),
        excluded_namespaces: selection.excluded_namespaces.clone(),
        mesh_pods: env.non_empty("MESH_PODS").map_or_else(crate::cni::default_mesh_pods, list),
    };
    let plugin = Install {
        net_dir: path("MOUNTED_CNI_NET_DIR", "/host/etc/cni/net.d"),
        conf_name: env.non_empty("CNI_CONF_NAME").map(str::to_owned),
        bin_dir: path("MOUNTED_CNI_BIN_DIR", "/host/opt/cni/bin"),
        executable: PathBuf::from("/proc/self/exe"),
        entry,
    };
    Ok(Kubernetes {
        kubeconfig: env.non_empty("KUBECONFIG").map(str::to_owned),
        host_proc: path("HOST_PROC", "/host/proc"),
        owner,
        plugin: env.bool("CHAINED_CNI_PLUGIN")?.unwrap_or(true).then_some(plugin),
    })
}

/// What these settings mean, without starting anything: for whoever is about to start an agent with them. `PODS_FILE` may be left
/// out.
///
/// # Errors
/// Names the setting that cannot be used, or that the agent does not have.
pub fn check(env: &Env) -> Result<Config, ConfigError> {
    let config = Config::from_env(&env.clone().over([("PODS_FILE", "pods.json")].into_iter().collect()))?;
    env.all_known()?;
    Ok(config)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Settings given as arguments, in the form `--pods-file PATH` or `--pods-file=PATH` for `PODS_FILE`.
///
/// # Errors
/// The argument that has neither form.
pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Env, String> {
    let mut arguments = arguments.into_iter();
    let mut settings = Vec::new();
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix("--") else {
            return Err(format!("{argument:?} is not an option: settings are given as --pods-file PATH"));
        };
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (option.to_owned(), arguments.next().ok_or_else(|| format!("--{option} needs a value"))?),
        };
        settings.push((name.to_uppercase().replace('-', "_"), value));
    }
    Ok(settings.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let env = from_arguments(arguments.iter().map(|a| (*a).to_owned()))?;
        Config::from_env(&env).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_set_and_what_it_means() {
        let plain = config(&["--pods-file", "/run/n1/pods.json"]).unwrap();
        assert_eq!(plain.enrolled_file, Path::new("/run/n1/enrolled.json"));
        assert_eq!(plain.ztunnel_socket, Path::new("/var/run/ztunnel/ztunnel.sock"));
        assert_eq!(plain.redirection, Defaults { ipv6: true, dns_capture: true, probes_any_port: false });
        assert_eq!(plain.selection, Selection::default());
        assert_eq!((plain.kubelet_uid, plain.health_port, plain.monitoring_port), (Some(0), Some(8000), Some(15014)));

        let set = config(&[
            "--pods-file=p",
            "--ambient-ipv6=false",
            "--exclude-namespaces=a, b",
            "--ambient-host-probes=false",
            "--ambient-host-probes-any-port=true",
            "--health-port=0",
        ])
        .unwrap();
        assert!(!set.redirection.ipv6 && set.redirection.probes_any_port);
        assert_eq!(set.selection.excluded_namespaces, ["a", "b"]);
        assert_eq!((set.kubelet_uid, set.health_port), (None, None));

        // On a cluster.
        let cluster =
            config(&["--node-name=n1", "--daemonset-name=istio-cni-node", "--system-namespace=mesh"]).unwrap();
        assert_eq!(cluster.enrolled_file, Path::new("/var/run/istio-cni/enrolled.json"));
        assert_eq!(cluster.plugin_socket, Path::new("/var/run/istio-cni/pluginevent.sock"));
        let Source::Kubernetes(kubernetes) = cluster.source else { panic!("no API server") };
        let Kubernetes { owner, plugin, .. } = *kubernetes;
        assert_eq!(owner, Some(Owner { namespace: "mesh".into(), name: "istio-cni-node".into() }));
        let entry = plugin.unwrap().entry;
        assert_eq!(
            (entry.agent_namespace.as_str(), entry.excluded_namespaces),
            ("mesh", vec!["kube-system".to_owned()])
        );
        let without = config(&["--node-name=n1", "--chained-cni-plugin=false"]).unwrap();
        let Source::Kubernetes(kubernetes) = without.source else { panic!("no API server") };
        assert!(kubernetes.plugin.is_none() && kubernetes.owner.is_none());

        for (arguments, part) in [
            (&[][..], "PODS_FILE"),
            (&[][..], "NODE_NAME"),
            (&["pods.json"], "not an option"),
            (&["--pods-file"], "needs a value"),
            (&["--pods-file=p", "--ambient-ipv6=maybe"], "AMBIENT_IPV6"),
            (&["--pods-file=p", "--health-port=99999"], "HEALTH_PORT"),
        ] {
            let error = config(arguments).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
