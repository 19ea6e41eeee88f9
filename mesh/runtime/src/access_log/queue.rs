//! Lines from many threads, written by one.
//!
//! The queue is one buffer of bytes. The writer swaps it for an empty one and writes it whole, so lines that arrive during a write form
//! the next batch, nothing is allocated once both buffers have grown, and the lock is held for a copy of one line.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

/// The most bytes waiting: some ten thousand lines.
const LIMIT: usize = 4 << 20;

/// So many bytes are written at once without waiting for more.
const BATCH: usize = 64 << 10;

/// How long a line may wait for company. Under load this turns a wake-up and a write per line into one per hundred lines.
const LINGER: Duration = Duration::from_millis(10);

/// The producers' end. Dropping it lets the writer finish what is queued and end.
#[derive(Debug)]
pub(super) struct Queue {
    buffer: Arc<Buffer>,
}

/// Lines that wait to be written, and what the producers and the writer tell each other.
#[derive(Debug)]
struct Buffer {
    state: Mutex<State>,
    /// Told to the writer: there is something, or enough, or no time to lose.
    work: Condvar,
    /// Told by the writer: a batch is done.
    done: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines taken into the queue, ever.
    accepted: u64,
    /// Lines the writer is done with, ever.
    finished: u64,
    /// Someone waits: do not linger.
    urgent: bool,
    closing: bool,
}

impl Queue {
    /// Starts the writing thread.
    pub(super) fn start(writer: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let buffer = Arc::new(Buffer {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            dropped: Counter::default(),
        });
        let writing = buffer.clone();
        std::thread::Builder::new().name("access-log".into()).spawn(move || writing.write_until_closed(writer))?;
        Ok(Arc::new(Self { buffer }))
    }

    /// Queues one line, which must have its end, or drops and counts it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.buffer.lock();
        let before = state.lines.len();
        let after = before + line.len();
        if after > LIMIT {
            drop(state);
            self.buffer.dropped.inc();
            return;
        }
        state.lines.extend_from_slice(line);
        state.accepted += 1;
        drop(state);
        // In between the writer is awake or lingering, and needs no telling.
        if before == 0 || (before < BATCH && after >= BATCH) {
            self.buffer.work.notify_one();
        }
    }

    /// Whether everything queued so far was written within `timeout`.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.buffer.lock();
        let target = state.accepted;
        state.urgent = true;
        self.buffer.work.notify_one();
        let waited = self.buffer.done.wait_timeout_while(state, timeout, |state| state.finished < target);
        let (_state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        !timed_out.timed_out()
    }

    pub(super) fn dropped(&self) -> &Counter {
        &self.buffer.dropped
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.buffer.lock().closing = true;
        self.buffer.work.notify_one();
    }
}

impl Buffer {
    fn write_until_closed(&self, mut writer: impl Write) {
        let mut batch = Vec::new();
        while let Some(upto) = self.take(&mut batch) {
            if writer.write_all(&batch).and_then(|()| writer.flush()).is_err() {
                // How far it got is unknown; none of these lines can be relied on.
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.inc_by(lines as u64);
            }
            batch.clear();
            self.lock().finished = upto;
            self.done.notify_all();
        }
    }

    /// Waits for lines and swaps them into `batch`; gives the count of lines accepted up to there, or `None` at the end.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let poisoned = PoisonError::into_inner;
        let idle = |state: &mut State| state.lines.is_empty() && !state.closing;
        let mut state = self.work.wait_while(self.lock(), idle).unwrap_or_else(poisoned);
        if state.lines.is_empty() {
            return None;
        }
        let patient = |state: &mut State| state.lines.len() < BATCH && !state.urgent && !state.closing;
        (state, _) = self.work.wait_timeout_while(state, LINGER, patient).unwrap_or_else(|error| error.into_inner());
        std::mem::swap(&mut state.lines, batch);
        state.urgent = false;
        Some(state.accepted)
    }

    /// A panic while the lock was held cannot leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A reader that takes one write at a time, when told to.
    struct Stalled {
        begun: mpsc::Sender<Vec<u8>>,
        go: mpsc::Receiver<()>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(bytes.to_vec()).unwrap();
            self.go.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_not_time() {
        let (begun, writes) = mpsc::channel();
        let (go, told) = mpsc::channel();
        let queue = Queue::start(Stalled { begun, go: told }).unwrap();
        queue.push(b"first\n");
        assert_eq!(writes.recv().unwrap(), b"first\n");
        // The writer is stuck in its first write: what fits is queued, the rest dropped.
        let line = [b'x'; 1024];
        let fit = LIMIT / line.len();
        for _ in 0..fit + 3 {
            queue.push(&line);
        }
        assert_eq!(queue.dropped().get(), 3);
        assert!(!queue.flush(Duration::from_millis(1)), "nothing can have been written");
        go.send(()).unwrap();
        assert_eq!(writes.recv().unwrap().len(), fit * line.len(), "one write for all that gathered");
        go.send(()).unwrap();
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(queue.dropped().get(), 3);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (begun, _writes) = mpsc::channel();
        let (go, told) = mpsc::channel();
        drop(go);
        let queue = Queue::start(Stalled { begun, go: told }).unwrap();
        queue.push(b"a\nb\n");
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(queue.dropped().get(), 2);
    }

    #[test]
    fn dropping_the_queue_writes_what_is_left() {
        let (begun, writes) = mpsc::channel();
        let (go, told) = mpsc::channel();
        go.send(()).unwrap();
        let queue = Queue::start(Stalled { begun, go: told }).unwrap();
        queue.push(b"last\n");
        drop(queue);
        assert_eq!(writes.recv().unwrap(), b"last\n");
        assert!(writes.recv().is_err(), "the writer ended");
    }
}
