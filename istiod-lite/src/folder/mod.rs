//! Kubernetes objects from a folder of YAML files, kept up to date.
//!
//! | file | question |
//! |---|---|
//! | [`parse`] | what does this file say? (pure) |
//! | `documents` | where do its documents begin? (pure) |
//! | `locate` | at which line and column is this field? (pure) |
//! | `scan` | which files are there, which have changed? |
//! | [`overlay`] | what has the cluster added to the user's objects? (pure) |
//! | [`watch`] | when to look again |
//!
//! [`Folder::rescan`] puts them together. One promise runs through it: **a document that does not parse is left out
//! alone, and the last good version of that object keeps serving.**

mod documents;
mod locate;
pub mod overlay;
pub mod parse;
mod scan;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::resources::{Key, Object};
use parse::{ParsedObject, Skipped};
use scan::Stamp;

pub use parse::{ParseError, ParsedFile, parse_file};
pub use scan::MAX_FILE_BYTES;

/// Most objects kept, over all files.
pub const MAX_OBJECTS: usize = 200_000;

/// The state of the folders, as far as it could be read.
#[derive(Debug, Default)]
pub struct Folder {
    base: Layer,
    overlay: Layer,
    /// What `rescan` last reported as being there.
    objects: BTreeMap<Key, Object>,
    errors: Vec<ParseError>,
    /// Those of the user's files, as of the last look at them.
    base_errors: Vec<ParseError>,
    skipped: Vec<Skipped>,
}

/// One step from what was there to what is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new, or different.
    Apply(Object),
    /// It is gone.
    Delete(Key),
}

/// What a rescan found.
#[derive(Debug, Default)]
pub struct Report {
    /// Since the rescan before.
    pub changes: Vec<Change>,
    /// True when the errors are not the same as before.
    pub errors_changed: bool,
}

/// Some roots, and the files below them.
#[derive(Debug, Default)]
struct Layer {
    roots: Vec<PathBuf>,
    files: BTreeMap<PathBuf, FileState>,
}

/// What a file says, or last said well.
#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    objects: Vec<ParsedObject>,
    errors: Vec<ParseError>,
    skipped: Vec<Skipped>,
}

impl Folder {
    /// Nothing is read before the first [`Self::rescan`].
    ///
    /// `roots` are the user's directories or files; `overlay` is where the machinery writes status (see
    /// [`overlay`]).
    pub fn new(roots: Vec<PathBuf>, overlay: Option<PathBuf>) -> Self {
        let layer = |roots| Layer { roots, files: BTreeMap::new() };
        Self { base: layer(roots), overlay: layer(overlay.into_iter().collect()), ..Self::default() }
    }

    /// Looks at all files again, reads the ones that changed, and says what that changes.
    pub fn rescan(&mut self) -> Report {
        self.base_errors.clear();
        self.base.rescan(&mut self.base_errors);
        self.rescan_overlay()
    }

    /// The same for the overlay alone: somebody may just be writing the user's files, and they are not to be read half
    /// written.
    pub fn rescan_overlay(&mut self) -> Report {
        let mut errors = self.base_errors.clone();
        self.overlay.rescan(&mut errors);
        let base = self.base.objects(&mut errors);
        let objects = match self.overlay.roots.is_empty() {
            true => base,
            false => overlay::merge(base, &self.overlay.objects(&mut errors)),
        };
        let changes = difference(&self.objects, &objects);
        let errors_changed = errors != self.errors;
        self.skipped = self.base.files.values().flat_map(|f| f.skipped.iter().cloned()).collect();
        self.errors = errors;
        self.objects = objects;
        Report { changes, errors_changed }
    }

    /// What is there, overlay included.
    pub fn objects(&self) -> &BTreeMap<Key, Object> {
        &self.objects
    }

    /// What is wrong now.
    pub fn errors(&self) -> &[ParseError] {
        &self.errors
    }

    /// Objects of kinds that are not read.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

impl Layer {
    fn rescan(&mut self, errors: &mut Vec<ParseError>) {
        let mut found = scan::Found::default();
        for root in &self.roots {
            let below = scan::walk(root);
            found.files.extend(below.files);
            found.unreadable.extend(below.unreadable);
            found.errors.extend(below.errors);
        }
        // What cannot be looked at is not taken for gone.
        self.files
            .retain(|path, _| found.files.contains_key(path) || found.unreadable.iter().any(|u| path.starts_with(u)));
        errors.extend(found.errors);
        for (path, stamp) in found.files {
            let state = self.files.entry(path.clone()).or_default();
            if state.stamp == Some(stamp) {
                continue;
            }
            match scan::read(&path) {
                Ok((stamp, text)) => {
                    state.take(parse_file(&path, &text));
                    state.stamp = Some(stamp);
                }
                Err(mut error) => {
                    error.last_good_kept = !state.objects.is_empty();
                    state.errors = vec![*error];
                    // Read it again next time, whatever its stamp.
                    state.stamp = None;
                }
            }
        }
        errors.extend(self.files.values().flat_map(|f| f.errors.iter().cloned()));
    }

    /// One object per key: the first by path and line. The others are errors.
    fn objects(&self, errors: &mut Vec<ParseError>) -> BTreeMap<Key, Object> {
        let mut objects = BTreeMap::new();
        let mut origins: BTreeMap<Key, (&Path, usize)> = BTreeMap::new();
        for (path, state) in &self.files {
            for ParsedObject { object, line } in &state.objects {
                let key = object.key();
                if let Some((file, first)) = origins.get(&key) {
                    let message = format!("already defined at {}:{first}; this one is left out", file.display());
                    errors.push(ParseError::object(path, *line, &key, message));
                } else if objects.len() >= MAX_OBJECTS {
                    errors.push(ParseError::object(path, *line, &key, format!("more than {MAX_OBJECTS} objects")));
                    return objects;
                } else {
                    origins.insert(key.clone(), (path, *line));
                    objects.insert(key, object.clone());
                }
            }
        }
        objects
    }
}

impl FileState {
    /// Takes what the file says now, and keeps what it said before of every object that it no longer says readably.
    fn take(&mut self, mut parsed: ParsedFile) {
        let said = |key: &Key, objects: &[ParsedObject]| objects.iter().any(|o| o.object.key() == *key);
        let mut kept = Vec::new();
        for old in std::mem::take(&mut self.objects) {
            let key = old.object.key();
            if parsed.claims.iter().any(|claim| claim.covers(&key)) && !said(&key, &parsed.objects) {
                kept.push(old);
            }
        }
        for error in &mut parsed.errors {
            error.last_good_kept = kept.iter().any(|o| {
                let key = o.object.key();
                error.name.as_deref().is_none_or(|name| *name == *key.name)
            });
        }
        parsed.objects.extend(kept);
        self.objects = parsed.objects;
        self.errors = parsed.errors;
        self.skipped = parsed.skipped;
    }
}

/// The steps from `before` to `after`: deletions first, so that an address can change hands.
fn difference(before: &BTreeMap<Key, Object>, after: &BTreeMap<Key, Object>) -> Vec<Change> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).cloned().map(Change::Delete);
    let new =
        after.iter().filter(|(key, object)| before.get(*key) != Some(object)).map(|(_, o)| Change::Apply(o.clone()));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests;
