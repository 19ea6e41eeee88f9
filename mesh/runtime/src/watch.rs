//! When to look at files again: soon after something happened to them, and now and then anyway.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// How soon after an event.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How long it must have been quiet; and how often to look at least, under a steady stream of events.
    quiet: Duration,
    at_most: Duration,
    /// How long without any event: for what the kernel does not tell.
    look_anyway: Duration,
}

/// Editors and `kubectl`-like tools write in several steps.
const EDITORS: Patience =
    Patience { quiet: Duration::from_millis(50), at_most: Duration::from_millis(500), look_anyway: RESCAN };
/// A machine replaces whole files, one after the other, and pods wait for what follows.
const MACHINERY: Patience =
    Patience { quiet: Duration::from_millis(3), at_most: Duration::from_millis(20), look_anyway: RESCAN };
/// For network file systems, limits on watches, targets of links elsewhere.
const RESCAN: Duration = Duration::from_secs(5);

/// Tells when something may have changed below some paths.
#[derive(Debug)]
pub struct Watch {
    events: watch::Receiver<u64>,
    patience: Patience,
    /// Kept for its events; `None` when the kernel refused.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Watch {
    /// Watches directories (with everything below) or single files that people write. Never fails: what cannot be
    /// watched is looked at every five seconds, and the log says so.
    pub fn edits<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::new(paths.into_iter().map(whole), EDITORS, |_| true)
    }

    /// The same for what programs write.
    pub fn machinery<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::new(paths.into_iter().map(whole), MACHINERY, |_| true)
    }

    /// Watches single files that programs [replace](crate::files::replace), each answered at once. They need not be there
    /// yet; their directories must. What cannot be watched is looked at every `look_anyway`, and the log says so.
    pub fn replaced(files: impl IntoIterator<Item = PathBuf>, look_anyway: Duration) -> Self {
        let files: BTreeSet<PathBuf> = files.into_iter().collect();
        // A rename into place is seen in the directory, not on the file it replaces.
        let directories: BTreeSet<PathBuf> = files.iter().map(|file| directory(file).to_owned()).collect();
        let targets = directories.into_iter().map(|directory| (directory, RecursiveMode::NonRecursive));
        let names: BTreeSet<_> = files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
        let matters = move |path: &Path| path.file_name().is_some_and(|name| names.contains(name));
        Self::new(targets, Patience { quiet: Duration::ZERO, at_most: Duration::ZERO, look_anyway }, matters)
    }

    fn new(
        targets: impl Iterator<Item = (PathBuf, RecursiveMode)>,
        patience: Patience,
        matters: impl Fn(&Path) -> bool + Send + 'static,
    ) -> Self {
        let (sender, events) = watch::channel(0);
        let handler = move |event: notify::Result<Event>| {
            let counts = match &event {
                // Reading the files is an event too, on some systems; answering it would never end.
                Ok(Event { kind: EventKind::Access(_), .. }) => false,
                // Without a path: something was missed.
                Ok(Event { paths, .. }) => paths.is_empty() || paths.iter().any(|path| matters(path)),
                Err(_) => true,
            };
            if counts {
                sender.send_modify(|n| *n += 1);
            }
        };
        let instead = patience.look_anyway;
        let mut watcher = match notify::recommended_watcher(handler) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "cannot watch files; looking every {instead:?} instead");
                return Self { events, patience, _watcher: None };
            }
        };
        for (target, mode) in targets {
            if let Err(error) = watcher.watch(&target, mode) {
                tracing::warn!(path = %target.display(), %error, "cannot watch; looking every {instead:?} instead");
            }
        }
        Self { events, patience, _watcher: Some(watcher) }
    }

    /// Returns when it is time to look.
    pub async fn changed(&mut self) {
        let alive = tokio::select! {
            changed = self.events.changed() => changed.is_ok(),
            () = sleep(self.patience.look_anyway) => return,
        };
        if !alive {
            // No watcher: looking anyway is all there is.
            return sleep(self.patience.look_anyway).await;
        }
        let latest = Instant::now() + self.patience.at_most;
        while let Ok(Ok(())) = timeout_at(latest.min(Instant::now() + self.patience.quiet), self.events.changed()).await
        {
        }
    }
}

/// A directory with all below; a file is watched through its directory, or a replacement by rename would be missed.
fn whole(path: &Path) -> (PathBuf, RecursiveMode) {
    if path.is_file() {
        return (directory(path).to_owned(), RecursiveMode::NonRecursive);
    }
    (path.to_owned(), RecursiveMode::Recursive)
}

/// Where a file is.
fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What editors do. No sleeps: a missed event shows as the slow rescan, which takes longer than the bound.
    #[tokio::test]
    async fn writes_renames_and_link_swaps_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut watch = Watch::edits([directory.path()]);
        let steps: [(&str, &dyn Fn()); 4] = [
            ("a new file", &|| std::fs::write(at("a.yaml"), "a").unwrap()),
            ("a file renamed over it", &|| {
                std::fs::write(at(".a.swp"), "b").unwrap();
                std::fs::rename(at(".a.swp"), at("a.yaml")).unwrap();
            }),
            ("a link swapped", &|| {
                std::os::unix::fs::symlink("nowhere", at(".tmp")).unwrap();
                std::fs::rename(at(".tmp"), at("..data")).unwrap();
            }),
            ("a file in a new directory", &|| {
                std::fs::create_dir(at("new")).unwrap();
                std::fs::write(at("new/b.yaml"), "b").unwrap();
            }),
        ];
        for (what, step) in steps {
            step();
            let noticed = tokio::time::timeout(Duration::from_secs(4), watch.changed()).await;
            assert!(noticed.is_ok(), "{what}");
        }
    }

    /// Reading is no change, nor is what happens to other files: nothing more is seen until the file is replaced.
    #[tokio::test]
    async fn a_replaced_file_is_noticed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pods.json");
        let mut watch = Watch::replaced([path.clone()], Duration::from_secs(60));
        crate::files::replace(&path, "{}").unwrap();
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap();
        std::fs::read(&path).unwrap();
        std::fs::write(directory.path().join("other"), "").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(200), watch.changed()).await.is_err());
    }
}
