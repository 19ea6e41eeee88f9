//! The programs a cluster consists of: where they are, and whether there are all.
use crate::harness::skip;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Names the folder that `e2e/cluster/build` has filled.
pub const FOLDER: &str = "AMBIT_TEST_CLUSTER";
/// What a cluster cannot do without, whether from the folder or from this machine.
const NEEDED: [&str; 11] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
    "containerd",
    "ctr",
    "runc",
    "nft",
];
/// Plugins that connect pods: of Debian's package containernetworking-plugins, where they are installed.
const PLUGINS: &str = "/usr/lib/cni";

/// A folder of programs in which nothing is missing.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// [`skip`] without the folder, without a program, or without the right to make a cluster.
    pub(super) fn find() -> Result<Self> {
        let Some(folder) = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) else {
            return Err(skip(&format!("{FOLDER} names no folder of a cluster's programs (e2e/cluster/README.md)")));
        };
        let folder = Path::new(&folder).canonicalize().with_context(|| format!("{FOLDER}: {}", folder.display()))?;
        if !rustix::process::geteuid().is_root() {
            return Err(skip("only root can make the nodes of a cluster"));
        }
        let programs = Programs { folder };
        if let Some(missing) = NEEDED.iter().find(|name| programs.program(name).is_none()) {
            return Err(skip(&format!("`{missing}` is neither in {FOLDER} nor on this machine (e2e/cluster/build)")));
        }
        if programs.images()?.is_empty() {
            return Err(skip(&format!("{FOLDER} holds no images (e2e/cluster/images)")));
        }
        Ok(programs)
    }

    /// The archives of images that every node has, as machines see them.
    pub(super) fn images(&self) -> Result<Vec<String>> {
        let Ok(entries) = std::fs::read_dir(self.folder.join("images")) else { return Ok(Vec::new()) };
        let names = entries.map(|entry| Ok(entry?.file_name().display().to_string()));
        let all: Vec<String> = names.collect::<Result<_>>()?;
        Ok(all
            .iter()
            .filter(|name| name.ends_with(".tar"))
            .map(|name| format!("/kit/programs/images/{name}"))
            .collect())
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// One program, of the folder or else of this machine.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::iter::once(self.folder.join("bin")).chain(std::env::split_paths(&path));
        places.map(|place| place.join(name)).find(|file| file.is_file())
    }

    /// The folder of CNI plugins, as machines see it.
    pub(super) fn plugins(&self) -> &'static str {
        if self.folder.join("bin/cni").is_dir() { "/kit/programs/bin/cni" } else { PLUGINS }
    }
}
