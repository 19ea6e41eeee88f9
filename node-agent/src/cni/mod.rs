//! The CNI plugin's two conversations: with the runtime that calls it, and with the agent it asks. Pure.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod chain;

/// The plugin's name: of its file, and of its type in network configurations.
pub const NAME: &str = "mesh-cni";
/// The path of the agent's HTTP endpoint.
pub const ADD_PATH: &str = "/cmdadd";
/// The agent's socket for the plugin, in the directory of its sockets.
pub const SOCKET: &str = "pluginevent.sock";
/// The specification versions the plugin speaks.
pub const VERSIONS: [&str; 6] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.2.0"];
/// The largest network configuration that is read, in bytes.
pub const MAX_CONFIG: usize = 1 << 20;

/// What the plugin asks the agent: here is a new pod's namespace, is it well?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddRequest {
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// Its UID, where the runtime says it: it tells a pod from an earlier one of the same name. Istio's plugin leaves it out.
    #[serde(rename = "PodUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// What the network plugin before this one gave the pod.
    #[serde(rename = "IPs", default)]
    pub ips: Vec<IpConfig>,
}

/// One address of a pod, in the form Go gives a CNI `IPConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpConfig {
    /// Index into the result's interfaces.
    #[serde(default)]
    pub interface: Option<u32>,
    /// The address and its network's mask.
    pub address: IpNet,
    /// The network's gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// An address and a mask, in the form Go gives a `net.IPNet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpNet {
    /// The address.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// The mask's bytes in base64.
    #[serde(rename = "Mask", default)]
    pub mask: String,
}

impl IpNet {
    /// An address in a network of this prefix length.
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        let bytes: Vec<u8> = match ip {
            IpAddr::V4(_) => u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes().into(),
            IpAddr::V6(_) => u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0).to_be_bytes().into(),
        };
        Self { ip, mask: base64(&bytes) }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = char::from(ALPHABET[(word >> (18 - 6 * i) & 63) as usize]);
            text.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// The network configuration a runtime gives on standard input; only what this plugin needs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    /// The specification version the caller speaks.
    #[serde(default)]
    pub cni_version: String,
    /// What the plugins before this one made; handed on untouched.
    pub prev_result: Option<Value>,
    /// The directory of the agent's sockets.
    #[serde(rename = "cni_agent_run_dir", default = "default_run_dir")]
    pub agent_run_dir: PathBuf,
    /// The agent's own namespace.
    #[serde(rename = "pod_namespace", default)]
    pub agent_namespace: String,
    /// Namespaces that the agent never enrols: it need not be asked about their pods.
    #[serde(rename = "exclude_namespaces", default)]
    pub excluded_namespaces: Vec<String>,
    /// How names of the mesh's own pods begin, in the agent's namespace.
    #[serde(rename = "mesh_pods", default = "default_mesh_pods")]
    pub mesh_pods: Vec<String>,
}

impl NetConf {
    /// Whether a pod starts without the agent being asked: what the node and the mesh need to come up at all must not wait
    /// for it. That is every pod of a namespace which is never enrolled (`kube-system`, where a node's DNS and network are),
    /// and the mesh's own programs: the agent, ztunnel, the control plane. One of these that belongs in the mesh is enrolled
    /// as a pod that runs. Pods on the node's network never come by a CNI plugin.
    pub fn lets_pass(&self, namespace: &str, name: &str) -> bool {
        let excluded = self.excluded_namespaces.iter().any(|excluded| excluded == namespace);
        let ours = || self.mesh_pods.iter().any(|prefix| !prefix.is_empty() && name.starts_with(prefix));
        excluded || (namespace == self.agent_namespace && ours())
    }
}

/// Istio's names.
pub(crate) fn default_mesh_pods() -> Vec<String> {
    ["istio-cni-node-", "ztunnel-", "istiod-"].map(str::to_owned).into()
}

fn default_run_dir() -> PathBuf {
    PathBuf::from("/var/run/istio-cni")
}

/// Why the plugin could not do what it was called for; the code is of the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CniError {
    /// The environment lacks something.
    #[error("CNI environment: {0}")]
    Environment(String),
    /// Standard input is not a network configuration.
    #[error("cannot decode the network configuration: {0}")]
    Decode(String),
    /// The configuration cannot be used.
    #[error("network configuration: {0}")]
    Config(String),
    /// The agent did not enrol the pod. The runtime tears the sandbox down and tries again: a pod that belongs in the
    /// mesh does not start outside of it.
    #[error("the node agent did not enrol the pod: {0}")]
    Refused(String),
}

impl CniError {
    /// The error object a runtime expects on standard output.
    pub fn to_json(&self, version: &str) -> Value {
        let code = match self {
            Self::Environment(_) => 4,
            Self::Decode(_) => 6,
            Self::Config(_) => 7,
            Self::Refused(_) => 11, // try again later
        };
        serde_json::json!({ "cniVersion": version, "code": code, "msg": NAME, "details": self.to_string() })
    }
}

/// Reads the network configuration.
pub fn parse_config(stdin: &[u8]) -> Result<NetConf, CniError> {
    serde_json::from_slice(stdin).map_err(|error| CniError::Decode(error.to_string()))
}

/// What to ask the agent about an ADD; `None` when it [need not be asked](NetConf::lets_pass). `args` is `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
pub fn add_request(config: &NetConf, netns: &str, args: &str) -> Result<Option<AddRequest>, CniError> {
    let argument = |key: &str| {
        let found = args.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
        found
            .map(|(_, value)| value.to_owned())
            .filter(|value| !value.is_empty())
            .ok_or_else(|| CniError::Environment(format!("CNI_ARGS has no {key}; is the caller Kubernetes?")))
    };
    let (pod_name, pod_namespace) = (argument("K8S_POD_NAME")?, argument("K8S_POD_NAMESPACE")?);
    let pod_uid = argument("K8S_POD_UID").ok();
    if netns.is_empty() {
        return Err(CniError::Environment("CNI_NETNS is not set".to_owned()));
    }
    if config.lets_pass(&pod_namespace, &pod_name) {
        return Ok(None);
    }
    let previous = config.prev_result.as_ref().ok_or_else(|| {
        CniError::Config("no prevResult: this plugin comes after one that makes a network".to_owned())
    })?;
    let ips = previous.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ips = ips.iter().map(ip_config).collect::<Result<_, _>>()?;
    Ok(Some(AddRequest { netns: netns.into(), pod_name, pod_namespace, pod_uid, ips }))
}

/// One entry of a CNI result's `ips`: `{"address": "10.0.0.1/24", "interface": 2, "gateway": "10.0.0.254"}`.
fn ip_config(entry: &Value) -> Result<IpConfig, CniError> {
    let bad = || CniError::Config(format!("prevResult has an address that is none: {entry}"));
    let (ip, prefix) = entry["address"].as_str().and_then(|text| text.split_once('/')).ok_or_else(bad)?;
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    let gateway = entry["gateway"].as_str().map(str::parse).transpose().map_err(|_| bad())?;
    let interface = entry["interface"].as_u64().and_then(|index| u32::try_from(index).ok());
    Ok(IpConfig { interface, address: IpNet::new(ip, prefix), gateway })
}

/// The answer to VERSION.
pub fn versions() -> Value {
    serde_json::json!({ "cniVersion": "1.1.0", "supportedVersions": VERSIONS })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=u";
    const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"k8s","type":"istio-cni","pod_namespace":"istio-system",
        "prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],
        "ips":[{"address":"10.244.1.5/24","gateway":"10.244.1.1","interface":0},{"address":"fd00::5/64"}]}}"#;

    #[test]
    fn asks_as_go_does() {
        let config = parse_config(CONFIG.as_bytes()).unwrap();
        let request = add_request(&config, "/var/run/netns/x", ARGS).unwrap().unwrap();
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"Netns":"/var/run/netns/x","PodName":"web","PodNamespace":"ns","PodUID":"u","IPs":["#,
                r#"{"Interface":0,"Address":{"IP":"10.244.1.5","Mask":"////AA=="},"Gateway":"10.244.1.1"},"#,
                r#"{"Interface":null,"Address":{"IP":"fd00::5","Mask":"//////////8AAAAAAAAAAA=="},"Gateway":null}]}"#
            )
        );
        assert_eq!(serde_json::from_str::<AddRequest>(&json).unwrap(), request);
    }

    #[test]
    fn what_cannot_be_asked() {
        let config = parse_config(CONFIG.as_bytes()).unwrap();
        assert!(matches!(add_request(&config, "", ARGS), Err(CniError::Environment(_))));
        assert!(matches!(add_request(&config, "/n", "K8S_POD_NAME=web"), Err(CniError::Environment(_))));
        assert!(matches!(parse_config(b"[]"), Err(CniError::Decode(_))));
        let first = parse_config(br#"{"cniVersion":"1.0.0"}"#).unwrap();
        assert!(matches!(add_request(&first, "/n", ARGS), Err(CniError::Config(_))));
        let odd = parse_config(br#"{"prevResult":{"ips":[{"address":"10.0.0.1"}]}}"#).unwrap();
        assert!(matches!(add_request(&odd, "/n", ARGS), Err(CniError::Config(_))));
    }

    /// With the agent down, all that is not in this table waits.
    #[test]
    fn who_starts_while_the_agent_is_down() {
        let config = parse_config(
            br#"{"pod_namespace":"istio-system","exclude_namespaces":["kube-system"],"prevResult":{},
                "mesh_pods":["istio-cni-node-","ztunnel-","istiod-", ""]}"#,
        )
        .unwrap();
        for (namespace, name, passes) in [
            ("istio-system", "istio-cni-node-x7k2p", true),
            ("istio-system", "ztunnel-x7k2p", true),
            ("istio-system", "istiod-6d4cf56db6-x7k2p", true),
            ("kube-system", "coredns-6d4cf56db6-x7k2p", true),
            ("kube-system", "calico-node-x7k2p", true),
            ("istio-system", "prometheus-0", false),
            ("shop", "web-0", false),
            // A name that anyone may choose is not enough.
            ("shop", "ztunnel-x7k2p", false),
            ("shop", "istio-cni-node-x7k2p", false),
            ("kube-system-2", "web", false),
        ] {
            let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
            let asked = add_request(&config, "/n", &args).unwrap();
            assert_eq!(asked.is_none(), passes, "{namespace}/{name}");
        }
        // A configuration of Istio's.
        let istios = parse_config(br#"{"pod_namespace":"istio-system"}"#).unwrap();
        assert!(
            istios.lets_pass("istio-system", "istio-cni-node-x7k2p") && !istios.lets_pass("kube-system", "coredns-0")
        );
        assert!(!NetConf { agent_namespace: String::new(), ..istios }.lets_pass("istio-system", "ztunnel-a"));
    }

    #[test]
    fn masks() {
        for (ip, prefix, mask) in
            [("10.0.0.1", 0, "AAAAAA=="), ("10.0.0.1", 32, "/////w=="), ("10.0.0.1", 8, "/wAAAA==")]
        {
            assert_eq!(IpNet::new(ip.parse().unwrap(), prefix).mask, mask);
        }
    }
}
