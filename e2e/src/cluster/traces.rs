//! What a cluster leaves when its tests were killed: a folder, and control groups if the script that removes them was killed
//! too. The kernel removes all else. Everything has the id of the process that it belonged to in its name.
use anyhow::Result;
use std::path::{Path, PathBuf};

/// What the names of clusters begin with.
const PREFIX: &str = "ambit-cluster-";

/// The beginning of the name of a cluster of this process.
pub(super) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Removes what clusters of processes that are gone have left. Each start does so.
///
/// # Errors
/// The file system's.
pub fn sweep() -> Result<()> {
    for folder in folders()?.into_iter().filter(|folder| is_stale(folder)) {
        // Another test may be at it, too.
        let _ = std::fs::remove_dir_all(folder);
    }
    for group in groups()?.into_iter().filter(|group| is_stale(group)) {
        remove_groups(&group);
    }
    Ok(())
}

/// Folders and control groups that are there under a cluster's name.
///
/// # Errors
/// The file system's.
pub fn of(cluster: &str) -> Result<Vec<PathBuf>> {
    let mut all = folders()?;
    all.extend(groups()?);
    all.retain(|path| path.file_name().is_some_and(|name| name == cluster));
    Ok(all)
}

fn is_stale(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
    owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

fn folders() -> Result<Vec<PathBuf>> {
    named(&std::env::temp_dir())
}

/// In each hierarchy of control groups below our own group: there the script makes them.
fn groups() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for own in std::fs::read_to_string("/proc/self/cgroup")?.lines() {
        let own = own.splitn(3, ':').nth(2).unwrap_or_default().trim_start_matches('/');
        for mount in mounts()? {
            all.extend(named(&mount.join(own)).unwrap_or_default());
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Where hierarchies of control groups are mounted.
fn mounts() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|f| f.len() > 2 && f[2].starts_with("cgroup")).map(|f| f[1].into()).collect())
}

fn named(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.flatten();
    Ok(entries.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)).map(|e| e.path()).collect())
}

/// Depth first, as the kernel wants it. One in use stays.
fn remove_groups(group: &Path) {
    for below in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&below.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}
