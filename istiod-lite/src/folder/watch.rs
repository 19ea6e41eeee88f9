//! When to look at the folders again: soon after something happened in them, and now and then anyway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// How long it must have been quiet; and how often to look at least, under a steady stream of events.
#[derive(Clone, Copy)]
struct Patience {
    quiet: Duration,
    at_most: Duration,
}

/// Editors and `kubectl`-like tools write in several steps.
const EDITORS: Patience = Patience { quiet: Duration::from_millis(50), at_most: Duration::from_millis(500) };
/// A machine replaces whole files, one after the other, and pods wait for what follows.
const MACHINERY: Patience = Patience { quiet: Duration::from_millis(3), at_most: Duration::from_millis(20) };
/// For what the kernel does not tell: network file systems, limits on watches, targets of links elsewhere.
const RESCAN: Duration = Duration::from_secs(5);

/// Tells when something may have changed below some paths.
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
        Self::new(paths, EDITORS)
    }

    /// The same for what programs write.
    pub fn machinery<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::new(paths, MACHINERY)
    }

    fn new<'a>(paths: impl IntoIterator<Item = &'a Path>, patience: Patience) -> Self {
        let (sender, events) = watch::channel(0);
        let handler = move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too, on some systems; answering it would never end.
            if !matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_))) {
                sender.send_modify(|n| *n += 1);
            }
        };
        let mut watcher = match notify::recommended_watcher(handler) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "cannot watch folders; looking every {RESCAN:?} instead");
                return Self { events, patience, _watcher: None };
            }
        };
        for path in paths {
            // A file is watched through its directory, or a replacement by rename would be missed.
            let (target, mode) = watched(path);
            if let Err(error) = watcher.watch(&target, mode) {
                tracing::warn!(path = %path.display(), %error, "cannot watch; looking every {RESCAN:?} instead");
            }
        }
        Self { events, patience, _watcher: Some(watcher) }
    }

    /// Returns when it is time to look.
    pub async fn changed(&mut self) {
        let alive = tokio::select! {
            changed = self.events.changed() => changed.is_ok(),
            () = sleep(RESCAN) => return,
        };
        if !alive {
            // No watcher: the rescan above is all there is.
            return sleep(RESCAN).await;
        }
        let latest = Instant::now() + self.patience.at_most;
        while let Ok(Ok(())) = timeout_at(latest.min(Instant::now() + self.patience.quiet), self.events.changed()).await
        {
        }
    }
}

fn watched(path: &Path) -> (PathBuf, RecursiveMode) {
    if path.is_file() {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return (parent.to_owned(), RecursiveMode::NonRecursive);
    }
    (path.to_owned(), RecursiveMode::Recursive)
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
}
