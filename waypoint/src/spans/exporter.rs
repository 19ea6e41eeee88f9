//! The thread that brings spans to their collectors. It begins with the first span: a waypoint that makes none has none.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::trace::span::Span;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::collector::{self, MOST_WAITING};
use super::{Collector, Dropped, Finished, Queue};
use crate::context::WaypointContext;
use crate::serving::Worker;
use crate::worker;

/// How long the last spans may take when the waypoint ends. Kubernetes gives a pod 30 seconds, of which requests have 25.
const LAST: Duration = Duration::from_secs(3);

/// The thread, or that there will be one.
pub(crate) struct Exporter {
    end: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// Brings what comes out of the queue to its collectors, from the first span on.
pub(crate) fn start(context: Arc<WaypointContext>, queue: Queue) -> Exporter {
    let (end, mut ending) = oneshot::channel();
    let (told, ended) = oneshot::channel();
    tokio::spawn(async move {
        let mut queue = queue;
        let first = tokio::select! {
            first = queue.recv() => first,
            _ = &mut ending => queue.try_recv().ok(),
        };
        let Some(first) = first else { return };
        let (metrics, lost) = (context.spans.metrics().clone(), first.spans.len());
        let started = thread(move || async move {
            let pod = Arc::new(context.config.pod.clone());
            run(&worker::on_this_thread(context, pod), first, queue, ending).await;
            // Nobody may wait for it.
            let _ = told.send(());
        });
        if let Err(error) = started {
            tracing::error!(%error, "no spans are exported: the thread for it did not start");
            metrics.dropped(Dropped::CollectorUnavailable, lost);
        }
    });
    Exporter { end, ended }
}

impl Exporter {
    /// Brings the last spans to their collectors, as far as these take them in time.
    pub(crate) async fn end(self) {
        // An error means that there is no thread, and so no span.
        let _ = self.end.send(());
        let _ = self.ended.await;
    }
}

fn thread<F: Future<Output = ()>>(run: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("spans".to_owned()).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(async { run().await }),
            Err(error) => tracing::error!(%error, "no spans are exported: its thread has no event queue"),
        }
    })?;
    Ok(())
}

/// The collectors that there are spans for.
struct Collectors {
    worker: Rc<Worker>,
    waiting: HashMap<Collector, mpsc::Sender<Vec<Span>>>,
    tasks: JoinSet<()>,
    /// Spans that are in a collector's queue or on their way to it.
    held: Rc<Cell<usize>>,
}

impl Collectors {
    fn take(&mut self, Finished { collector, spans }: Finished) {
        let Self { worker, waiting, tasks, held } = self;
        let to = waiting.entry(collector.clone()).or_insert_with(|| {
            let (to, from) = mpsc::channel(MOST_WAITING);
            tasks.spawn_local(collector::serve(worker.clone(), collector, from, held.clone()));
            to
        });
        held.set(held.get() + spans.len());
        if let Err(full) = to.try_send(spans) {
            let count = full.into_inner().len();
            held.set(held.get() - count);
            worker.context.spans.metrics().dropped(Dropped::CollectorSlow, count);
        }
    }
}

async fn run(worker: &Rc<Worker>, first: Finished, mut queue: Queue, mut ending: oneshot::Receiver<()>) {
    let (waiting, tasks, held) = (HashMap::new(), JoinSet::new(), Rc::default());
    let mut all = Collectors { worker: worker.clone(), waiting, tasks, held };
    all.take(first);
    loop {
        tokio::select! {
            finished = queue.recv() => match finished {
                Some(finished) => all.take(finished),
                None => break,
            },
            // Dropped or not: whoever could end it wants its end.
            _ = &mut ending => break,
        }
    }
    queue.close();
    while let Some(finished) = queue.recv().await {
        all.take(finished);
    }
    let Collectors { waiting, mut tasks, held, .. } = all;
    // Each has heard of its end now, and sends what is left.
    drop(waiting);
    let last = async { while tasks.join_next().await.is_some() {} };
    if timeout(LAST, last).await.is_err() {
        tracing::warn!(spans = held.get(), "collectors have not taken the last spans in time");
    }
    worker.context.spans.metrics().dropped(Dropped::Shutdown, held.get());
}
