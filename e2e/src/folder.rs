//! The user's YAML, edited while the mesh runs.
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder of YAML that goes when it is dropped.
#[derive(Debug)]
pub struct Folder {
    directory: TempDir,
}

impl Folder {
    /// A new folder with one file, `base.yaml`.
    ///
    /// # Errors
    /// The file system's.
    pub fn with(yaml: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ambit-e2e-").tempdir().context("cannot make a folder")?;
        let folder = Folder { directory };
        folder.write("base.yaml", yaml)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path inside, for files that are not YAML, too.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Adds or replaces a file, as an editor does: the mesh sees the old content or the new.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let temporary = self.file(&format!(".{name}.new"));
        std::fs::write(&temporary, yaml)
            .and_then(|()| std::fs::rename(&temporary, self.file(name)))
            .with_context(|| format!("cannot write {name}"))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The file system's, also if there is none.
    pub fn remove(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.file(name)).with_context(|| format!("cannot remove {name}"))
    }

    /// Replaces text in a file. It must be there: an edit that changes nothing proves nothing.
    ///
    /// # Errors
    /// The file system's, or `from` is not in the file.
    pub fn edit(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.file(name)).with_context(|| format!("cannot read {name}"))?;
        anyhow::ensure!(text.contains(from), "{name} does not contain {from:?}");
        self.write(name, &text.replace(from, to))
    }
}
