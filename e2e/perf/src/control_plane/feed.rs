//! A source of objects that is told what to say, and remembers when each change was said and published.
use anyhow::{Context as _, Result};
use istiod_lite::app::Running;
use istiod_lite::cluster::Change;
use istiod_lite::source::{Batch, Findings, Source};
use mesh_model::resource::Kind;
use mesh_xds::published::Published;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// Most that is taken at once, after the first batch.
const BATCH: usize = 4096;

/// Changes, and when they were sent if somebody asks for it.
type Fed = (Vec<Change>, Option<f64>);

/// Tells the source what to say.
pub(crate) struct Sender(mpsc::UnboundedSender<Fed>);

/// The source.
pub(crate) struct Feed {
    fed: mpsc::UnboundedReceiver<Fed>,
    /// When each change of the batch was sent that is being published.
    sent: Vec<f64>,
    published: mpsc::UnboundedSender<Vec<f64>>,
}

/// What was published.
pub(crate) struct Watch {
    tables: watch::Receiver<Published>,
    batches: mpsc::UnboundedReceiver<Vec<f64>>,
}

/// A change, and the generation of the tables that has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Marked {
    /// Seconds since 1970.
    pub(crate) sent: f64,
    pub(crate) generation: u64,
}

/// Seconds since 1970: the same clock in both processes.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A source, and its two ends: what goes in, and what was published. The latter begins when there is a control plane.
pub(crate) fn new() -> (Sender, Feed, mpsc::UnboundedReceiver<Vec<f64>>) {
    let (sender, fed) = mpsc::unbounded_channel();
    let (published, batches) = mpsc::unbounded_channel();
    (Sender(sender), Feed { fed, sent: Vec::new(), published }, batches)
}

impl Sender {
    /// Says these at once.
    pub(crate) fn send(&self, changes: impl IntoIterator<Item = Change>) {
        // Nobody listens any more only when the run is over.
        let _ = self.0.send((changes.into_iter().collect(), None));
    }

    /// Says one, and remembers when.
    pub(crate) fn send_marked(&self, change: Change) {
        let _ = self.0.send((vec![change], Some(now())));
    }
}

impl Source for Feed {
    async fn next(&mut self) -> Option<Batch> {
        let mut fed = Vec::new();
        if self.fed.recv_many(&mut fed, BATCH).await == 0 {
            return None;
        }
        self.sent = fed.iter().filter_map(|(_, sent)| *sent).collect();
        Some(Batch { changes: fed.into_iter().flat_map(|(changes, _)| changes).collect(), findings: None })
    }

    async fn published(&mut self) -> Option<Findings> {
        let _ = self.published.send(std::mem::take(&mut self.sent));
        None
    }
}

impl Watch {
    pub(crate) fn new(running: &Running, batches: mpsc::UnboundedReceiver<Vec<f64>>) -> Self {
        Self { tables: running.published.clone(), batches }
    }

    /// The changes of the next batch that is published, with the generation that has them.
    pub(crate) async fn batch(&mut self) -> Result<Vec<Marked>> {
        let sent = self.batches.recv().await.context("the control plane takes nothing in any more")?;
        // If there is a later generation already, the one that has them was earlier: they are found to take no less long.
        let generation = self.tables.borrow().of(Kind::Address).map_or(0, |tables| tables.generation());
        Ok(sent.into_iter().map(|sent| Marked { sent, generation }).collect())
    }
}
