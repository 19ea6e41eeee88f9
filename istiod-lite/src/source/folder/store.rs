//! The last good version of each object, kept on disk, so that it outlives the control plane.
//!
//! One entry for each of the user's files, named by the hash of its path; a file beside them says the format. An entry
//! is replaced in one step, and begins with the hash of what follows: one that is not whole is not believed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use mesh_runtime::files;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse::ParsedObject;
use crate::resources::{Kind, Object};

/// Name and content of the file that says the format of the entries.
const FORMAT: (&str, &str) = ("format", "1\n");
/// Largest entry: the JSON of a file of [`super::MAX_FILE_BYTES`] of YAML, with room for references that repeat.
const MAX_ENTRY_BYTES: u64 = 32 << 20;
/// Most entries, as many as there may be files.
const MAX_ENTRIES: usize = 50_000;

/// Where last good versions are kept.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// False when nothing tells what was in force before: there is no store, and this is not the first start.
    complete: bool,
    /// Entries on disk that cannot be believed.
    damaged: BTreeSet<String>,
    /// Entries on disk.
    entries: BTreeSet<String>,
    /// The directory says that what is not in it is not in force.
    settled: bool,
}

/// What was kept of one file.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) objects: Vec<ParsedObject>,
    /// More may have been in force than is known.
    pub(super) unsure: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    unsure: bool,
    objects: Vec<EntryObject>,
}

#[derive(Serialize, Deserialize)]
struct EntryObject {
    line: usize,
    kind: Kind,
    object: Value,
}

impl Store {
    /// Looks at `directory`, which is made if it is not there. `first_start`: nobody can have been told anything by us
    /// yet, so that an empty directory says that nothing is in force.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: PathBuf, first_start: bool) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let format = fs::read_to_string(directory.join(FORMAT.0)).ok();
        let complete = first_start || format.as_deref() == Some(FORMAT.1);
        let mut entries = BTreeSet::new();
        for entry in fs::read_dir(&directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.strip_suffix(".json").is_some() && entries.len() < MAX_ENTRIES {
                entries.insert(name);
            }
        }
        Ok(Self { directory, complete, damaged: BTreeSet::new(), entries, settled: false })
    }

    /// Everything that is kept.
    pub(super) fn load(&mut self) -> Vec<Kept> {
        if !self.complete {
            // Of another format, or of nobody knows when.
            return Vec::new();
        }
        let mut all = Vec::new();
        for name in &self.entries {
            let path = self.directory.join(name);
            match read(&path) {
                Ok(kept) if entry_name(&kept.path) == *name => all.push(kept),
                Ok(_) => drop(self.damaged.insert(name.clone())),
                Err(error) => {
                    tracing::error!(entry = %path.display(), error, "what was last good cannot be read back");
                    self.damaged.insert(name.clone());
                }
            }
        }
        all
    }

    /// Whether a file that is not among what was kept may have held something that is in force.
    pub(super) fn is_unsure_of(&self, path: &Path) -> bool {
        !self.complete || self.damaged.contains(&entry_name(path))
    }

    /// Keeps what a file says well.
    pub(super) fn keep(&mut self, path: &Path, objects: &[ParsedObject], unsure: bool) -> io::Result<()> {
        let name = entry_name(path);
        if objects.is_empty() && !unsure {
            return self.forget(&name);
        }
        let object =
            |o: &ParsedObject| Ok(EntryObject { line: o.line, kind: o.object.kind(), object: o.object.to_value()? });
        let objects = objects.iter().map(object).collect::<serde_json::Result<_>>()?;
        let body = serde_json::to_string(&Entry { path: path.to_owned(), unsure, objects })?;
        if body.len() as u64 > MAX_ENTRY_BYTES {
            let problem = format!("what it says takes more than {} MiB as JSON: split it", MAX_ENTRY_BYTES >> 20);
            return Err(io::Error::other(problem));
        }
        self.write(&name, &format!("{}\n{body}\n", hash(body.as_bytes())))?;
        self.damaged.remove(&name);
        self.entries.insert(name);
        Ok(())
    }

    /// Forgets every file but these, and says that from now on what is not kept is not in force.
    pub(super) fn settle<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        self.complete = true;
        let names: BTreeSet<String> = files.map(entry_name).collect();
        for gone in self.entries.difference(&names).cloned().collect::<Vec<_>>() {
            self.forget(&gone)?;
        }
        self.write(FORMAT.0, FORMAT.1)?;
        self.settled = true;
        Ok(())
    }

    /// Takes back that what is not kept is not in force: the next life of this program is to be unsure. Taking a file away works
    /// on a full disk, too.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
        let format = self.directory.join(FORMAT.0);
        if let Err(error) = fs::remove_file(&format)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(file = %format.display(), %error, "cannot take back that all of the configuration is kept");
        }
    }

    /// Whether [`Self::settle`] has been done.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    fn forget(&mut self, name: &str) -> io::Result<()> {
        if !self.entries.contains(name) {
            return Ok(());
        }
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.entries.remove(name);
        self.damaged.remove(name);
        Ok(())
    }

    /// Replaces a file in one step, unless it says so already. The disk is not waited for: this is against the end of a
    /// program. What a machine that loses its power leaves half written is known by its hash.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            return Ok(());
        }
        // Somebody may have taken it away since it was opened.
        fs::create_dir_all(&self.directory)?;
        files::replace(&path, text)
    }

    /// Where it is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn read(path: &Path) -> Result<Kept, String> {
    let length = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_ENTRY_BYTES + 100 {
        return Err("larger than an entry can be".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let (written, body) = text.split_once('\n').unwrap_or_default();
    let body = body.trim_end_matches('\n');
    if written != hash(body.as_bytes()) {
        return Err("it is not whole".to_owned());
    }
    let entry: Entry = serde_json::from_str(body).map_err(|e| e.to_string())?;
    let object = |o: &EntryObject| {
        // Checked as if it were read for the first time: what this version would refuse it does not serve.
        let object = Object::from_value(o.kind, &o.object).map_err(|e| e.to_string())?;
        Ok(ParsedObject { object, line: o.line })
    };
    let objects = entry.objects.iter().map(object).collect::<Result<_, String>>()?;
    Ok(Kept { path: entry.path, objects, unsure: entry.unsure })
}

fn entry_name(path: &Path) -> String {
    format!("{}.json", hash(path.as_os_str().as_encoded_bytes()))
}

fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
