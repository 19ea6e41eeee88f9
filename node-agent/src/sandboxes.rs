//! Where pods' network namespaces are, when nobody says it: after a restart, and for pods that ran before they were in the
//! mesh. The node's processes know. Each is in a network namespace, and its cgroup names its pod by UID.
//!
//! Nothing is guessed: a namespace is a pod's if a process of that pod is in it, it is not the node's, and it has one of
//! the addresses that the pod has by its status.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::netns::{self, Netns, NetnsId};

/// The node's processes, as `/proc` of the node shows them.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    proc: PathBuf,
}

/// What is known of a pod whose namespace is sought.
#[derive(Debug, Clone, Default)]
pub struct Sought {
    /// Its addresses; without any it cannot be found for certain.
    pub ips: Vec<IpAddr>,
    /// The namespace that it was in.
    pub known: Option<NetnsId>,
}

/// A process of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    /// When it started, in ticks since the machine did: the sandbox's own process is the first of a pod.
    started: u64,
    pid: u32,
}

impl Sandboxes {
    /// With `/proc` of the node at this path.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into() }
    }

    /// The node's own network namespace: that of its first process.
    pub fn of_node(&self) -> Result<Netns, netns::NetnsError> {
        Netns::open(&self.proc.join("1/ns/net"))
    }

    /// A path of the node, as it is seen here: processes have other numbers in a container's own `/proc`.
    pub fn seen_here(&self, path: PathBuf) -> PathBuf {
        path.strip_prefix("/proc").map(|below| self.proc.join(below)).unwrap_or(path)
    }

    /// The namespaces of these pods, by UID, as far as they are not known already. Reads the whole of `/proc`, which takes
    /// milliseconds.
    pub fn find(&self, sought: &BTreeMap<String, Sought>) -> BTreeMap<String, Arc<Netns>> {
        let node = self.of_node().ok().map(|netns| netns.id());
        let mut found = BTreeMap::new();
        for (uid, processes) in self.processes(sought) {
            let Some(pod) = sought.get(&uid) else { continue };
            for process in processes {
                let path = self.proc.join(process.pid.to_string()).join("ns/net");
                let Ok(file) = std::fs::metadata(&path) else { continue };
                let id = NetnsId { dev: file.dev(), ino: file.ino() };
                if Some(id) == node {
                    continue;
                }
                if Some(id) == pod.known {
                    break;
                }
                // The process may have ended and another have its number: what was opened is looked at, not the path.
                if let Ok(netns) = Netns::open(&path)
                    && netns.id() == id
                    && has_one_of(&netns, &pod.ips)
                {
                    found.insert(uid, Arc::new(netns));
                    break;
                }
            }
        }
        found
    }

    /// The processes of these pods, the oldest first.
    fn processes(&self, sought: &BTreeMap<String, Sought>) -> BTreeMap<String, Vec<Process>> {
        let mut processes: BTreeMap<String, Vec<Process>> = BTreeMap::new();
        let Ok(entries) = std::fs::read_dir(&self.proc) else { return processes };
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name));
            let uid = read("cgroup").ok().and_then(|cgroup| pod_of(&cgroup));
            let Some(uid) = uid.filter(|uid| sought.contains_key(uid)) else { continue };
            let Some(started) = read("stat").ok().and_then(|stat| started(&stat)) else { continue };
            processes.entry(uid).or_default().push(Process { started, pid });
        }
        processes.values_mut().for_each(|processes| processes.sort());
        processes
    }
}

/// Whether one of the addresses is one of the namespace's: only then can it be bound there.
fn has_one_of(netns: &Netns, ips: &[IpAddr]) -> bool {
    netns::run(netns.as_fd(), || ips.iter().any(|ip| UdpSocket::bind((*ip, 0)).is_ok())).unwrap_or(false)
}

/// The UID of the pod whose process has this `/proc/PID/cgroup`. The last one that is named, where a node runs in a pod.
fn pod_of(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        line.rmatch_indices("pod").find_map(|(at, word)| {
            let begins = line[..at].ends_with(['/', '-']);
            let uid = line.get(at + word.len()..at + word.len() + UID.len())?;
            (begins && is_uid(uid)).then(|| uid.replace('_', "-"))
        })
    })
}

/// The form of a UID. In names of systemd's slices a dash has a meaning of its own, and is an underscore.
const UID: &str = "00000000-0000-0000-0000-000000000000";

fn is_uid(text: &str) -> bool {
    text.bytes().zip(UID.bytes()).all(|(byte, form)| match form {
        b'-' => byte == b'-' || byte == b'_',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// When a process with this `/proc/PID/stat` started. Its name, in parentheses, may contain anything.
fn started(stat: &str) -> Option<u64> {
    // Field 22; the one after the name is the third.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the node's processes can be seen at this path.
///
/// # Errors
/// Says what is missing.
pub fn check(proc: &Path) -> Result<(), String> {
    Netns::open(&proc.join("1/ns/net")).map(|_| ()).map_err(|error| {
        format!(
            "{} does not show the node's processes (CAP_SYS_PTRACE is needed, and a mount of /proc): {error}",
            proc.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";

    #[test]
    fn the_pod_of_a_process() {
        let systemd = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8dbc5577_d0e2_4706_8787_57d52c03ddf2.slice/cri-containerd-aa.scope";
        for (cgroup, expected) in [
            (systemd, Some(UID)),
            ("0::/kubepods.slice/kubepods-pod8dbc5577_d0e2_4706_8787_57d52c03ddf2.slice/crio-aa.scope\n", Some(UID)),
            ("0::/kubepods/besteffort/pod8dbc5577-d0e2-4706-8787-57d52c03ddf2/aa\n", Some(UID)),
            // As seen from within another container.
            ("0::/../../pod8dbc5577-d0e2-4706-8787-57d52c03ddf2/aa\n", Some(UID)),
            // Version 1: a line for each controller.
            ("12:pids:/k8s/n1/kubepods/pod8dbc5577-d0e2-4706-8787-57d52c03ddf2/aa\n1:name=systemd:/\n", Some(UID)),
            ("1:name=systemd:/\n0::/kubepods/pod8dbc5577-d0e2-4706-8787-57d52c03ddf2/aa\n", Some(UID)),
            // A node in a pod.
            (
                "0::/kubepods/pod00000000-d0e2-4706-8787-57d52c03ddf2/aa/kubepods/pod8dbc5577-d0e2-4706-8787-57d52c03ddf2/bb",
                Some(UID),
            ),
            ("0::/system.slice/containerd.service\n", None),
            ("0::/kubepods/burstable\n", None),
            ("0::/kubepods/pod8dbc5577-d0e2-4706-8787\n", None),
            ("0::/user/tripod8dbc5577-d0e2-4706-8787-57d52c03ddf2\n", None),
            ("0::/kubepods/podé8dbc5577-d0e2-4706-8787-57d52c03ddf2\n", None),
            ("", None),
        ] {
            assert_eq!(pod_of(cgroup).as_deref(), expected, "{cgroup}");
        }
    }

    #[test]
    fn when_a_process_started() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 0 0 0 0 20 0 1 0 987654 1000 10 18446744073709551615";
        assert_eq!(started(stat), Some(987_654));
        assert_eq!(started("42 (a) S 1"), None);
        assert_eq!(started(""), None);
    }

    #[test]
    fn paths_of_the_node() {
        let sandboxes = Sandboxes::new("/host/proc");
        for (path, expected) in [
            ("/proc/42/ns/net", "/host/proc/42/ns/net"),
            ("/var/run/netns/cni-1", "/var/run/netns/cni-1"),
            ("/process/1", "/process/1"),
        ] {
            assert_eq!(sandboxes.seen_here(path.into()), Path::new(expected));
        }
    }
}
