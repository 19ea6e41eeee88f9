//! What each end says first (RFC 9113 3.4): a client's preface, and the SETTINGS of both.

use super::{Code, ConnectionError, PREFACE, Role};

/// How much of the peer's greeting has come.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// Bytes of a client's preface.
    preface: usize,
    /// SETTINGS have come, and so has all of the preface.
    complete: bool,
}

impl Greeting {
    /// Takes the preface of a client off `input`; `ours` is our role.
    ///
    /// # Errors
    /// When the peer does not speak HTTP/2.
    pub(super) fn preface(&mut self, ours: Role, input: &mut &[u8]) -> Result<(), ConnectionError> {
        if ours == Role::Server && self.preface < PREFACE.len() {
            let expected = &PREFACE[self.preface..];
            let length = expected.len().min(input.len());
            if input[..length] != expected[..length] {
                return Err(ConnectionError::new(Code::Protocol, "the caller does not speak HTTP/2"));
            }
            self.preface += length;
            *input = &input[length..];
        }
        Ok(())
    }

    /// The peer's SETTINGS have come.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether the peer has greeted us.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }
}
