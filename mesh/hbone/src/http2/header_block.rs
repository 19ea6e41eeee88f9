//! The header block that comes in pieces: HEADERS, and CONTINUATIONs until its end (RFC 9113 4.3).

use tokio::time::Instant;

use super::frame::kind;
use super::kept::Kept;
use super::{Code, ConnectionError};

/// Longest header block taken, compressed, with all of its CONTINUATIONs.
pub(super) const MAX_BLOCK: usize = 64 << 10;

/// A header block.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    pub(super) stream: u32,
    /// Those of its HEADERS.
    pub(super) flags: u8,
    pub(super) fragments: Kept,
}

/// The header block of which CONTINUATIONs are to come. There is one at most on a connection.
#[derive(Debug, Default)]
pub(super) struct Unfinished(Option<(HeaderBlock, Instant)>);

impl Unfinished {
    /// Begins with the fragment of a HEADERS frame.
    pub(super) fn begin(&mut self, stream: u32, flags: u8, fragment: &[u8]) {
        let mut fragments = Kept::default();
        fragments.add(fragment);
        self.0 = Some((HeaderBlock { stream, flags, fragments }, Instant::now()));
    }

    /// Between a HEADERS and the last of its CONTINUATIONs nothing else comes (RFC 9113 6.10).
    ///
    /// # Errors
    /// When a frame of this kind and stream must not come now.
    pub(super) fn expects(&self, kind: u8, stream: u32) -> Result<(), ConnectionError> {
        match &self.0 {
            Some((block, _)) if kind != kind::CONTINUATION || block.stream != stream => {
                Err(ConnectionError::new(Code::Protocol, "a header block is interrupted"))
            }
            None if kind == kind::CONTINUATION => Err(NOTHING),
            _ => Ok(()),
        }
    }

    /// Adds the fragment of a CONTINUATION. Returns the block with its `last`.
    ///
    /// # Errors
    /// When there is none, or it becomes too long.
    pub(super) fn continued(&mut self, fragment: &[u8], last: bool) -> Result<Option<HeaderBlock>, ConnectionError> {
        let Some((block, _)) = &mut self.0 else { return Err(NOTHING) };
        if block.fragments.len() + fragment.len() > MAX_BLOCK {
            return Err(ConnectionError::new(Code::EnhanceYourCalm, "header block longer than any we take"));
        }
        block.fragments.add(fragment);
        Ok(if last { self.0.take().map(|(block, _)| block) } else { None })
    }

    /// When the HEADERS came whose end is missing.
    pub(super) fn since(&self) -> Option<Instant> {
        self.0.as_ref().map(|(_, since)| *since)
    }

    /// What it takes up, in bytes.
    pub(super) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |(block, _)| block.fragments.held())
    }

    /// Gives up what nobody will finish.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

const NOTHING: ConnectionError = ConnectionError::new(Code::Protocol, "CONTINUATION of nothing");
