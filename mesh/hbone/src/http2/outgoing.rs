//! Frames on their way out, in the records in which they leave.
//!
//! One buffer holds records that are sealed, and after them at most one that is still open: frames of many streams
//! gather in it until the driver sends. Bytes of an application are read from its socket straight into their place.
//!
//! The buffer belongs to the thread and is lent to a connection while it has something to send. Bound: [`STORAGE`]
//! for each connection whose peer does not read, while more than [`KEPT`] waits; what waits besides.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};

use super::frame::{self, Header, kind};
use crate::tls::record::{Content, MAX_PLAINTEXT, RecordError, Sealer};

/// Records that are filled by one read.
const RECORDS: usize = 16;
/// Most bytes around the plaintext of a record.
const AROUND: usize = 32;
/// A buffer: room for one read, and before it what [`READY`] lets wait.
const STORAGE: usize = (RECORDS + 5) * (MAX_PLAINTEXT + AROUND);
/// Streams are read while no more than this waits to be sent.
const READY: usize = 4 * MAX_PLAINTEXT;
/// Waiting bytes that are not worth a whole buffer.
const KEPT: usize = 16 << 10;
/// A record with less room than this is closed rather than given a part of a stream's bytes.
const WORTHWHILE: usize = 1024;
/// Buffers that a thread keeps for the next that needs one.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn lend() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; STORAGE])
}

fn give_back(buffer: Vec<u8>) {
    if buffer.len() == STORAGE {
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < SPARE {
                buffers.push(buffer)
            }
        });
    }
}

/// What is to be done about a key that has sealed so many records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyUsage {
    /// Nothing.
    WithinLimit,
    /// Seal with another one.
    Change,
    /// There can be no other: take no new streams, so that those that are open have time to end.
    Leave,
    /// There can be no other, and it must seal no more.
    End,
}

/// What a connection has to send.
pub(crate) struct Outgoing {
    sealer: Sealer,
    /// All initialised. `sent..sealed` is to be sent; the open record begins at `sealed`.
    storage: Vec<u8>,
    sent: usize,
    sealed: usize,
    /// Where the open record's plaintext ends; `sealed` when none is open.
    end: usize,
}

impl Outgoing {
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self { sealer, storage: Vec::new(), sent: 0, sealed: 0, end: 0 }
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.end - self.sent
    }

    /// Bytes of memory that are taken up by what waits to be sent.
    #[cfg(test)]
    pub(crate) fn takes_up(&self) -> usize {
        self.storage.len()
    }

    /// True when streams may be read.
    pub(crate) fn is_ready(&self) -> bool {
        self.waiting() <= READY
    }

    fn open(&self) -> bool {
        self.end > self.sealed
    }

    /// Room for plaintext in the open record.
    fn room(&self) -> usize {
        if self.open() { MAX_PLAINTEXT - (self.end - self.sealed - self.sealer.before()) } else { 0 }
    }

    /// Makes room for `needed` more bytes of storage.
    fn reserve(&mut self, needed: usize) {
        if self.end + needed <= self.storage.len() {
            return;
        }
        let waiting = self.sent..self.end;
        if self.storage.len() < STORAGE {
            let mut whole = lend();
            whole[..waiting.len()].copy_from_slice(&self.storage[waiting]);
            self.storage = whole;
        } else {
            self.storage.copy_within(waiting, 0);
        }
        self.sealed -= self.sent;
        self.end -= self.sent;
        self.sent = 0;
        if self.end + needed > self.storage.len() {
            self.storage.resize(self.end + needed, 0);
        }
    }

    /// Appends a frame other than DATA.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), RecordError> {
        self.bytes(&Header { length: payload.len(), kind, flags, stream }.bytes())?;
        self.bytes(payload)
    }

    /// Appends plaintext, over as many records as it takes.
    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), RecordError> {
        while !bytes.is_empty() {
            if self.room() == 0 {
                self.begin()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.reserve(now.len() + AROUND);
            self.storage[self.end..self.end + now.len()].copy_from_slice(now);
            self.end += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Appends DATA that is in memory. It takes as much as one frame may carry; returns how much.
    pub(crate) fn data(&mut self, stream: u32, data: &[u8], max_frame: usize) -> Result<usize, RecordError> {
        let length = data.len().min(max_frame).min(MAX_PLAINTEXT - frame::HEADER);
        self.frame(kind::DATA, 0, stream, &data[..length])?;
        Ok(length)
    }

    /// Appends DATA that `read` provides, at most `most` bytes of it, in frames of at most `max_frame`. Returns what
    /// `read` returned.
    ///
    /// # Errors
    /// Those of `read`, which leave nothing behind.
    pub(crate) fn fill(
        &mut self,
        stream: u32,
        most: usize,
        max_frame: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let (before, after) = (self.sealer.before(), self.sealer.after());
        let per_record = (MAX_PLAINTEXT - frame::HEADER).min(max_frame);
        // How much of the first frame's payload fits into the open record.
        let mut first = self.room().saturating_sub(frame::HEADER).min(max_frame).min(most);
        if first < WORTHWHILE.min(most) {
            if self.open() {
                self.close(Content::Data).map_err(io::Error::other)?;
            }
            first = 0;
        }
        let records = (most - first).div_ceil(per_record).min(RECORDS);
        let stride = before + frame::HEADER + per_record + after;
        self.reserve(frame::HEADER + first + AROUND + records * stride);
        let from_first = if first > 0 { self.end + frame::HEADER } else { self.sealed };
        let mut slices: [IoSliceMut<'_>; RECORDS + 1] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut lengths = [0; RECORDS + 1];
        let mut used = 0;
        let mut rest = &mut self.storage[from_first..];
        if first > 0 {
            let (slice, later) = rest.split_at_mut(first);
            slices[0] = IoSliceMut::new(slice);
            lengths[0] = first;
            used = 1;
            rest = &mut later[after..];
        }
        let mut left = most - first;
        for _ in 0..records {
            let (record, later) = rest.split_at_mut(stride);
            let length = per_record.min(left);
            slices[used] = IoSliceMut::new(&mut record[before + frame::HEADER..][..length]);
            lengths[used] = length;
            left -= length;
            used += 1;
            rest = later;
        }
        let bytes = read(&mut slices[..used])?;
        let mut unplaced = bytes;
        for (place, length) in lengths[..used].iter().enumerate() {
            if unplaced == 0 {
                break;
            }
            let filled = unplaced.min(*length);
            unplaced -= filled;
            let in_open_record = place == 0 && first > 0;
            if !in_open_record {
                if self.open() {
                    self.close(Content::Data).map_err(io::Error::other)?;
                }
                self.end = self.sealed + before;
            }
            let header = Header { length: filled, kind: kind::DATA, flags: 0, stream }.bytes();
            self.storage[self.end..self.end + frame::HEADER].copy_from_slice(&header);
            self.end += frame::HEADER + filled;
        }
        Ok(bytes)
    }

    /// Appends a record of something else than data.
    pub(crate) fn record(&mut self, content: Content, plaintext: &[u8]) -> Result<(), RecordError> {
        self.begin()?;
        self.reserve(plaintext.len() + AROUND);
        self.storage[self.end..self.end + plaintext.len()].copy_from_slice(plaintext);
        self.end += plaintext.len();
        self.close(content)
    }

    /// Sends what follows under another key.
    pub(crate) fn change_key(&mut self, sealer: Sealer) {
        self.sealer = sealer;
    }

    /// What is to be done about the key in use, which may seal `limit` records.
    pub(crate) fn key_usage(&self, limit: u64) -> KeyUsage {
        match (self.sealer.records(), self.sealer.can_change()) {
            (records, true) if records >= limit => KeyUsage::Change,
            (records, false) if records >= limit => KeyUsage::End,
            (records, false) if records >= limit / 2 => KeyUsage::Leave,
            _ => KeyUsage::WithinLimit,
        }
    }

    /// Begins a record, after closing the one that is open.
    fn begin(&mut self) -> Result<(), RecordError> {
        if self.open() {
            self.close(Content::Data)?;
        }
        self.reserve(AROUND);
        self.end = self.sealed + self.sealer.before();
        Ok(())
    }

    fn close(&mut self, content: Content) -> Result<(), RecordError> {
        let whole = self.end + self.sealer.after();
        self.sealer.seal(&mut self.storage[self.sealed..whole], content)?;
        self.sealed = whole;
        self.end = whole;
        Ok(())
    }

    /// What can be sent now, all of it: closes the open record.
    pub(crate) fn sealed(&mut self) -> Result<&[u8], RecordError> {
        if self.open() {
            self.close(Content::Data)?;
        }
        Ok(&self.storage[self.sent..self.sealed])
    }

    /// `bytes` of [`Outgoing::sealed`] have been sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.end {
            (self.sent, self.sealed, self.end) = (0, 0, 0);
            give_back(std::mem::take(&mut self.storage));
        }
    }

    /// The rest has to wait: a little of it does not keep a whole buffer.
    pub(crate) fn blocked(&mut self) {
        let waiting = self.waiting();
        if waiting <= KEPT && self.storage.len() == STORAGE {
            let kept = self.storage[self.sent..self.end].to_vec();
            give_back(std::mem::replace(&mut self.storage, kept));
            self.sealed -= self.sent;
            self.end = waiting;
            self.sent = 0;
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.storage));
    }
}

#[cfg(test)]
mod tests;
