//! What is said about the machine and the programs, so that a number can be judged.
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::Command;
use time::OffsetDateTime;

/// The circumstances of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Circumstances {
    /// UTC.
    pub(crate) date: String,
    /// What was typed, after the program's name.
    pub(crate) arguments: Vec<String>,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Of the last minute before the run: work that is not ours.
    pub(crate) load_average: f64,
    /// Built with optimisations.
    pub(crate) release: bool,
    pub(crate) ambit: String,
    pub(crate) envoy: Option<String>,
    /// Worker threads of each proxy.
    pub(crate) workers: usize,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    /// Connections held while memory is read.
    pub(crate) held: u32,
}

/// The name of the processor.
pub(crate) fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned())
}

/// Cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All memory of the machine.
pub(crate) fn memory_gib() -> f64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1024.0 / 1024.0
}

/// How many processes wanted a core during the last minute, on average.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The kernel's version.
pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// What a program says to `--version`, shortened.
pub(crate) fn version(program: &Path) -> String {
    let said = Command::new(program).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown");
    // Envoy begins with its own path.
    line.rsplit_once("version:").map_or(line, |(_, version)| version.trim()).to_owned()
}

/// Now, in UTC.
pub(crate) fn date() -> String {
    let now = OffsetDateTime::now_utc();
    let (hour, minute, _) = now.to_hms();
    format!("{} {hour:02}:{minute:02} UTC", now.date())
}
