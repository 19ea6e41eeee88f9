//! The charts that this program carries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Every file of the umbrella chart and of those below it: its path, and what is in it.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/charts.rs"));

/// Writes them into a folder, which is made where it is not there. Gives the umbrella's.
///
/// # Errors
/// When there are charts already, or files cannot be written.
pub(super) fn write(folder: &Path) -> Result<PathBuf> {
    let chart = folder.join("ambit");
    if chart.exists() {
        bail!("{} is there already: name an empty folder", chart.display());
    }
    for (name, content) in FILES {
        let path = folder.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, content));
        made.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(chart)
}

/// The charts in a folder that goes with this.
pub(super) struct Temporary {
    folder: PathBuf,
    /// The umbrella.
    pub(super) chart: PathBuf,
}

impl Temporary {
    /// Writes them.
    pub(super) fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ambit-charts-{}", crate::uid::new()));
        // Not one that somebody else has made there.
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let this = Self { chart: folder.join("ambit"), folder };
        write(&this.folder)?;
        Ok(this)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Helm has read them; what is left in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_are_whole_and_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let chart = write(folder.path()).unwrap();
        for file in [
            "Chart.yaml",
            "values.yaml",
            "values.schema.json",
            "templates/NOTES.txt",
            "charts/crds/files/authorizationpolicies.yaml",
            "charts/istiod-lite/templates/_helpers.tpl",
            "charts/istiod-lite/files/profiles.yaml",
            "charts/node-agent/Chart.yaml",
            "charts/ztunnel/templates/daemonset.yaml",
        ] {
            assert!(chart.join(file).is_file(), "{file}");
        }
        assert!(write(folder.path()).unwrap_err().to_string().contains("is there already"));
        let temporary = Temporary::new().unwrap();
        let place = temporary.folder.clone();
        assert!(temporary.chart.join("Chart.yaml").exists());
        drop(temporary);
        assert!(!place.exists());
    }
}
