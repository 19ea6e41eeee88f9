//! The directory of one running mesh: where everything is, whether it is alive, and cleaning up after a dead one.
use anyhow::{Context, Result, bail};
use mesh_runtime::files::Replace;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest name of a mesh: socket paths below its directory must fit in 107 bytes.
const LONGEST_NAME: usize = 24;

/// Paths of one mesh. Making one touches nothing.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    root: PathBuf,
    name: String,
}

impl RunDir {
    /// The directory of the mesh called `name`, below the user's runtime directory.
    pub(crate) fn of(name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(RunDir { root: base().join(name), name: name.to_owned() })
    }

    /// For the process inside the machine, which is given the path: its user id there is another one.
    pub(crate) fn at(root: PathBuf) -> Result<Self> {
        let name = root.file_name().and_then(|n| n.to_str()).context("the run directory has no name")?.to_owned();
        Ok(RunDir { root, name })
    }

    /// The mesh's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
    /// Where `ambit exec`, `status` and `down` talk to the mesh.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }
    /// The overlay of what ambit knows on top of the user's files; istiod-lite reads both.
    pub(crate) fn status(&self) -> PathBuf {
        self.root.join("status")
    }
    /// The CA's state and the key that verifies tokens.
    pub(crate) fn istiod(&self) -> PathBuf {
        self.root.join("istiod")
    }
    /// What the control plane says about the user's objects.
    pub(crate) fn istiod_status(&self) -> PathBuf {
        self.istiod().join("status.json")
    }
    /// What of it the tables of every ztunnel hold.
    pub(crate) fn acknowledged(&self) -> PathBuf {
        self.istiod().join("acknowledged.json")
    }
    /// The key that verifies tokens.
    pub(crate) fn token_issuer(&self) -> PathBuf {
        self.istiod().join("token-issuer.pem")
    }
    /// Logs of programs; pods' are below it.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// The log of one of the mesh's programs.
    pub(crate) fn program_log(&self, program: &str) -> PathBuf {
        self.logs().join(format!("{program}.log"))
    }
    /// The log of a pod, all its containers.
    pub(crate) fn pod_log(&self, namespace: &str, pod: &str) -> PathBuf {
        self.logs().join("pods").join(format!("{namespace}_{pod}.log"))
    }
    /// Files mounted into pods, by pod uid.
    pub(crate) fn pod_files(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }
    /// Everything that belongs to one node.
    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }
    /// Where a pod's network namespace can be opened.
    pub(crate) fn pod_netns(&self, node: &str, uid: &str) -> PathBuf {
        self.node(node).join("netns").join(uid)
    }
    /// Where ztunnel meets the node agent.
    pub(crate) fn ztunnel_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("ztunnel.sock")
    }
    /// Where the node agent hears of new pods.
    pub(crate) fn plugin_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("pluginevent.sock")
    }
    /// What should run on a node, for its agent.
    pub(crate) fn pods_file(&self, node: &str) -> PathBuf {
        self.node(node).join("pods.json")
    }
    /// What the node's agent did about it.
    pub(crate) fn enrolled_file(&self, node: &str) -> PathBuf {
        self.node(node).join("enrolled.json")
    }
    /// What the node's ztunnel proves itself with.
    pub(crate) fn token(&self, node: &str) -> PathBuf {
        self.node(node).join("token")
    }

    /// Where waypoints' tokens are.
    pub(crate) fn waypoint_tokens(&self) -> PathBuf {
        self.root.join("waypoints")
    }

    /// The longest socket path must fit the kernel's limit; checked now, because a bind that fails later says less.
    pub(crate) fn check_lengths(&self, nodes: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        for node in nodes {
            let path = self.plugin_socket(node.as_ref());
            if path.as_os_str().len() > 107 {
                bail!(
                    "{} is {} bytes long and Unix sockets allow 107. Set XDG_RUNTIME_DIR to a shorter directory, \
                     or use shorter names",
                    path.display(),
                    path.as_os_str().len()
                );
            }
        }
        Ok(())
    }

    /// A folder of YAML that is removed with the mesh; the demo's.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.with_extension("folder")
    }

    /// Makes [`RunDir::folder`], empty.
    pub(crate) fn make_folder(&self) -> Result<()> {
        private_dir(&base())?;
        remove_tree(&self.folder())?;
        private_dir(&self.folder())
    }

    fn lock_path(&self) -> PathBuf {
        self.root.with_extension("lock")
    }

    /// Takes the mesh for this process, cleaning up after one that died. `None` if it is running.
    pub(crate) fn claim(&self) -> Result<Option<Claim>> {
        // A command that only looks whether the mesh runs holds the lock for a moment, too.
        const LOOKERS: Duration = Duration::from_millis(500);
        let deadline = Instant::now() + LOOKERS;
        loop {
            match self.try_claim()? {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                claim => return Ok(claim),
            }
        }
    }

    fn try_claim(&self) -> Result<Option<Claim>> {
        private_dir(&base())?;
        let path = self.lock_path();
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
            }
            // Its previous holder may have removed the file between our open and our lock.
            let same = std::fs::metadata(&path).is_ok_and(|m| file.metadata().is_ok_and(|f| f.ino() == m.ino()));
            if same {
                if self.root.exists() {
                    // Its maker has ended, or we would not have the lock.
                    remove_tree(&self.root)?;
                    remove_tree(&self.folder())?;
                }
                return Ok(Some(Claim { run: self.clone(), lock: file }));
            }
        }
    }

    /// Whether a mesh runs here. Removes what a dead one left.
    pub(crate) fn is_running(&self) -> Result<bool> {
        if !self.lock_path().exists() {
            return Ok(false);
        }
        match self.try_claim()? {
            None => Ok(true),
            // Left by a mesh that was killed; removed at once.
            Some(claim) => {
                let _ = std::fs::remove_file(claim.run.lock_path());
                Ok(false)
            }
        }
    }

    /// Names of the meshes that have a lock file, dead or alive.
    pub(crate) fn names() -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(base()) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.strip_suffix(".lock").map(str::to_owned))
            .filter(|name| check_name(name).is_ok())
            .collect();
        names.sort();
        names
    }
}

/// The right to be this mesh; ends with the last process holding the lock's descriptor.
#[derive(Debug)]
pub(crate) struct Claim {
    run: RunDir,
    lock: File,
}

impl Claim {
    /// Makes the empty directories a mesh needs.
    pub(crate) fn prepare(&self) -> Result<()> {
        let run = &self.run;
        for directory in
            [run.root.clone(), run.status(), run.istiod(), run.logs(), run.logs().join("pods"), run.root.join("nodes")]
        {
            private_dir(&directory)?;
        }
        private_dir(&run.root.join("pods"))
    }

    /// The lock's descriptor, to be inherited by the machine, so that the mesh counts as alive while either lives.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Removes the directory and gives the name up.
    pub(crate) fn release(self) {
        // Left files are found and removed by the next `up` or `status`; nothing better can be done here.
        let _ = remove_tree(&self.run.root);
        let _ = remove_tree(&self.run.folder());
        let _ = std::fs::remove_file(self.run.lock_path());
    }
}

fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        bail!("`{name}` cannot name a mesh: use 1 to {LONGEST_NAME} of a-z, 0-9 and `-`");
    }
    Ok(())
}

/// The directory below which meshes of this user live.
fn base() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() && dir.is_dir() => dir.join("ambit"),
        _ => PathBuf::from(format!("/tmp/ambit-{}", rustix::process::geteuid().as_raw())),
    }
}

/// A directory that only its owner can enter. One of another user is refused: all users write to `/tmp`.
fn private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    let meta = std::fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != me {
        bail!("{} is not a directory of user {me}; remove it, or set XDG_RUNTIME_DIR", path.display());
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {} of an earlier mesh", path.display()))
        }
        _ => Ok(()),
    }
}

/// Replaces a file of ours, which is its owner's alone, in one step.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> std::io::Result<()> {
    Replace::new().mode(0o600).write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, good) in [("default", true), ("a-1", true), ("", false), ("A", false), ("a/b", false), ("..", false)]
        {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
        assert!(check_name(&"x".repeat(LONGEST_NAME + 1)).is_err());
    }
}
