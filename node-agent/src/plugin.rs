//! The CNI plugin: asks the agent about a new pod and prints what the plugin before it made.
//!
//! It is the agent's own executable under another name, so that one file is all that a node needs. Configuration on standard input,
//! the call in the environment, result or error object on standard output, as the CNI specification has it.
#![allow(clippy::print_stdout, reason = "standard output is the CNI plugin's interface")]

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cni::{self, CniError, NetConf};
use crate::plugin_client;

/// Whether a process that was started under this name is to be the plugin.
pub fn is_called(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(OsStr::new(cni::NAME))
}

/// The plugin's process.
pub fn main() -> ExitCode {
    let mut version = "1.0.0".to_owned();
    match call(&mut version) {
        Ok(Some(result)) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", error.to_json(&version));
            ExitCode::FAILURE
        }
    }
}

/// One call. `version` becomes the caller's, once known.
fn call(version: &mut String) -> Result<Option<serde_json::Value>, CniError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    match variable("CNI_COMMAND").as_str() {
        "VERSION" => Ok(Some(cni::versions())),
        "ADD" => {
            let config = read_config()?;
            if !config.cni_version.is_empty() {
                version.clone_from(&config.cni_version);
            }
            if let Some(request) = cni::add_request(&config, &variable("CNI_NETNS"), &variable("CNI_ARGS"))? {
                let socket = config.agent_run_dir.join(cni::SOCKET);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| CniError::Refused(error.to_string()))?;
                runtime
                    .block_on(plugin_client::cmd_add(&socket, &request))
                    .map_err(|error| CniError::Refused(error.to_string()))?;
            }
            Ok(config.prev_result)
        }
        // What belongs to a pod's namespace goes with it.
        "DEL" | "CHECK" | "GC" | "STATUS" => Ok(None),
        other => Err(CniError::Environment(format!("CNI_COMMAND {other:?} is not known"))),
    }
}

fn read_config() -> Result<NetConf, CniError> {
    let mut stdin = Vec::new();
    std::io::stdin()
        .take(cni::MAX_CONFIG as u64)
        .read_to_end(&mut stdin)
        .map_err(|error| CniError::Decode(error.to_string()))?;
    cni::parse_config(&stdin)
}
