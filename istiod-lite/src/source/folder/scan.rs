//! Which files are there, and which have changed: bounded.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::source::Rejected;

/// Largest file read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Deepest directory visited below a root.
const MAX_DEPTH: usize = 32;
/// Most files read.
const MAX_FILES: usize = 50_000;

/// Tells one version of a file from the next without reading it. Any write changes the change time, and a
/// replacement by rename or by a swapped symbolic link changes the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their paths.
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    /// What could not be visited; what was known below it is still so.
    pub(super) unreadable: Vec<PathBuf>,
    pub(super) errors: Vec<Rejected>,
}

/// Walks a root (a directory, or one file), following symbolic links, each directory once.
pub(super) fn walk(root: &Path) -> Found {
    let mut found = Found::default();
    let mut visited = HashSet::new();
    let mut directories = vec![(root.to_owned(), 0)];
    if root.is_file() {
        directories.clear();
        file(root.to_owned(), &mut found);
    }
    while let Some((directory, depth)) = directories.pop() {
        let entries =
            fs::metadata(&directory).and_then(|m| Ok((visited.insert((m.dev(), m.ino())), fs::read_dir(&directory)?)));
        let entries = match entries {
            Ok((true, entries)) => entries,
            Ok((false, _)) => continue,
            Err(error) => {
                found.errors.push(Rejected::file(&directory, format!("cannot be read: {error}")));
                found.unreadable.push(directory);
                continue;
            }
        };
        for entry in entries.filter_map(Result::ok) {
            // Dot files: editors' backups, and the `..data` links by which ConfigMap mounts are swapped.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => directories.push((path, depth + 1)),
                Ok(metadata) if metadata.is_dir() => {
                    found.errors.push(Rejected::file(&path, "not visited: too deep below the folder"));
                    found.unreadable.push(path);
                }
                Ok(metadata) if metadata.is_file() && is_manifest(&path) => file(path, &mut found),
                // Its name says that it should count, and reading it might never end.
                Ok(_) if is_manifest(&path) => {
                    found
                        .errors
                        .push(Rejected::file(&path, "not read: it is a pipe, a socket or a device, and no file"));
                    found.unreadable.push(path);
                }
                // A link whose target vanished between two steps of a swap is looked at again at the next event.
                _ => {}
            }
        }
    }
    found
}

fn is_manifest(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

fn file(path: PathBuf, found: &mut Found) {
    if found.files.len() >= MAX_FILES {
        found.errors.push(Rejected::file(&path, format!("not read: more than {MAX_FILES} files")));
        found.unreadable.push(path);
        return;
    }
    match fs::metadata(&path) {
        Ok(metadata) => {
            found.files.insert(path, stamp(&metadata));
        }
        Err(error) => {
            found.errors.push(Rejected::file(&path, format!("cannot be read: {error}")));
            found.unreadable.push(path);
        }
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// Reads a file, with the stamp of what was read.
pub(super) fn read(path: &Path) -> Result<(Stamp, String), Box<Rejected>> {
    let failed = |error: io::Error| Box::new(Rejected::file(path, format!("cannot be read: {error}")));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("not read: larger than {} MiB; split it", MAX_FILE_BYTES >> 20);
        return Err(Box::new(Rejected::file(path, message)));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let message = format!("not UTF-8 at byte {}: save it as UTF-8", e.utf8_error().valid_up_to());
        Box::new(Rejected::file(path, message))
    })?;
    Ok((stamp(&metadata), text))
}
