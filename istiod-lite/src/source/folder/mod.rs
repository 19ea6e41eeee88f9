//! Kubernetes objects from a folder of YAML files, kept up to date.
//!
//! | file | question |
//! |---|---|
//! | [`parse`] | what does this file say? (pure) |
//! | `documents` | where do its documents begin? (pure) |
//! | `locate` | at which line and column is this field? (pure) |
//! | `scan` | which files are there, which have changed? |
//! | `elsewhere` | what if a file does not answer? |
//! | [`store`] | what was last good, before this program started? |
//! | [`overlay`] | what has the cluster added to the user's objects? (pure) |
//! | [`follow`] | all of it, as a source of objects |
//!
//! [`Folder::rescan`] puts them together. One promise runs through it: **a document that does not parse is left out
//! alone, and the last good version of that object keeps serving**, also in the next life of this program
//! ([`Folder::with_store`]).

mod documents;
mod elsewhere;
pub mod follow;
mod locate;
pub mod overlay;
pub mod parse;
mod scan;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::cluster::Change;
use crate::resources::{Key, Kind, Object};
use crate::source::{Rejected, Skipped, closed};
use elsewhere::Elsewhere;
use parse::{Claim, ParsedObject};
use scan::Stamp;
use store::Store;

pub use parse::{ParsedFile, parse_file};
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
    errors: Vec<Rejected>,
    /// Those of the user's files, as of the last look at them.
    base_errors: Vec<Rejected>,
    skipped: Vec<Skipped>,
    store: Option<Store>,
    /// Why what is last good now will not outlive this program.
    not_kept: Option<Rejected>,
    /// Policies in it are for the whole mesh.
    root_namespace: String,
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
    reader: Elsewhere,
    /// Files went since the store was told which there are.
    shrunk: bool,
}

/// What a file says, or last said well.
#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    objects: Vec<ParsedObject>,
    errors: Vec<Rejected>,
    skipped: Vec<Skipped>,
    /// It may have held something that is in force, and nobody knows what: until it is mended.
    unsure: bool,
    /// Not kept on disk as it is now.
    changed: bool,
}

impl Folder {
    /// Nothing is read before the first [`Self::rescan`].
    ///
    /// `roots` are the user's directories or files; `overlay` is where the machinery writes status (see
    /// [`overlay`]).
    pub fn new(roots: Vec<PathBuf>, overlay: Option<PathBuf>) -> Self {
        let layer = |roots| Layer { roots, ..Layer::default() };
        Self { base: layer(roots), overlay: layer(overlay.into_iter().collect()), ..Self::default() }
    }

    /// Begins with what was last good when another life of this program ended, and keeps it for the next
    /// ([`Self::keep`]).
    ///
    /// Where the store cannot tell what was in force, and a file is wrong, everything the file may have been about is
    /// refused; `root_namespace` is the one whose policies are for the whole mesh.
    #[must_use]
    pub fn with_store(mut self, mut store: Store, root_namespace: &str) -> Self {
        for kept in store.load() {
            let state = FileState { objects: kept.objects, unsure: kept.unsure, ..FileState::default() };
            self.base.files.insert(kept.path, state);
        }
        self.store = Some(store);
        root_namespace.clone_into(&mut self.root_namespace);
        self
    }

    /// Looks at all files again, reads the ones that changed, and says what that changes.
    pub fn rescan(&mut self) -> Report {
        self.base_errors.clear();
        self.base.rescan(self.store.as_ref(), &mut self.base_errors);
        self.rescan_overlay()
    }

    /// The same for the overlay alone: somebody may just be writing the user's files, and they are not to be read half
    /// written.
    pub fn rescan_overlay(&mut self) -> Report {
        let mut errors = self.base_errors.clone();
        self.overlay.rescan(None, &mut errors);
        let mut base = self.base.objects(&mut errors);
        base.extend(self.base.closures(&self.root_namespace).map(|object| (object.key(), object)));
        errors.extend(self.not_kept.clone());
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

    /// Keeps on disk what is last good now. A failure is told with the other errors, and tried again next time.
    pub fn keep(&mut self) {
        let Some(store) = &mut self.store else { return };
        let mut failed = None;
        for (path, state) in self.base.files.iter_mut().filter(|(_, state)| state.changed) {
            match store.keep(path, &state.objects, state.unsure) {
                Ok(()) => state.changed = false,
                Err(error) => failed = failed.or(Some((path.clone(), error))),
            }
        }
        if failed.is_some() {
            // Until all is kept, nobody may take what is missing for what is not in force.
            store.unsettle();
        } else if self.base.shrunk || !store.is_settled() {
            match store.settle(self.base.files.keys().map(PathBuf::as_path)) {
                Ok(()) => self.base.shrunk = false,
                Err(error) => failed = failed.or(Some((store.directory().to_owned(), error))),
            }
        }
        let told = failed.map(|(path, error)| {
            let directory = store.directory().display();
            let message = format!(
                "what is good of it now cannot be kept in {directory} ({error}): it will not outlive a restart of the \
                 control plane"
            );
            Rejected::file(&path, message)
        });
        if told != self.not_kept {
            self.errors.retain(|error| Some(error) != self.not_kept.as_ref());
            self.errors.extend(told.clone());
            self.not_kept = told;
        }
    }

    /// What is there, overlay included.
    pub fn objects(&self) -> &BTreeMap<Key, Object> {
        &self.objects
    }

    /// What is wrong now.
    pub fn errors(&self) -> &[Rejected] {
        &self.errors
    }

    /// Objects of kinds that are not read.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

impl Layer {
    fn rescan(&mut self, store: Option<&Store>, errors: &mut Vec<Rejected>) {
        let mut found = scan::Found::default();
        for root in &self.roots {
            let below = self.reader.walk(root);
            found.files.extend(below.files);
            found.unreadable.extend(below.unreadable);
            found.errors.extend(below.errors);
        }
        // What nobody says any more, unless a file that is wrong now may be about it.
        let mut dropped = Vec::new();
        let mut broken = Vec::new();
        let before = self.files.len();
        // What cannot be looked at is not taken for gone.
        self.files.retain(|path, state| {
            let stays = found.files.contains_key(path) || found.unreadable.iter().any(|u| path.starts_with(u));
            if !stays {
                dropped.append(&mut state.objects);
            }
            stays
        });
        self.shrunk |= self.files.len() < before;
        errors.extend(found.errors);
        for (path, stamp) in found.files {
            let state = self.files.entry(path.clone()).or_insert_with(|| {
                let unsure = store.is_some_and(|store| store.is_unsure_of(&path));
                FileState { unsure, changed: unsure, ..FileState::default() }
            });
            if state.stamp == Some(stamp) {
                continue;
            }
            match self.reader.read(&path) {
                Ok((stamp, text)) => {
                    let claims = state.take(parse_file(&path, &text), &mut dropped);
                    state.stamp = Some(stamp);
                    if !claims.is_empty() {
                        broken.push((path, claims));
                    }
                }
                Err(mut error) => {
                    error.last_good_kept = !state.objects.is_empty();
                    if state.unsure {
                        closed::tell(&mut error);
                    }
                    state.errors = vec![*error];
                    // Read it again next time, whatever its stamp.
                    state.stamp = None;
                }
            }
        }
        if !dropped.is_empty() && !broken.is_empty() {
            self.adopt(dropped, &broken);
        }
        errors.extend(self.files.values().flat_map(|f| f.errors.iter().cloned()));
    }

    /// A file that was renamed, or a document that was moved, and broken in the same step: the new place keeps what was
    /// last good at the old one.
    fn adopt(&mut self, mut dropped: Vec<ParsedObject>, broken: &[(PathBuf, Vec<Claim>)]) {
        let said: BTreeSet<Key> =
            self.files.values().flat_map(|state| state.objects.iter().map(|o| o.object.key())).collect();
        dropped.retain(|old| !said.contains(&old.object.key()));
        for (path, claims) in broken {
            let Some(state) = self.files.get_mut(path) else { continue };
            let meant = |key: &Key| {
                claims.iter().any(|claim| match claim {
                    // Text that nobody can read: only of policies is it better to keep one too many.
                    Claim::Anything => matches!(
                        key.kind,
                        Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication
                    ),
                    claim => claim.covers(key),
                })
            };
            let (kept, rest) = dropped.into_iter().partition(|old| meant(&old.object.key()));
            state.keep(kept);
            dropped = rest;
        }
    }

    /// What is refused because nobody knows what was in force.
    fn closures(&self, root_namespace: &str) -> impl Iterator<Item = Object> {
        let unsure = self.files.values().filter(|state| state.unsure);
        closed::policies(unsure.flat_map(|state| &state.errors), root_namespace)
    }

    /// One object per key: the first by path and line. The others are errors.
    fn objects(&self, errors: &mut Vec<Rejected>) -> BTreeMap<Key, Object> {
        let mut objects = BTreeMap::new();
        let mut origins: BTreeMap<Key, (&Path, usize)> = BTreeMap::new();
        for (path, state) in &self.files {
            for ParsedObject { object, line } in &state.objects {
                let key = object.key();
                if let Some((file, first)) = origins.get(&key) {
                    let message = format!("already defined at {}:{first}; this one is left out", file.display());
                    errors.push(Rejected::object(path, *line, &key, message));
                } else if objects.len() >= MAX_OBJECTS {
                    errors.push(Rejected::object(path, *line, &key, format!("more than {MAX_OBJECTS} objects")));
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
    /// Takes what the file says now, and keeps what it said before of every object that it no longer says readably. What
    /// it does not say any more is `dropped`. Returns which objects the unreadable parts may have been.
    fn take(&mut self, parsed: ParsedFile, dropped: &mut Vec<ParsedObject>) -> Vec<Claim> {
        let before = std::mem::replace(&mut self.objects, parsed.objects);
        self.errors = parsed.errors;
        self.skipped = parsed.skipped;
        self.unsure &= !self.errors.is_empty();
        if self.unsure {
            self.errors.iter_mut().for_each(closed::tell);
        }
        self.changed = true;
        let said: BTreeSet<Key> = self.objects.iter().map(|o| o.object.key()).collect();
        let before = before.into_iter().filter(|old| !said.contains(&old.object.key()));
        let covered = |old: &ParsedObject| parsed.claims.iter().any(|claim| claim.covers(&old.object.key()));
        let (kept, gone): (Vec<_>, Vec<_>) = before.partition(covered);
        dropped.extend(gone);
        self.keep(kept);
        parsed.claims
    }

    /// Goes on saying what was last good.
    fn keep(&mut self, kept: Vec<ParsedObject>) {
        for error in &mut self.errors {
            error.last_good_kept |= kept.iter().any(|old| {
                let key = old.object.key();
                error.name.as_deref().is_none_or(|name| *name == *key.name)
            });
        }
        self.objects.extend(kept);
    }
}

/// The steps from `before` to `after`: deletions first, so that an address can change hands.
fn difference(before: &BTreeMap<Key, Object>, after: &BTreeMap<Key, Object>) -> Vec<Change> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).cloned().map(Change::Delete);
    let new =
        after.iter().filter(|(key, object)| before.get(*key) != Some(object)).map(|(_, o)| Change::apply(o.clone()));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests;
