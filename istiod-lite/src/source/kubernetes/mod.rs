//! Kubernetes objects from an API server, kept up to date.
//!
//! | file | question |
//! |---|---|
//! | this one | all watches, as a source of objects |
//! | [`kinds`] | where is each kind, and how much is read of its objects? (pure) |
//! | `book` | what changed, what is rejected, and what was last good? (pure) |
//!
//! The same promise runs through it as through a folder: **an object that cannot be read is left out alone, and the last good
//! version of it keeps serving.** What was last good before this program started nobody knows here: where a policy is wrong
//! then, its namespace is closed until it is mended.

mod book;
pub mod kinds;

use std::future::poll_fn;
use std::task::{Context, Poll};

use mesh_kube::{Client, Watch, WatchMetrics};

use self::book::Book;
use self::kinds::Read;
use super::{Batch, Findings, Source};
use crate::resources::Kind;
use crate::translate::Mesh;

/// Most changes in one batch after the first: what comes later is not kept waiting for what comes now.
const MOST: usize = 4096;

/// Follows an API server.
pub struct Kubernetes {
    watches: Vec<(Kind, Watch<Read>)>,
    /// Where to look first, so that no kind that changes all the time keeps the others waiting.
    next: usize,
    book: Book,
    known: Findings,
}

impl Kubernetes {
    /// Begins to watch. `first_start`: nothing that this control plane could have said before is in force.
    /// What happens to its watches is counted in `metrics`.
    pub fn new(client: &Client, mesh: &Mesh, first_start: bool, metrics: &WatchMetrics) -> Self {
        let watch = |kind| {
            let query = kinds::query(kind, &mesh.config_map);
            (kind, Watch::counted(client.clone(), query, metrics.clone(), move |raw| kinds::read(kind, &raw)))
        };
        Self {
            watches: kinds::ALL.into_iter().map(watch).collect(),
            next: 0,
            book: Book::new(&mesh.root_namespace, first_start),
            known: Findings::default(),
        }
    }

    /// Takes one event in, if there is one. Ready(false): a watch has ended.
    fn poll(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<bool> {
        let count = self.watches.len();
        for place in (self.next..self.next + count).map(|place| place % count) {
            let (kind, watch) = &mut self.watches[place];
            if let Poll::Ready(event) = watch.poll_next(cx) {
                let kind = *kind;
                self.next = place + 1;
                let Some(event) = event else {
                    tracing::error!(%kind, "a watch ended: nothing new is read; what was read keeps serving");
                    return Poll::Ready(false);
                };
                self.book.take(kind, event, &mut batch.changes);
                return Poll::Ready(true);
            }
        }
        Poll::Pending
    }
}

impl Source for Kubernetes {
    async fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        if !poll_fn(|cx| self.poll(cx, &mut batch)).await {
            return None;
        }
        loop {
            // What is there already comes with it; and until all kinds were read, what is still to come.
            let more = poll_fn(|cx| match self.poll(cx, &mut batch) {
                Poll::Pending if self.book.is_whole() => Poll::Ready(None),
                other => other.map(Some),
            });
            match more.await {
                Some(false) => return None,
                Some(true) if !self.book.is_whole() || batch.changes.len() < MOST => {}
                _ => break,
            }
        }
        self.book.close(&mut batch.changes);
        let rejected: Vec<_> = self.book.rejected().cloned().collect();
        if self.known.rejected != rejected {
            self.known = Findings { rejected, skipped: Vec::new() };
            batch.findings = Some(self.known.clone());
        }
        Some(batch)
    }

    async fn published(&mut self) -> Option<Findings> {
        None
    }
}
