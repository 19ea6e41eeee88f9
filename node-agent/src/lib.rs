//! The node agent: runs on each node with the privileges ztunnel does not want. It decides which pods of its node are
//! in the mesh, programs redirection in their network namespaces, and hands them to ztunnel.
//!
//! What should be comes as a whole list of pods; what is gets compared with it, pod by pod, and brought nearer one step
//! at a time. Repeating a step is harmless, so a restart needs no more than the list.
//!
//! | module | holds |
//! |---|---|
//! | [`pods`] | this node's pods, as the source has them |
//! | [`kubernetes`] | the API server: as the source, and told how far each pod got |
//! | [`enroll`] | is this pod in the mesh? with the reason (pure) |
//! | [`reconcile`] | what to do about a pod next (pure) |
//! | [`redirect`] | the rules of a pod's namespace: as data and text (pure), and over netlink |
//! | [`netns`] | open and enter a network namespace |
//! | [`sandboxes`] | find pods' network namespaces by the node's processes |
//! | [`probe_ports`] | which ports of a pod its kubelet dials (pure) |
//! | [`probes`] | the node's own rules, for the kubelet's probes |
//! | `managed` | one pod: what is wanted, what has been done, when to try again |
//! | `operations`, `agent` | the steps on one pod; the loop over all |
//! | [`enrolled`] | how far each pod got, for others to read |
//! | `outside` | pods that should be in the mesh and are not: why, and what to do (pure) |
//! | [`cni`], [`plugin_server`], [`plugin_client`] | the CNI plugin's conversations; the plugin's process is [`plugin`] |
//! | [`cni::chain`], [`install`] | the plugin in the node's network configuration: as text (pure), and on the disk |
//! | `node` | what the agent has on a node of a cluster, from its start to its uninstallation |
//! | [`config`], [`app`] | what was set; wiring |
//!
//! Begin with [`enroll`] and [`redirect::rules`] for what it decides, with `operations` for what it does. Not here:
//! anything of a connection; that is ztunnel's, which meets this program only in `mesh-handoff`.

use std::process::ExitCode;

use mesh_runtime::config::Env;
use mesh_runtime::shutdown::{Reason, Shutdown};

mod agent;
pub mod app;
pub mod cni;
pub mod config;
pub mod enroll;
pub mod enrolled;
pub mod install;
pub mod kubernetes;
mod managed;
mod metrics;
pub mod netns;
mod node;
mod operations;
mod outside;
pub mod plugin;
pub mod plugin_client;
pub mod plugin_server;
pub mod pods;
pub mod probe_ports;
pub mod probes;
pub mod reconcile;
pub mod redirect;
pub mod sandboxes;

/// The life of the process: read settings, set up logs, run until a signal. `arguments` are settings as
/// `--pods-file PATH`, without the program's name; the environment is read as well.
#[allow(clippy::print_stderr, reason = "before logs are set up there is only standard error")]
pub fn run(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return help();
    }
    let ended = config::from_arguments(arguments)
        .map_err(anyhow::Error::msg)
        .and_then(|arguments| {
            // The environment has the settings of others, too; arguments are for the agent alone.
            config::check(&arguments)?;
            Ok(arguments)
        })
        .and_then(|arguments| Ok(config::Config::from_env(&arguments.over(Env::process()))?))
        .and_then(|config| {
            mesh_runtime::log::init(&config.log)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(until_signalled(config))
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the answer to a question on the command line")]
fn help() -> ExitCode {
    const USAGE: &str = "\
Usage: node-agent [--SETTING VALUE]...
The node's agent: enrols pods, writes their redirect rules, and hands them to
ztunnel. The pods are those of node NODE_NAME of a Kubernetes cluster, or those
of PODS_FILE. Every setting can be an argument, too: --pods-file for PODS_FILE.
Example:
  node-agent --node-name node1 --pods-file /run/ambit/pods.json";
    let settings = Env::default();
    // Only which settings are read matters here.
    let _ = config::check(&settings);
    print!("{}", mesh_runtime::usage::usage(USAGE, &settings));
    ExitCode::SUCCESS
}

async fn until_signalled(config: config::Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let signalled = shutdown.clone();
    tokio::spawn(async move {
        let reason = signalled.wait().await.unwrap_or(Reason::Failure);
        signalled.request(reason);
    });
    app::run(config, shutdown).await
}
