//! A folder as a source of objects: read now and whenever it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_runtime::watch::Watch;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};

use super::{Folder, Report};
use crate::source::{Batch, Findings, Source};

/// Follows folders, and an overlay.
pub struct Follow {
    /// None after a panic in it: nothing is left to go on with, and what was said stays.
    folder: Option<Folder>,
    edited: Arc<Notify>,
    overlaid: Arc<Notify>,
    first: bool,
    known: Findings,
    /// The watches end with this.
    _watches: JoinSet<()>,
}

impl Follow {
    /// Watching begins before the first look, or a change between the two would be missed. `folders` and `overlay` are
    /// those of `folder`.
    pub fn new(folder: Folder, folders: &[PathBuf], overlay: Option<&Path>) -> Self {
        let (edited, overlaid) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut watches = JoinSet::new();
        watches.spawn(tell_of(Watch::edits(folders.iter().map(PathBuf::as_path)), edited.clone()));
        watches.spawn(tell_of(Watch::machinery(overlay), overlaid.clone()));
        Self { folder: Some(folder), edited, overlaid, first: true, known: Findings::default(), _watches: watches }
    }

    /// Files and large tables take as long as they take: those who ask for certificates meanwhile do not wait for it.
    async fn with<T: Send + 'static>(&mut self, what: impl FnOnce(&mut Folder) -> T + Send + 'static) -> Option<T> {
        let mut folder = self.folder.take()?;
        let done = spawn_blocking(move || {
            let done = what(&mut folder);
            (folder, done)
        });
        let (folder, done) = done.await.ok()?;
        self.folder = Some(folder);
        Some(done)
    }

    fn news(&mut self, now: Findings) -> Option<Findings> {
        (self.known != now).then(|| {
            self.known = now.clone();
            now
        })
    }
}

impl Source for Follow {
    async fn next(&mut self) -> Option<Batch> {
        let all = match std::mem::replace(&mut self.first, false) {
            true => true,
            false => tokio::select! {
                () = self.edited.notified() => true,
                () = self.overlaid.notified() => false,
            },
        };
        let look = move |folder: &mut Folder| {
            let Report { changes, .. } = if all { folder.rescan() } else { folder.rescan_overlay() };
            (changes, findings(folder))
        };
        let (changes, findings) = self.with(look).await?;
        Some(Batch { changes, findings: self.news(findings) })
    }

    async fn published(&mut self) -> Option<Findings> {
        let keep = |folder: &mut Folder| {
            folder.keep();
            findings(folder)
        };
        let findings = self.with(keep).await?;
        self.news(findings)
    }
}

fn findings(folder: &Folder) -> Findings {
    Findings { rejected: folder.errors().to_vec(), skipped: folder.skipped().to_vec() }
}

/// Notifies whenever it is time to look.
async fn tell_of(mut watch: Watch, changed: Arc<Notify>) {
    loop {
        watch.changed().await;
        changed.notify_one();
    }
}
