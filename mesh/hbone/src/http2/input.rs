//! What comes in: records are opened, what they hold is cut into frames, and frames are handed to the connection. Of what
//! has been read, only the beginning of a record, a frame or a message that is not whole is kept.

use std::io::{self, IoSlice};
use std::rc::Rc;

use super::closing::Over;
use super::frame::{Parser, Piece};
use super::kept::Kept;
use super::state::Shared;
use super::{ConnectionError, Role};
use crate::tls::handshake::Keys;
use crate::tls::record::{self, Content, Opener, Sealer};

/// Pieces that are handed to an application at once.
const SLICES: usize = 256;
/// Key changes in a row that bring no data.
const KEY_CHANGES: u32 = 16;
/// Longest handshake message after the handshake: tickets, which are not used.
const MAX_MESSAGE: usize = 16 << 10;

/// The receiving side of a connection.
pub(super) struct Input {
    opener: Opener,
    keys: Keys,
    parser: Parser,
    /// The beginning of a record.
    partial: Kept,
    /// The beginning of a handshake message.
    message: Vec<u8>,
    key_changes: u32,
    max_frame: usize,
}

impl Input {
    /// Of a connection whose keys are `opener` and what follows from `keys`; frames have at most `max_frame` bytes.
    pub(super) fn new(opener: Opener, keys: Keys, max_frame: usize) -> Self {
        Self {
            opener,
            keys,
            parser: Parser::default(),
            partial: Kept::default(),
            message: Vec::new(),
            key_changes: 0,
            max_frame,
        }
    }

    /// Bytes of the beginning of a record: what is read next follows them.
    pub(super) fn kept(&self) -> usize {
        self.partial.len()
    }

    /// Moves the beginning of a record to the beginning of `buffer`, which is of that length. Given back, not kept: most
    /// connections are at rest most of the time.
    pub(super) fn move_kept(&mut self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.partial.take());
    }

    /// When the beginning of a frame came that is handed over whole and has not ended.
    pub(super) fn unfinished_since(&self) -> Option<tokio::time::Instant> {
        self.parser.unfinished()
    }

    /// The next key to seal with.
    pub(super) fn next_sealer(&mut self) -> Result<Sealer, record::RecordError> {
        self.keys.next_sealer()
    }

    /// Bytes that are kept of messages and frames that are not whole.
    pub(super) fn unfinished(&self) -> usize {
        self.parser.held() + self.message.capacity()
    }

    /// Gives back what nobody will finish.
    pub(super) fn forget(&mut self) {
        (self.parser, self.partial, self.message) = (Parser::default(), Kept::default(), Vec::new());
    }

    /// Opens every whole record of `bytes`; keeps the rest. Returns how many records and frames there were.
    pub(super) fn records(&mut self, shared: &Shared, bytes: &mut [u8]) -> Result<usize, Over> {
        let mut batch = Batch::default();
        let mut rest = bytes;
        let mut records = 0;
        loop {
            let length = record::record_length(rest).map_err(tls)?;
            let Some(length) = length.filter(|length| *length <= rest.len()) else {
                self.partial.add(rest);
                batch.flush(shared);
                return Ok(records + batch.pieces);
            };
            records += 1;
            let (record, later) = rest.split_at_mut(length);
            rest = later;
            let (content, range) = self.opener.open(record).map_err(tls)?;
            let record: &[u8] = record;
            match content {
                Content::Data => {
                    if !self.message.is_empty() {
                        // RFC 8446 5.1: nothing comes between the records of one message.
                        return Err(tls(record::RecordError::Unexpected));
                    }
                    match range.is_empty() {
                        true => shared.borrow_mut().spend(1).map_err(Over::Protocol)?,
                        false => self.key_changes = 0,
                    }
                    self.frames(shared, &record[range], &mut batch)?;
                }
                // RFC 8446 5.1: only data may be empty.
                _ if range.is_empty() => return Err(tls(record::RecordError::Unexpected)),
                Content::Handshake => self.handshake(shared, &record[range])?,
                Content::Alert => {
                    batch.flush(shared);
                    return Err(alert(&record[range]));
                }
            }
        }
    }

    /// Takes plaintext that rustls has opened.
    pub(super) fn plaintext(&mut self, shared: &Shared, plaintext: &[u8]) -> Result<(), Over> {
        let mut batch = Batch::default();
        self.frames(shared, plaintext, &mut batch)?;
        batch.flush(shared);
        Ok(())
    }

    fn frames<'b>(&mut self, shared: &Shared, plaintext: &'b [u8], batch: &mut Batch<'b>) -> Result<(), Over> {
        frames(&mut self.parser, self.max_frame, shared, plaintext, batch).map_err(Over::Protocol)
    }

    /// Handshake messages after the handshake (RFC 8446 4.6): new keys; tickets are of no use to us.
    fn handshake(&mut self, shared: &Shared, bytes: &[u8]) -> Result<(), Over> {
        self.message.extend_from_slice(bytes);
        while let Some(header) = self.message.first_chunk::<4>() {
            let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            let kind = header[0];
            if length > MAX_MESSAGE {
                return Err(tls(record::RecordError::TooLong));
            }
            let Some(message) = self.message.get(4..4 + length) else { return Ok(()) };
            match (kind, message) {
                // NewSessionTicket
                (4, _) if shared.borrow().role == Role::Client => {
                    shared.borrow_mut().spend(16).map_err(Over::Protocol)?;
                }
                // KeyUpdate
                (24, [asks @ 0..=1]) => {
                    let asks = *asks == 1;
                    // Keys are derived anew: more work than for most frames.
                    shared.borrow_mut().spend(8).map_err(Over::Protocol)?;
                    self.key_changes += 1;
                    if self.key_changes > KEY_CHANGES || self.message.len() != 5 {
                        return Err(tls(record::RecordError::Unexpected));
                    }
                    self.opener = self.keys.next_opener().map_err(tls)?;
                    if asks {
                        let mut state = shared.borrow_mut();
                        state.outgoing.record(Content::Handshake, &[24, 0, 0, 1, 0]).map_err(tls)?;
                        let sealer = self.keys.next_sealer().map_err(tls)?;
                        state.outgoing.change_key(sealer);
                        state.drive();
                    }
                }
                _ => return Err(tls(record::RecordError::Unexpected)),
            }
            self.message.drain(..4 + length);
        }
        Ok(())
    }
}

/// Cuts plaintext into frames and hands them to the connection; DATA is gathered in `batch`.
pub(crate) fn frames<'b>(
    parser: &mut Parser,
    max_frame: usize,
    shared: &Shared,
    mut plaintext: &'b [u8],
    batch: &mut Batch<'b>,
) -> Result<(), ConnectionError> {
    shared.borrow_mut().preface(&mut plaintext)?;
    while let Some(piece) = parser.next(&mut plaintext, max_frame)? {
        batch.pieces += 1;
        match piece {
            Piece::Data { stream, payload, counted, whole, end } => {
                let wanted = shared.borrow_mut().data(stream, payload.len(), counted, whole)?;
                if wanted && !payload.is_empty() {
                    batch.add(shared, stream, payload);
                }
                if end {
                    batch.flush_last(shared, stream);
                    shared.borrow_mut().end_of(stream);
                }
            }
            Piece::Frame { header, payload } => {
                batch.flush(shared);
                shared.borrow_mut().frame(header, payload)?;
            }
        }
    }
    Ok(())
}

fn tls(error: record::RecordError) -> Over {
    Over::Transport(Rc::new(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// An alert ends the connection, whatever it says (RFC 8446 6).
fn alert(alert: &[u8]) -> Over {
    match alert {
        // close_notify
        [_, 0] => hung_up(),
        [_, code] => {
            let what = format!("the peer ended TLS with alert {code}");
            Over::Transport(Rc::new(io::Error::new(io::ErrorKind::ConnectionAborted, what)))
        }
        _ => tls(record::RecordError::Unexpected),
    }
}

/// Pieces of one stream's DATA that are handed over together.
#[derive(Default)]
pub(crate) struct Batch<'b> {
    stream: u32,
    slices: Vec<IoSlice<'b>>,
    bytes: usize,
    /// Frames, and parts of DATA frames, so far, of any kind.
    pieces: usize,
}

impl<'b> Batch<'b> {
    fn add(&mut self, shared: &Shared, stream: u32, payload: &'b [u8]) {
        if stream != self.stream || self.slices.len() == SLICES {
            self.flush(shared);
        }
        self.stream = stream;
        self.bytes += payload.len();
        self.slices.push(IoSlice::new(payload));
    }

    pub(crate) fn flush(&mut self, shared: &Shared) {
        self.hand_over(shared, false);
    }

    /// As [`Batch::flush`], before `stream` ends.
    fn flush_last(&mut self, shared: &Shared, stream: u32) {
        self.hand_over(shared, stream == self.stream);
    }

    fn hand_over(&mut self, shared: &Shared, last: bool) {
        if self.bytes > 0 {
            shared.borrow_mut().deliver(self.stream, &self.slices, self.bytes, last);
            self.slices.clear();
            self.bytes = 0;
        }
    }
}

/// Why a connection ends whose peer has closed it.
pub(super) fn hung_up() -> Over {
    Over::Transport(Rc::new(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")))
}
