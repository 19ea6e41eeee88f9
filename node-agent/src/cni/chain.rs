//! The plugin's place in a node's network configuration: the end of the chain that the node has already. Pure.

use serde_json::{Value, json};

use super::NAME;

/// What the plugin is told by its entry in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The directory of the agent's sockets, as the node has it.
    pub run_dir: String,
    /// The agent's namespace.
    pub agent_namespace: String,
    /// Namespaces that are never enrolled.
    pub excluded_namespaces: Vec<String>,
    /// How names of the mesh's own pods begin.
    pub mesh_pods: Vec<String>,
}

/// Why a configuration cannot be extended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It is no JSON.
    #[error("it cannot be read: {0}")]
    Syntax(String),
    /// It is something else than a list of plugins.
    #[error("it is no list of plugins: it has no \"plugins\" with an entry")]
    NoList,
}

/// What a container runtime takes a file for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of plugins.
    List,
    /// A single plugin, which nothing can be chained to.
    Single,
}

/// What the name of a file in the directory of configurations says; `None` for what runtimes leave alone.
pub fn kind(name: &str) -> Option<Kind> {
    if name.starts_with('.') {
        return None;
    }
    match name.rsplit_once('.')?.1 {
        "conflist" => Some(Kind::List),
        "conf" | "json" => Some(Kind::Single),
        _ => None,
    }
}

impl Entry {
    fn to_json(&self) -> Value {
        json!({
            "type": NAME,
            "name": NAME,
            "cni_agent_run_dir": self.run_dir,
            "pod_namespace": self.agent_namespace,
            "exclude_namespaces": self.excluded_namespaces,
            "mesh_pods": self.mesh_pods,
        })
    }

    /// The list with the plugin at its end; `None` if it is in it as it should be.
    pub fn chained(&self, list: &str) -> Result<Option<String>, ChainError> {
        let mut list = read(list)?;
        let entry = self.to_json();
        let plugins = plugins(&mut list)?;
        let ours: Vec<&Value> = plugins.iter().filter(|plugin| is_ours(plugin)).collect();
        if ours == [&entry] {
            return Ok(None);
        }
        plugins.retain(|plugin| !is_ours(plugin));
        if plugins.is_empty() {
            return Err(ChainError::NoList);
        }
        plugins.push(entry);
        Ok(Some(write(&list)))
    }
}

/// The list without the plugin; `None` if it is not in it.
pub fn unchained(list: &str) -> Result<Option<String>, ChainError> {
    let mut list = read(list)?;
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    Ok((plugins.len() != before).then(|| write(&list)))
}

fn read(list: &str) -> Result<Value, ChainError> {
    serde_json::from_str(list).map_err(|error| ChainError::Syntax(error.to_string()))
}

fn plugins(list: &mut Value) -> Result<&mut Vec<Value>, ChainError> {
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut);
    plugins.filter(|plugins| !plugins.is_empty()).ok_or(ChainError::NoList)
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == NAME
}

fn write(list: &Value) -> String {
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDNET: &str = r#"{"cniVersion":"0.3.1","name":"kindnet","future":{"b":1,"a":[2]},"plugins":[
        {"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}]]}},
        {"type":"portmap","capabilities":{"portMappings":true}}]}"#;

    fn entry(namespace: &str) -> Entry {
        Entry {
            run_dir: "/var/run/istio-cni".into(),
            agent_namespace: namespace.into(),
            excluded_namespaces: vec!["kube-system".into()],
            mesh_pods: vec!["ztunnel-".into()],
        }
    }

    #[test]
    fn at_the_end_of_what_is_there_and_out_again() {
        let original = read(KINDNET).unwrap();
        let chained = entry("istio-system").chained(KINDNET).unwrap().unwrap();
        let mut expected = original.clone();
        expected["plugins"].as_array_mut().unwrap().push(entry("istio-system").to_json());
        assert_eq!(read(&chained).unwrap(), expected);
        // Again changes nothing.
        assert_eq!(entry("istio-system").chained(&chained).unwrap(), None);
        // Another agent's entry is replaced, and not doubled.
        let other = entry("mesh").chained(&chained).unwrap().unwrap();
        assert_eq!(read(&other).unwrap()["plugins"].as_array().unwrap().len(), 3);
        assert_eq!(read(&other).unwrap()["plugins"][2]["pod_namespace"], "mesh");
        // Out, and nothing else is lost.
        assert_eq!(read(&unchained(&other).unwrap().unwrap()).unwrap(), original);
        assert_eq!(unchained(KINDNET).unwrap(), None);
    }

    #[test]
    fn what_the_plugin_reads_is_what_was_written() {
        let config = crate::cni::parse_config(entry("istio-system").to_json().to_string().as_bytes()).unwrap();
        assert_eq!(config.agent_run_dir, std::path::Path::new("/var/run/istio-cni"));
        assert_eq!(config.agent_namespace, "istio-system");
        assert_eq!(
            (config.excluded_namespaces, config.mesh_pods),
            (vec!["kube-system".into()], vec!["ztunnel-".into()])
        );
    }

    #[test]
    fn what_cannot_be_extended() {
        let alone = json!({"plugins": [entry("a").to_json()]}).to_string();
        assert_eq!(entry("b").chained(&alone), Err(ChainError::NoList));
        for list in [r#"{"type":"bridge"}"#, r#"{"plugins":[]}"#, r#"{"plugins":{}}"#, "[]", "1"] {
            assert_eq!(entry("a").chained(list), Err(ChainError::NoList), "{list}");
        }
        for list in ["", "{", "plugins"] {
            assert!(matches!(entry("a").chained(list), Err(ChainError::Syntax(_))), "{list}");
        }
    }

    #[test]
    fn which_files_count() {
        for (name, expected) in [
            ("10-kindnet.conflist", Some(Kind::List)),
            ("05-cilium.conf", Some(Kind::Single)),
            ("a.json", Some(Kind::Single)),
            (".10-kindnet.conflist.new", None),
            (".10-kindnet.conflist", None),
            ("10-kindnet.conflist.bak", None),
            ("calico-kubeconfig", None),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }
}
