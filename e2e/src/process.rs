//! The mesh's processes, as the machine outside sees them.
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use std::collections::BTreeSet;

/// A process and its place among the others.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it started, in the kernel's ticks: ids are used again.
    started: u64,
    parent: i32,
    /// Its ids in the namespaces it is in, from ours to its own.
    inner: Vec<i32>,
    /// The start of its command line.
    pub name: String,
}

impl Process {
    /// Its id in its own pid namespace.
    pub fn own_pid(&self) -> i32 {
        self.inner.last().copied().unwrap_or(self.pid)
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        process(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// Everything that runs now and that we may see.
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).filter_map(process).collect()
}

fn process(pid: i32) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    // Dead and not yet buried is not running.
    if field("State:")?.starts_with('Z') {
        return None;
    }
    // The name may hold anything; the fields after it are numbers. The start is field 22 of all.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(Process {
        pid,
        started,
        parent: field("PPid:")?.parse().ok()?,
        inner: field("NSpid:").unwrap_or_default().split_whitespace().filter_map(|p| p.parse().ok()).collect(),
        name: field("Name:").unwrap_or_default().to_owned(),
    })
}

/// A process's children.
pub fn children(of: i32) -> Vec<Process> {
    all().into_iter().filter(|p| p.parent == of).collect()
}

/// A process's children, their children, and so on.
pub fn descendants(of: i32) -> Vec<Process> {
    let all = all();
    let mut family = BTreeSet::from([of]);
    loop {
        let more: Vec<i32> =
            all.iter().filter(|p| family.contains(&p.parent) && !family.contains(&p.pid)).map(|p| p.pid).collect();
        if more.is_empty() {
            break;
        }
        family.extend(more);
    }
    family.remove(&of);
    all.into_iter().filter(|p| family.contains(&p.pid)).collect()
}

/// Signals a process.
///
/// # Errors
/// It is gone, or not ours.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).context("not a process id")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal process {pid:?}"))
}
