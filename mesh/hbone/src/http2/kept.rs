//! The beginning of something that has not arrived whole: a record, a frame, a header block. Whatever a connection keeps
//! of that is kept here, and nowhere else, so that it can be counted in one place.

use tokio::time::Instant;

/// A buffer is at most this much larger than what is in it.
pub(crate) const SLACK: usize = 1 << 10;

/// What has arrived, and since when it waits for the rest.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    since: Option<Instant>,
}

impl Kept {
    /// Keeps `bytes` after what is there. Room is made for what came, not for what was announced or might come.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            let room = bytes.len().next_multiple_of(SLACK);
            self.bytes.reserve_exact(room);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// All of it; the buffer goes with it.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.since = None;
        std::mem::take(&mut self.bytes)
    }

    /// When the first of it came.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// What it takes up.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

impl std::ops::Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
