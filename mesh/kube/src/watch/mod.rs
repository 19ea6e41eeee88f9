//! What there is of a kind, and what changes: a watch that goes on whatever happens.
//!
//! | file | question |
//! |---|---|
//! | this one | who watches? |
//! | [`event`] | what is watched, and what is said of it? |
//! | `plan` | what is asked next, and after how long? (pure) |
//! | `answer` | what does a line of an answer say? (pure) |
//! | `lines` | where does a line end? |
//! | `follow` | asks, and carries the answers on |
//! | `metrics` | how often did that have to begin again? |
//!
//! A watch says everything once ([`Event::All`]), then what changes. It goes on from where it was when the connection ends;
//! where the API server does not remember that far back (`410 Gone`), it says everything again. A kind that is not installed
//! counts as one without objects, and is looked for again.

mod answer;
pub mod event;
mod follow;
mod lines;
mod metrics;
mod plan;

use std::task::{Context, Poll};

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::raw::Raw;

pub use event::{Event, Query};
pub use metrics::WatchMetrics;

/// Events that wait for who watches. While so many do, nothing more is read of the API server.
const WAITING: usize = 256;

/// A watch. It ends when this is dropped.
pub struct Watch<T> {
    events: mpsc::Receiver<Event<T>>,
    task: JoinHandle<()>,
}

impl<T: Send + 'static> Watch<T> {
    /// Begins to watch, on the current tokio runtime. `read` is called once for every object that comes, as it comes, so that
    /// no more of it is held than what that returns.
    pub fn new(client: Client, query: Query, read: impl Fn(Raw<'_>) -> T + Send + Sync + 'static) -> Self {
        Self::counted(client, query, WatchMetrics::default(), read)
    }

    /// [`Self::new`], and what happens to it is counted.
    pub fn counted(
        client: Client,
        query: Query,
        metrics: WatchMetrics,
        read: impl Fn(Raw<'_>) -> T + Send + Sync + 'static,
    ) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        Self { events, task: tokio::spawn(follow::follow(client, query, metrics, read, sender)) }
    }

    /// The next event; None only if reading objects panicked. Whoever stops waiting for it loses nothing.
    pub async fn next(&mut self) -> Option<Event<T>> {
        self.events.recv().await
    }

    /// [`Self::next`], for who waits for several.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event<T>>> {
        self.events.poll_recv(cx)
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
