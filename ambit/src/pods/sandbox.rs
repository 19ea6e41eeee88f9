//! What a pod gets before its first program: a network of its own, and its own view of a few files.
use crate::run_dir::RunDir;
use crate::sys::namespace;
use anyhow::{Context, Result};
use rustix::mount::UnmountFlags;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn replace(mut file: &File, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    file.flush()
}

/// A pod's namespaces and files.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Its network.
    pub(crate) netns: Arc<OwnedFd>,
    /// Its files.
    pub(crate) mounts: Arc<OwnedFd>,
    pin: Option<PathBuf>,
    files: PathBuf,
    hosts: File,
    resolv: File,
}

impl Sandbox {
    /// Makes a pod's files, and its network unless `netns` gives it one it shares (its node's).
    pub(crate) fn make(run: &RunDir, node: &str, uid: &str, netns: Option<Arc<OwnedFd>>) -> Result<Self> {
        let files = run.pod_files(uid);
        std::fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;
        let hosts_path = files.join("hosts");
        let resolv = files.join("resolv.conf");
        let create = |path: &Path| OpenOptions::new().create(true).truncate(true).write(true).open(path);
        let (hosts, resolv_conf) = (create(&hosts_path)?, create(&resolv)?);

        let (netns, pin) = match netns {
            Some(shared) => (shared, None),
            None => {
                let own = namespace::new_netns().context("cannot make a network namespace")?;
                let pin = run.pod_netns(node, uid);
                namespace::pin(&own, &pin).context("cannot keep a network namespace")?;
                (Arc::new(own), Some(pin))
            }
        };
        let root = run.root().to_owned();
        let mounts = namespace::new_mounts(move || {
            namespace::bind(&hosts_path, Path::new("/etc/hosts"))?;
            if Path::new("/etc/resolv.conf").exists() {
                namespace::bind(&resolv, Path::new("/etc/resolv.conf"))?;
            }
            // There are the keys and sockets of everybody, and other pods' namespaces, which a copy would keep alive.
            rustix::mount::unmount(&root, UnmountFlags::DETACH)?;
            namespace::hide(root.parent().unwrap_or(&root))
        })
        .context("cannot arrange the pod's files (/etc/hosts must exist on this machine)")?;
        Ok(Sandbox { netns, mounts: Arc::new(mounts), pin, files, hosts, resolv: resolv_conf })
    }

    /// Replaces the hosts file in place: the pod has it mounted, so it must stay the same file.
    pub(crate) fn write_hosts(&self, text: &str) -> std::io::Result<()> {
        replace(&self.hosts, text)
    }

    /// Replaces its `resolv.conf`, likewise.
    pub(crate) fn write_resolv_conf(&self, text: &str) -> std::io::Result<()> {
        replace(&self.resolv, text)
    }

    /// Lets go of it all.
    pub(crate) fn remove(&self) {
        // What cannot be removed now is removed with the machine; the log says why.
        if let Some(pin) = &self.pin
            && let Err(e) = namespace::unpin(pin)
        {
            tracing::warn!("cannot remove {}: {e}", pin.display());
        }
        if let Err(e) = std::fs::remove_dir_all(&self.files) {
            tracing::warn!("cannot remove {}: {e}", self.files.display());
        }
    }
}
