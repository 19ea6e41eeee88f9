//! What is set besides the environment, and lies below it: `PROXY_CONFIG`, then the file of the mesh's configuration
//! (Istio: `MeshConfig`, `ProxyConfig`). Both become settings under the names of the environment.

use std::collections::BTreeMap;
use std::path::Path;

use mesh_runtime::config::{ConfigError, Env, FileOrInline};
use serde::Deserialize;

/// Where charts mount the mesh's configuration.
pub const MESH_CONFIG: &str = "./etc/istio/config/mesh";

/// The part of `MeshConfig` that ztunnel reads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: Option<ProxyConfig>,
    trust_domain: Option<String>,
}

/// The part of `ProxyConfig` that ztunnel reads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    discovery_address: Option<String>,
    concurrency: Option<u32>,
    termination_drain_duration: Option<String>,
    proxy_admin_port: Option<u16>,
    proxy_metadata: Option<BTreeMap<String, serde_json::Value>>,
}

/// The environment over `PROXY_CONFIG` over the file at `mesh_config`, if there is one.
///
/// # Errors
/// Names what cannot be read, and why.
pub fn with_mesh_config(env: Env, mesh_config: &Path) -> Result<Env, ConfigError> {
    let mesh: MeshConfig = match mesh_config.exists() {
        true => {
            let text = FileOrInline::File(mesh_config.to_owned()).read("mesh configuration")?;
            parse(&mesh_config.display().to_string(), &String::from_utf8_lossy(&text))?
        }
        false => MeshConfig::default(),
    };
    let own: ProxyConfig = match env.non_empty("PROXY_CONFIG") {
        Some(text) => parse("PROXY_CONFIG", text)?,
        None => ProxyConfig::default(),
    };
    let of_mesh = mesh.default_config.unwrap_or_default().settings();
    let trust_domain = mesh.trust_domain.map(|domain| ("TRUST_DOMAIN".to_owned(), domain));
    Ok(env.over(own.settings()).over(of_mesh).over(trust_domain.into_iter().collect()))
}

fn parse<T: for<'a> Deserialize<'a> + Default>(name: &str, text: &str) -> Result<T, ConfigError> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text).map_err(|error| ConfigError::Invalid {
        name: name.into(),
        value: text.chars().take(64).collect(),
        expected: format!("YAML of Istio's mesh configuration ({error})"),
    })
}

impl ProxyConfig {
    /// Under the names that the environment has for them.
    fn settings(self) -> Env {
        let Self { discovery_address, concurrency, termination_drain_duration, proxy_admin_port, proxy_metadata } =
            self;
        let address = discovery_address.map(|address| match address.contains("://") {
            true => address,
            false => format!("https://{address}"),
        });
        let named = [
            ("XDS_ADDRESS", address),
            ("ZTUNNEL_WORKER_THREADS", concurrency.map(|n| n.to_string())),
            ("CONNECTION_TERMINATION_DEADLINE", termination_drain_duration),
            ("ADMIN_PORT", proxy_admin_port.map(|port| port.to_string())),
        ];
        let named: Env = named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let metadata = proxy_metadata.unwrap_or_default().into_iter().filter_map(|(name, value)| match value {
            serde_json::Value::String(text) => Some((name, text)),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Some((name, value.to_string())),
            // Environments hold text: what is not written as one value is nobody's.
            _ => None,
        });
        // What somebody wrote under the setting's own name is the more exact.
        metadata.collect::<Env>().over(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        vars.iter().copied().collect()
    }

    /// Contract 12.1: the mesh's file and `PROXY_CONFIG` under the environment.
    #[test]
    fn the_environment_is_over_proxy_config_is_over_the_mesh() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mesh");
        std::fs::write(
            &file,
            "trustDomain: corp\nenableTracing: true\ndefaultConfig:\n  discoveryAddress: istiod.mesh.svc:15012\n  concurrency: 3\n  \
             terminationDrainDuration: 9s\n  proxyMetadata:\n    ISTIO_META_A: of-mesh\n    ISTIO_META_B: of-mesh\n    SECRET_TTL: 1h\n    \
             IPV6_ENABLED: false\n",
        )
        .unwrap();
        let own = "proxyMetadata:\n  ISTIO_META_B: own\n  SECRET_TTL: 2h\nconcurrency: 4\n";
        let merged = with_mesh_config(env(&[("PROXY_CONFIG", own), ("SECRET_TTL", "3h")]), &file).unwrap();
        for (name, value) in [
            ("XDS_ADDRESS", "https://istiod.mesh.svc:15012"),
            ("ZTUNNEL_WORKER_THREADS", "4"),
            ("CONNECTION_TERMINATION_DEADLINE", "9s"),
            ("ISTIO_META_A", "of-mesh"),
            ("ISTIO_META_B", "own"),
            ("SECRET_TTL", "3h"),
            ("TRUST_DOMAIN", "corp"),
            ("IPV6_ENABLED", "false"),
        ] {
            assert_eq!(merged.text(name), Some(value), "{name}");
        }
        // Set to nothing is off, also over a file.
        let off = with_mesh_config(env(&[("XDS_ADDRESS", "")]), &file).unwrap();
        assert_eq!(off.text("XDS_ADDRESS"), Some(""));
    }

    #[test]
    fn what_is_not_there_is_nothing_and_what_is_wrong_is_named() {
        let nowhere = Path::new("/nonexistent/mesh");
        assert_eq!(with_mesh_config(env(&[]), nowhere).unwrap().text("XDS_ADDRESS"), None);
        with_mesh_config(env(&[("PROXY_CONFIG", " ")]), nowhere).unwrap();
        let error = with_mesh_config(env(&[("PROXY_CONFIG", "concurrency: many")]), nowhere).unwrap_err().to_string();
        assert!(error.contains("PROXY_CONFIG") && error.contains("many"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mesh"), "[").unwrap();
        let error = with_mesh_config(env(&[]), &dir.path().join("mesh")).unwrap_err().to_string();
        assert!(error.contains("/mesh"), "{error}");
    }
}
