//! How a mesh is: what `ambit status` prints, as a table or as JSON.
mod table;

pub use crate::manifest::{Position, Rejected};
pub use crate::pods::state::Phase;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::IpAddr;
pub use table::Width;
pub(crate) use table::table;

/// Everything about one running mesh. The JSON form is stable for scripts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The mesh's name.
    pub name: String,
    /// The user's folder.
    pub folder: String,
    /// Every pod is ready (or has ended well) and every program runs.
    pub ready: bool,
    /// Counts how often the folder was read; grows after every edit.
    pub generation: u64,
    /// When the last of these looks began, in milliseconds since 1970: what was complete before that is in it.
    #[serde(default)]
    pub folder_read_at_ms: u64,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// The mesh's own programs.
    pub programs: Vec<ProgramStatus>,
    /// The user's pods.
    pub pods: Vec<PodStatus>,
    /// The user's services.
    pub services: Vec<ServiceStatus>,
    /// The user's policies, as the control plane sees them.
    #[serde(default)]
    pub policies: Vec<PolicyStatus>,
    /// Parts of the folder that do not count.
    pub rejected: Vec<Rejected>,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// One of the mesh's own programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Its name, as `ambit logs` takes it.
    pub name: String,
    /// Its process id inside the machine, while it runs.
    pub pid: Option<i32>,
    /// It says that it is ready.
    pub ready: bool,
    /// What it says while it runs and is not ready.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended the last time, if it did.
    pub last_end: Option<String>,
    /// The process id of the one before it, while that finishes its connections.
    #[serde(default)]
    pub draining: Option<i32>,
    /// Why `ambit restart` did not replace it, the last time.
    #[serde(default)]
    pub not_replaced: Option<String>,
    /// Why its tables may be older than what is published, and what to do, if the control plane no longer waits for it.
    #[serde(default)]
    pub older_tables: Option<String>,
}

impl ProgramStatus {
    /// What to say of it beyond its state; what a person has to act on comes first.
    fn note(&self) -> String {
        match (&self.not_ready, &self.older_tables, &self.draining, &self.last_end) {
            (Some(why), ..) | (None, Some(why), ..) => why.clone(),
            (None, None, Some(_), _) => "the one before it finishes its connections".to_owned(),
            (None, None, None, Some(end)) => format!("last ended with {end}"),
            (None, None, None, None) => String::new(),
        }
    }
}

/// Whether a pod's traffic goes through the mesh.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct MeshStatus {
    /// `yes`, `no` or `pending`.
    pub state: String,
    /// Why.
    pub reason: String,
}

/// A pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it runs.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Where it is in its life.
    pub phase: Phase,
    /// All its programs are ready.
    pub ready: bool,
    /// Starts after the first, over all programs.
    pub restarts: u32,
    /// It is being stopped.
    pub leaving: bool,
    /// Whether it is in the mesh.
    pub mesh: MeshStatus,
    /// What is wrong, if anything.
    pub trouble: Option<String>,
    /// What it asks for and does not get here: the field, and what happens instead.
    #[serde(default)]
    pub runs_without: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses; none if headless.
    pub ips: Vec<IpAddr>,
    /// `80/TCP` and so on.
    pub ports: Vec<String>,
    /// What stands behind it: address and port.
    pub endpoints: Vec<String>,
    /// What it is another name for, if it is nothing else.
    #[serde(default)]
    pub external_name: Option<String>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// `AuthorizationPolicy`, `PeerAuthentication`, `ServiceEntry` and so on.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It is enforced, at least in part.
    pub accepted: bool,
    /// One word.
    pub reason: String,
    /// What it means, and what to do.
    pub message: String,
}

impl Status {
    /// A pod of this name, in this namespace.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodStatus> {
        self.pods.iter().find(|p| p.namespace == namespace && p.name == name)
    }

    /// One line, if an object of the folder is refused, so that such a mesh is not taken for healthy.
    pub fn alarm(&self) -> Option<String> {
        let refused: Vec<String> = self.rejected.iter().filter(|r| r.refused).map(|r| r.position.to_string()).collect();
        match refused.as_slice() {
            [] => None,
            [one] => Some(format!("REFUSED: {one} does not count as it is written; see REJECTED below")),
            [first, rest @ ..] => {
                let more = rest.len();
                Some(format!("REFUSED: {first} and {more} more do not count as they are written; see REJECTED below"))
            }
        }
    }

    /// The tables for people at a terminal, if standard output is one: what is refused stands out.
    pub(crate) fn for_terminal(&self, width: Width) -> String {
        let table = self.table(width);
        let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        match self.alarm() {
            Some(alarm) if !plain => table.replace(&alarm, &format!("\x1b[31m{alarm}\x1b[0m")),
            _ => table,
        }
    }

    /// The tables for people.
    pub fn table(&self, width: Width) -> String {
        let mut out = String::new();
        let state = if self.ready { "ready" } else { "not ready yet" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "mesh {} from {}: {state}", self.name, self.folder);
        if let Some(alarm) = self.alarm() {
            let _ = writeln!(out, "{alarm}");
        }
        out.push('\n');
        let rows = self.nodes.iter().map(|n| vec![n.name.clone(), texts(&n.ips).join(",")]);
        table(&mut out, &["NODE", "ADDRESSES"], rows.collect(), width);
        let rows = self.programs.iter().map(|p| {
            let state = match (p.pid, p.ready) {
                (Some(_), true) => "ready",
                (Some(_), false) => "not ready",
                (None, _) => "down",
            };
            vec![p.name.clone(), state.into(), p.restarts.to_string(), p.note()]
        });
        table(&mut out, &["PROGRAM", "STATE", "RESTARTS", ""], rows.collect(), width);
        let rows = self.pods.iter().map(|p| {
            let phase = if p.leaving { "Terminating" } else { p.phase.name() };
            let note = match (&p.trouble, p.mesh.state.as_str()) {
                (Some(trouble), _) => trouble.clone(),
                (None, "yes") => String::new(),
                (None, _) => p.mesh.reason.clone(),
            };
            vec![
                format!("{}/{}", p.namespace, p.name),
                p.node.clone(),
                width.one_of(&texts(&p.ips)),
                phase.into(),
                if p.ready { "yes" } else { "no" }.into(),
                p.mesh.state.clone(),
                p.restarts.to_string(),
                note,
            ]
        });
        table(&mut out, &["POD", "NODE", "ADDRESSES", "PHASE", "READY", "MESH", "RESTARTS", ""], rows.collect(), width);
        let without = |p: &PodStatus| {
            p.runs_without
                .iter()
                .map(|what| vec![format!("{}/{}", p.namespace, p.name), what.clone()])
                .collect::<Vec<_>>()
        };
        table(&mut out, &["POD", "RUNS WITHOUT"], self.pods.iter().flat_map(without).collect(), width);
        let rows = self.services.iter().map(|s| {
            let ips = match &s.external_name {
                Some(name) => format!("another name for {name}"),
                None if s.ips.is_empty() => "headless".into(),
                None => width.one_of(&texts(&s.ips)),
            };
            vec![format!("{}/{}", s.namespace, s.name), ips, s.ports.join(","), width.some_of(&s.endpoints)]
        });
        table(&mut out, &["SERVICE", "ADDRESSES", "PORTS", "ENDPOINTS"], rows.collect(), width);
        let rows = self.policies.iter().map(|p| {
            let accepted = if p.accepted { "yes" } else { "no" };
            let why = if p.reason == "Accepted" { String::new() } else { format!("{}: {}", p.reason, p.message) };
            vec![format!("{}/{}", p.namespace, p.name), p.kind.clone(), accepted.into(), why]
        });
        table(&mut out, &["POLICY", "KIND", "ACCEPTED", ""], rows.collect(), width);
        let rows = self.rejected.iter().map(|r| vec![r.position.to_string(), r.told()]);
        table(&mut out, &["REJECTED", "WHY"], rows.collect(), width);
        out
    }
}

fn texts(ips: &[IpAddr]) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_somebody_comes_first() {
        let some = |text: &str| Some(text.to_owned());
        // (not ready, older tables, drains, last end)
        for (not_ready, older_tables, draining, last_end, expected) in [
            (None, None, None, None, ""),
            (some("pending: tables"), some("older"), Some(7), some("exit 1"), "pending: tables"),
            (None, some("older"), Some(7), some("exit 1"), "older"),
            (None, None, Some(7), some("exit 1"), "the one before it finishes its connections"),
            (None, None, None, some("exit 1"), "last ended with exit 1"),
        ] {
            let program = ProgramStatus {
                name: "ztunnel-node1".into(),
                pid: Some(1),
                ready: not_ready.is_none(),
                not_ready,
                restarts: 0,
                last_end,
                draining,
                not_replaced: None,
                older_tables,
            };
            assert_eq!(program.note(), expected);
        }
    }
}
