//! The CNI plugin on the node: its file, and its place in the configuration that the container runtime uses. Kept there
//! against whoever writes the configuration anew, until it is taken out.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mesh_runtime::files::Replace;
use mesh_runtime::readiness::Part;
use mesh_runtime::watch::Watch;

use crate::cni::NAME;
use crate::cni::chain::{self, ChainError, Entry, Kind};

/// The largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = crate::cni::MAX_CONFIG as u64;

/// What is installed, and where.
#[derive(Debug, Clone)]
pub struct Install {
    /// The node's directory of network configurations, as it is mounted here.
    pub net_dir: PathBuf,
    /// The configuration to extend; the one that the runtime uses when `None`.
    pub conf_name: Option<String>,
    /// The node's directory of plugins, as it is mounted here.
    pub bin_dir: PathBuf,
    /// The executable that becomes the plugin.
    pub executable: PathBuf,
    /// What the plugin is told.
    pub entry: Entry,
}

/// Why the plugin is not in place, or could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory of the node.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no configuration to extend yet.
    #[error("{0} has no network configuration yet: install a CNI network, or wait for it")]
    None(PathBuf),
    /// The runtime uses a configuration of one plugin.
    #[error(
        "the node's network configuration {0} is of a single plugin, which none can be chained to: make it a conflist"
    )]
    Single(PathBuf),
    /// The configuration cannot be extended.
    #[error("cannot extend the network configuration {path}: {source}")]
    Chain {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ChainError,
    },
}

impl Install {
    /// Puts the plugin in place. Says which configuration was changed for that; `None` if nothing was amiss. The file comes
    /// before the entry that names it.
    /// `anew`: the file is written even if there is one, which may be another version's.
    pub fn put(&self, anew: bool) -> Result<Option<PathBuf>, InstallError> {
        if anew || !self.bin_dir.join(NAME).exists() {
            self.put_executable()?;
        }
        let used = self.used()?;
        for path in self.lists()?.into_iter().filter(|path| *path != used) {
            // One that was in use before. What cannot be read is not ours.
            if let Ok(text) = read(&path)
                && let Ok(Some(without)) = chain::unchained(&text)
            {
                write(&path, &without)?;
            }
        }
        let text = read(&used)?;
        match self.entry.chained(&text).map_err(|source| InstallError::Chain { path: used.clone(), source })? {
            Some(with) => write(&used, &with).map(|()| Some(used)),
            None => Ok(None),
        }
    }

    /// Takes the plugin out: from every configuration, then the file that they named.
    pub fn take_out(&self) -> Result<(), InstallError> {
        let mut written = Ok(());
        for path in self.lists()? {
            // What cannot be read is not ours.
            if let Ok(text) = read(&path)
                && let Ok(Some(without)) = chain::unchained(&text)
            {
                written = written.and(write(&path, &without));
            }
        }
        // Where an entry is left, what it names is left too, or no pod starts.
        written?;
        let path = self.bin_dir.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Keeps the plugin in place. `part` is ready while it is.
    pub async fn keep(self, part: Part) {
        let mut changes = Watch::machinery([self.net_dir.as_path(), self.bin_dir.as_path()]);
        let mut last_error = String::new();
        let mut anew = true;
        loop {
            match self.put(anew) {
                Ok(changed) => {
                    anew = false;
                    if let Some(path) = changed {
                        let file = path.display();
                        tracing::info!(%file, "the CNI plugin was put into the node's network configuration");
                    }
                    last_error.clear();
                    part.ready();
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != last_error {
                        tracing::error!(%error, "the CNI plugin is not in place: new pods may start outside of the mesh first");
                        part.not_ready(error.clone());
                        last_error = error;
                    }
                }
            }
            changes.changed().await;
        }
    }

    /// A plugin that runs keeps the file that it was started from.
    fn put_executable(&self) -> Result<(), InstallError> {
        let (path, new) = (self.bin_dir.join(NAME), self.bin_dir.join(format!(".{NAME}.new")));
        std::fs::copy(&self.executable, &new).map_err(failed("write", &new))?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))
            .map_err(failed("make executable", &new))?;
        std::fs::rename(&new, &path).map_err(failed("write", &path))
    }

    /// The configuration that the runtime uses: the first by name that can be used.
    fn used(&self) -> Result<PathBuf, InstallError> {
        if let Some(name) = &self.conf_name {
            return Ok(self.net_dir.join(name));
        }
        for (path, kind) in self.configurations()? {
            match kind {
                Kind::Single => return Err(InstallError::Single(path)),
                // One that is no list is passed over by the runtime, too.
                Kind::List if read(&path).is_ok_and(|text| self.entry.chained(&text).is_ok()) => return Ok(path),
                Kind::List => {}
            }
        }
        Err(InstallError::None(self.net_dir.clone()))
    }

    fn lists(&self) -> Result<Vec<PathBuf>, InstallError> {
        let all = self.configurations()?.into_iter();
        Ok(all.filter_map(|(path, kind)| (kind == Kind::List).then_some(path)).collect())
    }

    /// What the directory holds, by name.
    fn configurations(&self) -> Result<Vec<(PathBuf, Kind)>, InstallError> {
        let entries = std::fs::read_dir(&self.net_dir).map_err(failed("list", &self.net_dir))?;
        let mut all: Vec<(PathBuf, Kind)> = entries
            .flatten()
            .filter_map(|entry| chain::kind(entry.file_name().to_str()?).map(|kind| (entry.path(), kind)))
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(all)
    }
}

fn read(path: &Path) -> Result<String, InstallError> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CONFIG).read_to_string(&mut text));
    read.map_err(failed("read", path))?;
    Ok(text)
}

/// Replaces a configuration, with the permissions that it has.
fn write(path: &Path, text: &str) -> Result<(), InstallError> {
    let mode = std::fs::metadata(path).map_err(failed("look at", path))?.permissions().mode() & 0o777;
    Replace::new().mode(mode).to_disk().write(path, text).map_err(failed("write", path))
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> InstallError + 'a {
    move |source| InstallError::File { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}"#;

    struct Node {
        _dir: tempfile::TempDir,
        install: Install,
    }

    impl Node {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (net_dir, bin_dir) = (dir.path().join("net.d"), dir.path().join("bin"));
            std::fs::create_dir_all(&net_dir).unwrap();
            std::fs::create_dir_all(&bin_dir).unwrap();
            let executable = dir.path().join("ambit");
            std::fs::write(&executable, "version 1").unwrap();
            let entry = Entry {
                run_dir: "/run/a".into(),
                agent_namespace: "istio-system".into(),
                excluded_namespaces: Vec::new(),
                mesh_pods: Vec::new(),
            };
            let install = Install { net_dir, conf_name: None, bin_dir, executable, entry };
            let node = Self { _dir: dir, install };
            files.iter().for_each(|(name, text)| node.write(name, text));
            node
        }

        fn write(&self, name: &str, text: &str) {
            mesh_runtime::files::replace(&self.install.net_dir.join(name), text).unwrap();
        }

        fn has(&self, name: &str) -> bool {
            read(&self.install.net_dir.join(name)).unwrap().contains(NAME)
        }

        fn plugin(&self) -> Option<String> {
            std::fs::read_to_string(self.install.bin_dir.join(NAME)).ok()
        }
    }

    /// Somebody else's file that is no text keeps nobody from being uninstalled.
    #[test]
    fn taken_out_beside_what_cannot_be_read() {
        let node = Node::new(&[("10-b.conflist", LIST)]);
        std::fs::write(node.install.net_dir.join("01-odd.conflist"), b"\xff").unwrap();
        node.install.put(true).unwrap();
        assert!(node.has("10-b.conflist"));
        node.install.take_out().unwrap();
        assert!(!node.has("10-b.conflist") && node.plugin().is_none());
    }

    #[test]
    fn in_the_configuration_that_is_used_and_out_again() {
        let node =
            Node::new(&[("10-b.conflist", LIST), ("20-c.conflist", LIST), ("05-odd.conflist", "{"), ("README", "")]);
        assert_eq!(node.install.put(true).unwrap().unwrap(), node.install.net_dir.join("10-b.conflist"));
        assert!(node.has("10-b.conflist") && !node.has("20-c.conflist"));
        let mode = std::fs::metadata(node.install.bin_dir.join(NAME)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, node.plugin().as_deref()), (0o755, Some("version 1")));
        // An upgrade.
        std::fs::write(&node.install.executable, "version 2").unwrap();
        assert_eq!(node.install.put(false).unwrap(), None, "nothing is amiss");
        assert_eq!(node.plugin().as_deref(), Some("version 1"));
        assert_eq!(node.install.put(true).unwrap(), None);
        assert_eq!(node.plugin().as_deref(), Some("version 2"));
        // Another network takes the first one's place.
        node.write("00-a.conflist", LIST);
        node.install.put(false).unwrap();
        assert!(node.has("00-a.conflist") && !node.has("10-b.conflist"));
        let before: serde_json::Value = serde_json::from_str(LIST).unwrap();
        node.install.take_out().unwrap();
        let after = read(&node.install.net_dir.join("00-a.conflist")).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&after).unwrap(), before);
        assert_eq!(node.plugin(), None);
        // No file of ours is left, finished or not.
        assert_eq!(std::fs::read_dir(&node.install.net_dir).unwrap().count(), 5);
        assert_eq!(std::fs::read_dir(&node.install.bin_dir).unwrap().count(), 0);
        node.install.take_out().unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let none = Node::new(&[("notes.txt", "")]);
        assert!(matches!(none.install.put(false), Err(InstallError::None(_))));
        let single = Node::new(&[("10-a.conf", "{}"), ("20-b.conflist", LIST)]);
        assert!(matches!(single.install.put(false), Err(InstallError::Single(path)) if path.ends_with("10-a.conf")));
        let named = Node::new(&[("10-a.conf", "{}"), ("20-b.conflist", LIST)]);
        let install = Install { conf_name: Some("20-b.conflist".into()), ..named.install.clone() };
        install.put(false).unwrap();
        assert!(named.has("20-b.conflist"));
        let broken = Install { conf_name: Some("10-a.conf".into()), ..named.install.clone() };
        assert!(matches!(broken.put(false), Err(InstallError::Chain { source: ChainError::NoList, .. })));
    }

    #[tokio::test]
    async fn is_put_back_when_somebody_writes_the_configuration_anew() {
        let node = Node::new(&[("10-a.conflist", LIST)]);
        let readiness = mesh_runtime::readiness::Readiness::new();
        let kept = tokio::spawn(node.install.clone().keep(readiness.register("cni")));
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        for text in [LIST.to_owned(), LIST.replace("net", "other"), "{".to_owned(), LIST.to_owned()] {
            node.write("10-a.conflist", &text);
            while !node.has("10-a.conflist") && text != "{" {
                assert!(tokio::time::Instant::now() < deadline, "it is not put back");
                tokio::task::yield_now().await;
            }
        }
        std::fs::remove_file(node.install.bin_dir.join(NAME)).unwrap();
        while node.plugin().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "its file is not put back");
            tokio::task::yield_now().await;
        }
        kept.abort();
    }
}
