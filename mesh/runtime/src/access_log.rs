//! One line per finished connection.
//!
//! A line is formatted on the thread that finished the connection, into a buffer that thread keeps, and copied into one queue; a thread
//! of its own writes what has gathered. So a connection pays for formatting and one copy, never for a slow reader of stdout: if the
//! queue is full, lines are dropped, and counted.
//!
//! Lines look like those of [`crate::log`] with the scope `access`, and obey the same filter (`access=off` silences them).

mod entry;
mod line;
mod queue;

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Level;

use crate::log::LogFormat;
use crate::metrics::Metrics;
use crate::timestamp::Timestamp;
use queue::Queue;

pub use entry::{Direction, Entry, Event, Peer, Request};

/// Where lines go. Clones share it; when the last is dropped, what is queued is still written, if the process lives long enough.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sink: Option<Sink>,
}

#[derive(Clone, Debug)]
struct Sink {
    queue: Arc<Queue>,
    format: LogFormat,
    filtered: bool,
}

thread_local! {
    /// Grows to the longest line of this thread, once. Values are cut, so that is a few KiB.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

impl AccessLog {
    /// Writes to stdout what the log filter lets through for the scope `access`.
    ///
    /// # Errors
    /// If the writing thread cannot be started.
    pub fn stdout(format: LogFormat) -> io::Result<Self> {
        Ok(Self { sink: Some(Sink { queue: Queue::start(io::stdout())?, format, filtered: true }) })
    }

    /// Writes every line, of every level, to `writer`.
    ///
    /// # Errors
    /// If the writing thread cannot be started.
    pub fn to_writer(format: LogFormat, writer: impl Write + Send + 'static) -> io::Result<Self> {
        Ok(Self { sink: Some(Sink { queue: Queue::start(writer)?, format, filtered: false }) })
    }

    /// Writes nothing, at no cost.
    pub fn disabled() -> Self {
        Self { sink: None }
    }

    /// Keeps every line in memory, for tests.
    ///
    /// # Errors
    /// If the writing thread cannot be started.
    pub fn memory(format: LogFormat) -> io::Result<(Self, MemoryLines)> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = Self::to_writer(format, MemoryWriter(written.clone()))?;
        Ok((log.clone(), MemoryLines { log, written }))
    }

    /// Queues the line for `entry`, unless the filter hides it or the queue is full. Never blocks on the reader.
    pub fn record(&self, entry: &Entry<'_>) {
        let Some(sink) = &self.sink else { return };
        let level = entry.level();
        if sink.filtered && !enabled(level) {
            return;
        }
        // Taken out rather than borrowed, so that a value whose `Display` logs cannot find it borrowed.
        let mut line = LINE.take();
        line.clear();
        line::write(&mut line, sink.format, Timestamp::now(), level, entry);
        sink.queue.push(line.as_bytes());
        LINE.set(line);
    }

    /// Waits until every line recorded so far is written; `false` if that took longer than `timeout`. Blocks this thread: for the end of
    /// the process.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.queue.flush(timeout))
    }

    /// Lines lost because the queue was full or could not be written.
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.queue.dropped().get())
    }

    /// Registers `ambit_access_log_lines_dropped_total`.
    pub fn register(&self, metrics: &mut Metrics) {
        if let Some(sink) = &self.sink {
            let help = "Access log lines lost because stdout was not read fast enough";
            metrics.registry_mut().register("ambit_access_log_lines_dropped", help, sink.queue.dropped().clone());
        }
    }
}

/// Whether the log filter shows this level of the scope `access`. The answer is kept per call site by `tracing`; that is why each level
/// has its own.
fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "access", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "access", Level::WARN),
        Level::INFO => tracing::enabled!(target: "access", Level::INFO),
        _ => tracing::enabled!(target: "access", Level::DEBUG),
    }
}

/// What an [`AccessLog::memory`] has written.
#[derive(Debug)]
pub struct MemoryLines {
    log: AccessLog,
    written: Arc<Mutex<Vec<u8>>>,
}

impl MemoryLines {
    /// Every line recorded so far, without line ends.
    ///
    /// # Panics
    /// If the writing thread does not answer within ten seconds.
    pub fn lines(&self) -> Vec<String> {
        assert!(self.log.flush(Duration::from_secs(10)), "the access log's writer is stuck");
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).lines().map(str::to_owned).collect()
    }
}

struct MemoryWriter(Arc<Mutex<Vec<u8>>>);

impl Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
