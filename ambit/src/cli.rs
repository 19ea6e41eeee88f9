//! The command line.
use crate::install::arguments::{InstallArgs, UninstallArgs, UpgradeArgs};
use crate::kubernetes::access::Cluster;
use crate::machine::MachineArgs;
use crate::mesh::setting::Setting;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// An ambient service mesh: every program of it, and a whole one on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "ambit",
    version,
    max_term_width = 80,
    after_help = "\
Examples:
  ambit demo                            see a mesh work
  ambit up -f ./yaml --detach           run one of your own
  ambit status
  ambit help up                         more of one command"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line, `args[0]` being the program's own name. Help that is asked for is an error with the exit code 0.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        // Clap has no help of `help`.
        if args.len() == 3 && args[1] == "help" && ["help", "--help", "-h"].iter().any(|word| args[2] == *word) {
            args.remove(2);
        }
        Self::try_parse_from(args)
    }
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
    #[command(after_help = "\
Examples:
  ambit up -f ./yaml                    in the foreground; Ctrl-C ends it
  ambit up -f ./yaml --detach           returns once everything is ready
  ambit up -f ./yaml --name other --set ztunnel:XDS_ON_DEMAND=true \\
           --set ztunnel:ISTIO_META_DNS_CAPTURE=false
Settings of programs: ambit ztunnel --help, and docs/operations.md.")]
    Up(Up),
    /// Run a command inside a pod.
    #[command(after_help = "\
Examples:
  ambit exec -n hello client -- curl -sS http://web/
  ambit exec hello/client -- sh
The exit code is the command's; 127 if there is no such program, 126 if it
cannot be executed.")]
    Exec(Exec),
    /// Show what a pod or a program of the mesh wrote.
    #[command(after_help = "\
Examples:
  ambit logs -n hello web
  ambit logs --follow ztunnel-node1
  ambit logs --tail 50 istiod-lite")]
    Logs(Logs),
    /// Show nodes, programs, pods, services and policies.
    #[command(after_help = "\
Examples:
  ambit status
  ambit status --wait 30 && echo ready
  ambit status --kubernetes
  ambit status -o json | jq '.pods[] | {name, mesh}'
It is about a cluster with --kubernetes, --kubeconfig or --context, or where
KUBECONFIG is set and no mesh of the name runs here. Exit code 3: an object of
the folder is refused, or something is wrong on the cluster; 1: it could not be
told.")]
    Status(StatusArgs),
    /// Replace a program of the mesh; a ztunnel without a gap.
    #[command(after_help = "\
Examples:
  ambit restart ztunnel-node1
  ambit restart istiod-lite")]
    Restart(Restart),
    /// End a running mesh.
    #[command(after_help = "\
Example:
  ambit down --name other")]
    Down(Down),
    /// Show what a mesh does, in a few seconds, checked step by step.
    #[command(after_help = "\
Example:
  ambit demo --keep && ambit status --name demo")]
    Demo(Demo),
    /// Install the mesh on a cluster, by Helm and charts in here.
    #[command(after_help = "\
Examples:
  ambit install --set global.hub=HUB --set global.tag=TAG --wait
  ambit install --profile ha -f values.yaml
  ambit install --dry-run | less
  ambit install --charts ./charts       to see them, or to run helm yourself
Exit codes are Helm's.")]
    Install(InstallArgs),
    /// Bring the mesh of a cluster to the version of this program.
    #[command(after_help = "\
Examples:
  ambit upgrade --wait
  ambit upgrade --set ztunnel.logLevel=debug
Values that were set before stay as they are. `helm rollback` goes back.")]
    Upgrade(UpgradeArgs),
    /// Remove the mesh from a cluster; pods go on in plain text.
    #[command(after_help = "\
Examples:
  ambit uninstall --wait
  ambit uninstall --purge               also policies, and the root
Without --purge Istio's kinds and their objects stay, and so does the root.
Gateway API's kinds are never touched.")]
    Uninstall(UninstallArgs),
    /// The node's L4 proxy.
    #[command(disable_help_flag = true)]
    Ztunnel(ProgramArgs),
    /// Waypoints of a cluster: list, status, apply, delete; or the proxy.
    #[command(disable_help_flag = true)]
    Waypoint(ProgramArgs),
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
    Capture(CaptureArgs),
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

/// The arguments of the child that captures packets.
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Text to look for; may be repeated.
    #[arg(long)]
    pub(crate) needle: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folder of Kubernetes YAML: Namespaces, Pods, Services, policies, ...
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Return once everything is ready. Exit code 3: an object is refused.
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
    /// The nodes' /etc/resolv.conf: which name servers ztunnel asks.
    #[arg(long, value_name = "FILE")]
    pub(crate) resolv_conf: Option<PathBuf>,
    /// A setting of a program; of one node's only with `ztunnel-node1:...`.
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
    /// A pod, or a program: istiod-lite, ztunnel-NODE, node-agent-NODE, ambit.
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Wait for everything to be ready; exit code 1 if it is not in time.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    pub(crate) wait: Option<u64>,
    /// Of a cluster.
    #[arg(short, long)]
    pub(crate) kubernetes: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// On a cluster: the namespace of the control plane.
    #[arg(short, long, default_value = "istio-system")]
    pub(crate) istio_namespace: String,
}

/// What a waypoint is in the way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WaypointFor {
    /// Services.
    Service,
    /// Pods, by their own addresses.
    Workload,
    /// Both.
    All,
    /// Nothing.
    None,
}

impl WaypointFor {
    /// Istio's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// At most 100 columns, where names leave room.
    Table,
    /// All addresses and endpoints, one line for each thing.
    Wide,
    /// For scripts; stable.
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

    /// Every command that people see has a help of at most 80 columns with an example in it.
    #[test]
    fn helps_have_examples_and_fit_80_columns() {
        let mut cli = Cli::command();
        cli.build();
        let mut wide = Vec::new();
        for command in std::iter::once(cli.clone()).chain(cli.get_subcommands().cloned()) {
            if command.is_hide_set() || PROGRAMS.contains(&command.get_name()) || command.get_name() == "help" {
                continue;
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", command.get_name());
            wide.extend(help.lines().filter(|line| line.chars().count() > 80).map(str::to_owned));
        }
        assert!(wide.is_empty(), "{wide:#?}");
    }

    /// They print their own.
    const PROGRAMS: [&str; 4] = ["ztunnel", "waypoint", "istiod-lite", "node-agent"];

    #[test]
    fn help_is_no_mistake() {
        for arguments in
            [&["--help"][..], &["help"], &["help", "up"], &["up", "--help"], &["help", "--help"], &["help", "help"]]
        {
            let all = std::iter::once("ambit").chain(arguments.iter().copied());
            let answer = Cli::read(all.map(Into::into)).unwrap_err();
            assert_eq!(answer.exit_code(), 0, "{arguments:?}: {answer}");
        }
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
