//! The files by which the control plane is told of objects: as many as its reader needs. Pure.
use anyhow::Result;
use istiod_lite::source::folder::MAX_FILE_BYTES;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A file of this size is divided: its reader takes no more than twice as much.
const FULL: u64 = MAX_FILE_BYTES / 2;
/// How many files there are then: enough for a hundred times what is in one.
const PARTS: usize = 64;

/// The files of one kind of objects.
#[derive(Debug)]
pub(crate) struct OverlayFiles {
    name: &'static str,
    /// They were too many for one file, and stay divided: what was in a file stays in it.
    divided: bool,
}

/// One file.
#[derive(Debug)]
pub(crate) struct OverlayFile {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl OverlayFiles {
    /// Those of a kind that has this name.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, divided: false }
    }

    /// The files of these objects, to be written in this order.
    ///
    /// An object belongs to the same file for as long as there are several, so that no look of the reader finds it in two
    /// or in none. When one file becomes several, an object is written to its new file, which counts, before it is removed
    /// from the old one.
    pub(crate) fn of(&mut self, objects: &[Value]) -> Result<Vec<OverlayFile>> {
        let first = |text| OverlayFile { name: format!("{}.yaml", self.name), text };
        if !self.divided {
            let whole = yaml(objects)?;
            self.divided = whole.len() as u64 > FULL;
            if !self.divided {
                return Ok(vec![first(whole)]);
            }
        }
        let mut parts = vec![yaml(&[])?; PARTS];
        for object in objects {
            add(&mut parts[part(object)], object)?;
        }
        // Sorted before the first one's name: of two objects of a name the first counts.
        let named = |(number, text)| OverlayFile { name: format!("{}-{number:02}.yaml", self.name), text };
        let mut files: Vec<OverlayFile> = parts.into_iter().enumerate().map(named).collect();
        files.push(first(yaml(&[])?));
        Ok(files)
    }
}

/// In which of the files an object is: by its name, so that one that replaces another is where that was.
fn part(object: &Value) -> usize {
    let mut hasher = DefaultHasher::new();
    let metadata = &object["metadata"];
    (metadata["namespace"].as_str(), metadata["name"].as_str()).hash(&mut hasher);
    // Below PARTS, so it fits.
    (hasher.finish() % PARTS as u64) as usize
}

/// One file of all objects.
fn yaml(objects: &[Value]) -> Result<String> {
    let mut text = String::from("# Written by ambit; edits are lost.\n");
    for object in objects {
        add(&mut text, object)?;
    }
    Ok(text)
}

/// JSON is YAML; one object a line keeps errors easy to find.
fn add(text: &mut String, object: &Value) -> Result<()> {
    text.push_str("---\n");
    text.push_str(&serde_json::to_string(object)?);
    text.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use istiod_lite::source::folder::Folder;
    use serde_json::json;
    use std::fs;
    use std::path::Path;

    /// So many pods of 16 KiB each.
    fn pods(number: usize) -> Vec<Value> {
        let pod = |n| {
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": format!("p{n}"), "namespace": "shop", "annotations": {"note": "x".repeat(16 << 10)}},
                "spec": {"containers": [{"name": "c"}]},
            })
        };
        (0..number).map(pod).collect()
    }

    fn read(directory: &Path) -> (usize, Vec<String>) {
        let mut folder = Folder::new(Vec::new(), Some(directory.to_owned()));
        folder.rescan();
        (folder.objects().len(), folder.errors().iter().map(ToString::to_string).collect())
    }

    /// The control plane's own reader finds every pod, however many there are, also between two files that are written. What
    /// it is for: one file of them all was refused whole, "larger than 4 MiB".
    #[test]
    fn more_pods_than_fit_in_one_file_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = OverlayFiles::new("pods");
        let mut before = 0;
        for (pods_now, one_file) in [(100, true), (300, false), (290, false), (40, false)] {
            let written = files.of(&pods(pods_now)).unwrap();
            assert_eq!(written.len() == 1, one_file, "{pods_now} pods");
            assert!(written.iter().all(|file| (file.text.len() as u64) < MAX_FILE_BYTES));
            for (number, OverlayFile { name, text }) in written.into_iter().enumerate() {
                fs::write(directory.path().join(name), text).unwrap();
                // Never fewer than before and after. (An object in two files for a moment is an error, and the first counts.)
                if number % 16 == 1 {
                    assert!(read(directory.path()).0 >= before.min(pods_now));
                }
            }
            assert_eq!(read(directory.path()), (pods_now, Vec::new()));
            before = pods_now;
        }
    }
}
