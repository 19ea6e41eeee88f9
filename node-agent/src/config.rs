//! What was set → what it means. Names are those of Istio's node agent where it has the setting.

use std::path::{Path, PathBuf};

use mesh_runtime::config::{ConfigError, Env};
use mesh_runtime::log::LogConfig;

use crate::enroll::Selection;
use crate::redirect::settings::Defaults;

/// Everything the agent can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `NODE_NAME`: this node, for logs.
    pub node_name: String,
    /// `ZTUNNEL_UDS_ADDRESS`: where ztunnels connect.
    pub ztunnel_socket: PathBuf,
    /// `PODS_FILE`: the pods of this node, as they should be.
    pub pods_file: PathBuf,
    /// `ENROLLED_FILE`: where the agent says how far each pod got. Also read at start.
    pub enrolled_file: PathBuf,
    /// `CNI_EVENT_ADDRESS`: where the CNI plugin asks.
    pub plugin_socket: PathBuf,
    /// `AMBIENT_IPV6`, `AMBIENT_DNS_CAPTURE`.
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

impl Config {
    /// Reads the environment. `arguments` are `--name value` or `--name=value` for any setting in lower case with
    /// dashes, and come before it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting, its value and the form expected.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let path = |name: &str, default: &str| PathBuf::from(env.non_empty(name).unwrap_or(default));
        let pods_file = PathBuf::from(env.required("PODS_FILE", "the path of this node's pods.json")?);
        let beside = |name: &str| pods_file.parent().unwrap_or(Path::new("")).join(name);
        let enrolled_file = env.non_empty("ENROLLED_FILE").map_or_else(|| beside("enrolled.json"), PathBuf::from);
        let defaults = Selection::default();
        let port = |name: &str, default: u16| -> Result<Option<u16>, ConfigError> {
            Ok(Some(env.number(name, 0..=u16::MAX)?.unwrap_or(default)).filter(|port| *port != 0))
        };
        let host_probes = env.bool("AMBIENT_HOST_PROBES")?.unwrap_or(true);
        let uid = env.number("KUBELET_UID", 0..=u32::MAX)?.unwrap_or(0);
        Ok(Self {
            node_name: env.non_empty("NODE_NAME").unwrap_or_default().to_owned(),
            ztunnel_socket: path("ZTUNNEL_UDS_ADDRESS", "/var/run/ztunnel/ztunnel.sock"),
            pods_file,
            enrolled_file,
            plugin_socket: path("CNI_EVENT_ADDRESS", "/var/run/istio-cni/pluginevent.sock"),
            redirection: Defaults {
                ipv6: env.bool("AMBIENT_IPV6")?.unwrap_or(true),
                dns_capture: env.bool("AMBIENT_DNS_CAPTURE")?.unwrap_or(true),
            },
            selection: Selection {
                excluded_namespaces: env.non_empty("EXCLUDE_NAMESPACES").map_or(defaults.excluded_namespaces, list),
                system_namespace: env.non_empty("SYSTEM_NAMESPACE").map_or(defaults.system_namespace, str::to_owned),
            },
            kubelet_uid: host_probes.then_some(uid),
            health_port: port("HEALTH_PORT", 8000)?,
            monitoring_port: port("MONITORING_PORT", 15014)?,
            log: LogConfig::from_env(env)?,
        })
    }
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
        assert_eq!(plain.redirection, Defaults { ipv6: true, dns_capture: true });
        assert_eq!(plain.selection, Selection::default());
        assert_eq!((plain.kubelet_uid, plain.health_port, plain.monitoring_port), (Some(0), Some(8000), Some(15014)));

        let set = config(&[
            "--pods-file=p",
            "--ambient-ipv6=false",
            "--exclude-namespaces=a, b",
            "--ambient-host-probes=false",
            "--health-port=0",
        ])
        .unwrap();
        assert!(!set.redirection.ipv6);
        assert_eq!(set.selection.excluded_namespaces, ["a", "b"]);
        assert_eq!((set.kubelet_uid, set.health_port), (None, None));

        for (arguments, part) in [
            (&[][..], "PODS_FILE"),
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
