//! SETTINGS (RFC 9113 6.5): what we say in ours, and what the peer has said in its.

use super::{Code, ConnectionError, DEFAULT_FRAME, DEFAULT_WINDOW, MAX_WINDOW, Role};
use crate::Settings;

/// Largest header list taken, in the bytes of RFC 9113 6.5.2: what upstream takes. Each request that waits for its
/// answer holds one.
pub(super) const MAX_LIST: usize = 16 << 10;

/// The name that RFC 9113 6.5.2 gives a setting.
mod setting {
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Bytes of one setting in a frame.
const ENTRY: usize = 6;

/// The payload of the SETTINGS with which a connection begins.
pub(super) fn greeting(role: Role, settings: &Settings) -> Vec<u8> {
    let of_the_role = match role {
        Role::Client => (setting::ENABLE_PUSH, 0),
        Role::Server => (setting::MAX_CONCURRENT_STREAMS, settings.server_streams),
    };
    let all = [
        of_the_role,
        (setting::INITIAL_WINDOW_SIZE, settings.stream_window),
        (setting::MAX_FRAME_SIZE, settings.frame_size),
        (setting::MAX_HEADER_LIST_SIZE, MAX_LIST as u32),
    ];
    all.into_iter().flat_map(|(name, value)| entry(name, value)).collect()
}

/// The payload of SETTINGS that change the window of every stream, open or to be opened, by what is between `bytes` and
/// the window said before.
pub(super) fn initial_window(bytes: u32) -> [u8; ENTRY] {
    entry(setting::INITIAL_WINDOW_SIZE, bytes)
}

fn entry(name: u16, value: u32) -> [u8; ENTRY] {
    let (name, value) = (name.to_be_bytes(), value.to_be_bytes());
    [name[0], name[1], value[0], value[1], value[2], value[3]]
}

/// Checks that a frame has whole settings.
///
/// # Errors
/// When it has not.
pub(super) fn whole(payload: &[u8]) -> Result<(), ConnectionError> {
    if payload.len().is_multiple_of(ENTRY) { Ok(()) } else { Err(WRONG_LENGTH) }
}

/// Why a connection ends whose peer sends SETTINGS that are no settings.
pub(super) const WRONG_LENGTH: ConnectionError = ConnectionError::new(Code::FrameSize, "SETTINGS of a wrong length");

/// What the peer has said of itself.
#[derive(Debug)]
pub(super) struct PeerSettings {
    initial_window: u32,
    frame_size: usize,
    streams: usize,
}

impl PeerSettings {
    /// What holds until the peer has spoken; it is taken to allow as many streams as we open anyway.
    pub(super) fn new(client_streams: usize) -> Self {
        Self { initial_window: DEFAULT_WINDOW, frame_size: DEFAULT_FRAME, streams: client_streams }
    }

    /// What it lets us send on a new stream, in bytes.
    pub(super) fn initial_window(&self) -> i64 {
        self.initial_window.into()
    }

    /// The largest payload of a frame that it takes, in bytes.
    pub(super) fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// The streams that it lets us have open at once.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    /// Takes the settings of one frame; `ours` is our role. What a new initial window changes of streams that are open is
    /// told to `change_windows`.
    pub(super) fn apply(
        &mut self,
        payload: &[u8],
        ours: Role,
        mut change_windows: impl FnMut(i64) -> Result<(), ConnectionError>,
    ) -> Result<(), ConnectionError> {
        for entry in payload.chunks_exact(ENTRY) {
            let name = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match name {
                // A server has nothing to push with, and says so (RFC 9113 6.5.2).
                setting::ENABLE_PUSH if value > u32::from(ours == Role::Server) => {
                    return Err(ConnectionError::new(Code::Protocol, "SETTINGS_ENABLE_PUSH out of range"));
                }
                setting::MAX_CONCURRENT_STREAMS => self.streams = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    if i64::from(value) > MAX_WINDOW {
                        return Err(ConnectionError::new(Code::FlowControl, "SETTINGS_INITIAL_WINDOW_SIZE too large"));
                    }
                    let change = i64::from(value) - self.initial_window();
                    self.initial_window = value;
                    change_windows(change)?;
                }
                setting::MAX_FRAME_SIZE => {
                    if !(DEFAULT_FRAME as u32..1 << 24).contains(&value) {
                        return Err(ConnectionError::new(Code::Protocol, "SETTINGS_MAX_FRAME_SIZE out of range"));
                    }
                    self.frame_size = value as usize;
                }
                // The table we encode with is empty whatever its size; the rest does not concern tunnels.
                _ => {}
            }
        }
        Ok(())
    }
}
