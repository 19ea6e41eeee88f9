//! CPU and memory of processes, read from `/proc`.
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;

/// `USER_HZ`, which is part of the kernel's interface, whatever the kernel ticks at itself.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process as `/proc/PID/stat` tells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stat {
    /// The short name.
    pub(crate) name: String,
    /// The parent's id.
    pub(crate) parent: u32,
    /// Clock ticks spent, all threads that ever lived, user and system. The kernel splits between the two by sampling,
    /// but their sum is exact.
    pub(crate) ticks: u64,
}

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Memory {
    /// Everything resident.
    pub(crate) resident: f64,
    /// The part of it that is not backed by files: what the program itself holds.
    pub(crate) anonymous: f64,
}

/// Seconds of CPU a process has used so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid} is gone ({path})"))?;
    let stat = parse_stat(&text).with_context(|| format!("cannot make sense of {path}"))?;
    Ok(stat.ticks as f64 / TICKS_PER_SECOND)
}

/// Memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid} is gone ({path})"))?;
    parse_memory(&text).with_context(|| format!("cannot make sense of {path}"))
}

/// Processes below `root` in the tree of processes, with their command lines.
pub(crate) fn descendants(root: u32) -> Result<Vec<(u32, Vec<String>)>> {
    let all: Vec<(u32, u32)> = every()?.map(|(pid, stat)| (pid, stat.parent)).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| pid));
        next += 1;
    }
    // One that ended meanwhile has no command line any more.
    Ok(found.into_iter().skip(1).filter_map(|pid| Some((pid, command_line(pid)?))).collect())
}

/// The kernel's threads for network work that no process could be charged with; none inside most containers.
pub(crate) fn network_threads() -> Result<Vec<u32>> {
    Ok(every()?.filter(|(_, stat)| stat.name.starts_with("ksoftirqd")).map(|(pid, _)| pid).collect())
}

/// Connections that are open at this local port, in the network namespace of a process.
pub(crate) fn connections(pid: u32, port: u16) -> usize {
    let mut count = 0;
    for family in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{family}");
        // A kernel without IPv6 has no such file.
        count += open_at(&fs::read_to_string(&path).unwrap_or_default(), port);
    }
    count
}

fn every() -> Result<impl Iterator<Item = (u32, Stat)>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
    }))
}

fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|b| *b == 0).filter(|w| !w.is_empty());
    Some(words.map(|w| String::from_utf8_lossy(w).into_owned()).collect())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses; what follows the last one cannot.
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let field = |n: usize| rest.split_ascii_whitespace().nth(n)?.parse::<u64>().ok();
    // Fields are counted as proc_pid_stat(5) does, from the state, which is its third.
    let (parent, user, system) = (field(4 - 3)?, field(14 - 3)?, field(15 - 3)?);
    Some(Stat { name, parent: u32::try_from(parent).ok()?, ticks: user + system })
}

/// Lines of `/proc/net/tcp` in the state "established" with this local port.
fn open_at(text: &str, port: u16) -> usize {
    let is_open = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        let at_port = words.nth(1).and_then(|local| local.rsplit_once(':')).map(|(_, p)| u16::from_str_radix(p, 16));
        at_port == Some(Ok(port)) && words.nth(1) == Some("01")
    };
    text.lines().skip(1).filter(is_open).count()
}

fn parse_memory(text: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.split_ascii_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
    };
    Some(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = "42 (a ) b) S 7 42 42 0 -1 4194560 9 8 7 6 150 25 1 2 20 0 3 0 999 1000 100 18446744073709551615 1";
        assert_eq!(parse_stat(line), Some(Stat { name: "a ) b".into(), parent: 7, ticks: 175 }));
        for broken in ["", "42 (a", "42 (a) S 7", "42 (a) S x 42 42 0 -1 1 9 8 7 6 150 25 1"] {
            assert_eq!(parse_stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn memory_of_a_status() {
        let text = "Name:\tx\nVmHWM:\t  90 kB\nVmRSS:\t    20 kB\nRssAnon:\t    5 kB\nRssFile:\t 15 kB\n";
        assert_eq!(parse_memory(text), Some(Memory { resident: 20480.0, anonymous: 5120.0 }));
        assert_eq!(parse_memory("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn open_connections() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 0202F40A:3AA0 00000000:0000 0A 00000000:00000000\n\
            1: 0202F40A:3AA0 0201F40A:9C40 01 00000000:00000000\n\
            2: 0000000000000000FFFF00000202F40A:3AA0 0000000000000000FFFF00000201F40A:9C42 01 0:0\n\
            3: 0202F40A:9C40 0201F40A:3AA0 01 00000000:00000000\n\
            4: broken\n";
        assert_eq!((open_at(text, 15008), open_at(text, 40000), open_at(text, 1), open_at("", 15008)), (2, 1, 0, 0));
    }

    #[test]
    fn our_own_clock_runs() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let mut spin = 0u64;
        while cpu_seconds(std::process::id()).unwrap() < before + 0.05 {
            spin = std::hint::black_box(spin + 1);
        }
        assert!(memory(std::process::id()).unwrap().resident > 0.0);
    }
}
