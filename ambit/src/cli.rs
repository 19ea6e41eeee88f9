//! The command line.
use crate::machine::MachineArgs;
use crate::mesh::setting::Setting;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// An ambient service mesh: every program of it, and a whole one on this machine.
#[derive(Debug, Parser)]
#[command(name = "ambit", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which mesh.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Name of the mesh on this machine.
    #[arg(long, default_value = "default", env = "AMBIT_NAME", global = true)]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a mesh from a folder of Kubernetes YAML on this machine.
    Up(Up),
    /// Run a command inside a pod.
    Exec(Exec),
    /// Show what a pod or a program of the mesh wrote.
    Logs(Logs),
    /// Show nodes, programs, pods and services.
    Status(StatusArgs),
    /// Replace a program of the mesh by a new instance; a ztunnel without a gap.
    Restart(Restart),
    /// End a running mesh.
    Down(Down),
    /// Show what a mesh does, in a few seconds, checked step by step.
    Demo(Demo),
    /// The node's L4 proxy.
    #[command(disable_help_flag = true)]
    Ztunnel(ProgramArgs),
    /// The control plane.
    #[command(disable_help_flag = true)]
    IstiodLite(ProgramArgs),
    /// The node's agent.
    #[command(disable_help_flag = true)]
    NodeAgent(ProgramArgs),
    /// Process 1 of a machine; started by `up`.
    #[command(hide = true)]
    Machine(MachineArgs),
    /// Count packets on the fabric; used by the demo and tests.
    #[command(hide = true)]
    Capture(crate::capture::CaptureArgs),
    /// Small clients and servers for pods; used by the demo and tests.
    #[command(hide = true, subcommand)]
    Tool(crate::tool::Tool),
}

/// Handed on as they are.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folder of YAML: Namespace, Node, ServiceAccount, Pod, Service, AuthorizationPolicy, ...
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Return once everything is ready; `ambit down` ends it.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Write the status (JSON) to this file once everything is ready.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// With --detach: how long to wait for everything to be ready, in seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout: u64,
    /// Lifetime of workload certificates, such as 24h or 10s.
    #[arg(long, value_name = "DURATION")]
    pub(crate) secret_ttl: Option<String>,
    /// What the nodes have as /etc/resolv.conf: whom ztunnel asks for names outside of the mesh. A pod can be one.
    #[arg(long, value_name = "FILE")]
    pub(crate) resolv_conf: Option<PathBuf>,
    /// One more setting of a program: `ztunnel:XDS_ON_DEMAND=true`, or of one node's only, `ztunnel-node1:...`.
    #[arg(long = "set", value_name = "PROGRAM:NAME=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// Run the pods only, without a mesh.
    #[arg(long)]
    pub(crate) no_mesh: bool,
    /// Say nothing on the terminal.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Namespace of the pod.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Container of the pod; the first by default.
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Accepted for habit's sake: the command always has the caller's own input and terminal.
    #[arg(short = 'i', long = "stdin", hide = true)]
    pub(crate) stdin: bool,
    /// Accepted for habit's sake, too.
    #[arg(short = 't', long = "tty", hide = true)]
    pub(crate) tty: bool,
    /// Name of the pod, or NAMESPACE/NAME.
    pub(crate) pod: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Namespace of the pod.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Keep showing what is added.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this many lines from the end.
    #[arg(long)]
    pub(crate) tail: Option<usize>,
    /// A pod (or NAMESPACE/NAME), or a program: istiod-lite, ztunnel-NODE, node-agent-NODE, ambit.
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Wait until everything is ready, at most this many seconds; then exit with 0, or 1 if it is not.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    pub(crate) wait: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) which: Which,
    /// A program: istiod-lite, ztunnel-NODE, node-agent-NODE.
    pub(crate) program: String,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave it running, to look around.
    #[arg(long)]
    pub(crate) keep: bool,
    /// No colours, even in a terminal.
    #[arg(long)]
    pub(crate) no_color: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_with_dashes_reach_their_program() {
        let cli =
            Cli::try_parse_from(["ambit", "exec", "-it", "-n", "shop", "web", "--", "curl", "-s", "http://x"]).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("{cli:?}") };
        assert_eq!((exec.namespace.as_str(), exec.pod.as_str()), ("shop", "web"));
        assert_eq!(exec.command, ["curl", "-s", "http://x"]);
        let cli = Cli::try_parse_from(["ambit", "ztunnel", "proxy", "ztunnel", "--help"]).unwrap();
        let Command::Ztunnel(program) = cli.command else { panic!("{cli:?}") };
        assert_eq!(program.args, ["proxy", "ztunnel", "--help"]);
    }
}
