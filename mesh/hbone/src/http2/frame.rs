//! Frames (RFC 9113, section 4): cut out of a stream of bytes that arrives in pieces, and written.
//!
//! DATA is handed over as it arrives, whatever the length of its frame, so it is never held back or copied; all
//! other frames are handed over whole.

use std::borrow::Cow;

use super::kept::Kept;
use super::{Code, ConnectionError};

/// Bytes before each frame's payload.
pub(crate) const HEADER: usize = 9;
/// Longest payload of a frame other than DATA: header blocks, and nothing else, get near it.
pub(crate) const MAX_CONTROL: usize = 64 << 10;

/// Frame types (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Frame flags (section 6).
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
}

/// A frame's first nine bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Self {
        Self {
            length: usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]),
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & 0x7fff_ffff,
        }
    }

    /// As it is sent.
    pub(crate) fn bytes(self) -> [u8; HEADER] {
        let (length, stream) = ((self.length as u32).to_be_bytes(), self.stream.to_be_bytes());
        [length[1], length[2], length[3], self.kind, self.flags, stream[0], stream[1], stream[2], stream[3]]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What was cut out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Some of a DATA frame.
    Data {
        stream: u32,
        payload: &'a [u8],
        /// What the piece takes of the flow-control windows: its payload, and any padding.
        counted: usize,
        /// The last piece of its frame: none at all is left.
        whole: bool,
        /// The last piece of the last frame.
        end: bool,
    },
    /// A whole frame of another type.
    Frame { header: Header, payload: Cow<'a, [u8]> },
}

/// Cuts one connection's bytes into frames.
#[derive(Default)]
pub(crate) struct Parser {
    /// A header, or a frame that is handed over whole, of which some has arrived.
    partial: Kept,
    /// The DATA frame in the middle of which we are.
    data: Option<Data>,
}

/// What of a DATA frame is still to come.
#[derive(Debug, Clone, Copy)]
struct Data {
    header: Header,
    /// Payload bytes to come.
    payload: usize,
    /// Padding bytes to come, after the payload.
    padding: usize,
    /// The length of the padding is to come.
    padding_length: bool,
}

impl Parser {
    /// When a frame that is handed over whole began to arrive, of which the rest is missing. DATA is never waited for.
    pub(crate) fn unfinished(&self) -> Option<tokio::time::Instant> {
        self.partial.since().filter(|_| self.partial.len() >= HEADER)
    }

    /// What the beginnings of frames take up.
    pub(crate) fn held(&self) -> usize {
        self.partial.held()
    }

    /// Cuts the next piece off `input`. `None` when it is used up.
    ///
    /// # Errors
    /// A frame longer than `max_frame`, or one that is no DATA and longer than [`MAX_CONTROL`]; padding longer than its
    /// frame.
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        max_frame: usize,
    ) -> Result<Option<Piece<'a>>, ConnectionError> {
        if let Some(data) = self.data {
            return self.data(data, input);
        }
        // The common case first: a frame's header lies whole in the input.
        let kept = !self.partial.is_empty();
        if kept {
            let missing = HEADER.saturating_sub(self.partial.len()).min(input.len());
            self.take(input, missing);
        }
        let header = match if kept { self.partial.first_chunk() } else { input.first_chunk() } {
            Some(bytes) => Header::parse(bytes),
            None => return Ok(self.keep(input)),
        };
        if header.length > max_frame {
            return Err(ConnectionError::new(Code::FrameSize, "frame longer than SETTINGS_MAX_FRAME_SIZE"));
        }
        if header.kind == kind::DATA {
            if kept {
                self.partial.take();
            } else {
                *input = &input[HEADER..];
            }
            let padding_length = header.has(flag::PADDED);
            let data = Data { header, payload: header.length, padding: 0, padding_length };
            return self.data(data, input);
        }
        if header.length > MAX_CONTROL {
            return Err(ConnectionError::new(Code::EnhanceYourCalm, "frame longer than any we take"));
        }
        let whole = HEADER + header.length;
        if !kept {
            let Some((frame, rest)) = input.split_at_checked(whole) else { return Ok(self.keep(input)) };
            *input = rest;
            return Ok(Some(Piece::Frame { header, payload: Cow::Borrowed(&frame[HEADER..]) }));
        }
        let missing = (whole - self.partial.len()).min(input.len());
        self.take(input, missing);
        if self.partial.len() < whole {
            return Ok(None);
        }
        let mut frame = self.partial.take();
        frame.drain(..HEADER);
        Ok(Some(Piece::Frame { header, payload: Cow::Owned(frame) }))
    }

    fn keep(&mut self, input: &mut &[u8]) -> Option<Piece<'static>> {
        self.take(input, input.len());
        None
    }

    fn take(&mut self, input: &mut &[u8], bytes: usize) {
        let (taken, rest) = input.split_at(bytes);
        self.partial.add(taken);
        *input = rest;
    }

    fn data<'a>(&mut self, mut data: Data, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ConnectionError> {
        let mut counted = 0;
        if data.padding_length {
            if data.header.length == 0 {
                return Err(ConnectionError::new(Code::FrameSize, "padded frame without the length of its padding"));
            }
            let Some((length, rest)) = input.split_first() else {
                self.data = Some(data);
                return Ok(None);
            };
            *input = rest;
            data.padding = usize::from(*length);
            data.payload = data
                .payload
                .checked_sub(1 + data.padding)
                .ok_or(ConnectionError::new(Code::Protocol, "padding longer than its frame"))?;
            data.padding_length = false;
            counted = 1;
        }
        let (payload, rest) = input.split_at(data.payload.min(input.len()));
        data.payload -= payload.len();
        let padding = if data.payload == 0 { data.padding.min(rest.len()) } else { 0 };
        data.padding -= padding;
        *input = &rest[padding..];
        counted += payload.len() + padding;
        let whole = data.payload == 0 && data.padding == 0;
        self.data = (!whole).then_some(data);
        if counted == 0 && !whole {
            return Ok(None);
        }
        let end = whole && data.header.has(flag::END_STREAM);
        Ok(Some(Piece::Data { stream: data.header.stream, payload, counted, whole, end }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Header { length: payload.len(), kind, flags, stream }.bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// All pieces of `input`, fed in portions of `portion` bytes, with neighbouring data of a stream joined.
    fn cut(input: &[u8], portion: usize) -> Result<Vec<String>, ConnectionError> {
        let mut parser = Parser::default();
        let (mut seen, mut data) = (Vec::new(), Vec::new());
        let mut total = 0;
        for mut input in input.chunks(portion) {
            while let Some(piece) = parser.next(&mut input, 20_000)? {
                match piece {
                    Piece::Data { stream, payload, counted, whole, end } => {
                        data.extend_from_slice(payload);
                        total += counted;
                        if whole {
                            seen.push(format!("{stream}: {} of {total} {end}", String::from_utf8_lossy(&data)));
                            (data, total) = (Vec::new(), 0);
                        }
                    }
                    Piece::Frame { header, payload } => {
                        seen.push(format!("{} {} {} {}", header.kind, header.flags, header.stream, payload.len()));
                    }
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn frames_are_the_same_however_they_arrive() {
        let mut input = frame(kind::SETTINGS, 0, 0, &[0; 12]);
        input.extend(frame(kind::DATA, 0, 1, b"hello"));
        input.extend(frame(kind::DATA, flag::PADDED, 3, b"\x03abc\0\0\0"));
        input.extend(frame(kind::DATA, flag::PADDED | flag::END_STREAM, 3, b"\x00z"));
        input.extend(frame(kind::PING, flag::ACK, 0, &[7; 8]));
        input.extend(frame(kind::DATA, flag::END_STREAM, 1, b""));
        input.extend(frame(0xfa, 9, 5, b""));
        let expected = [
            "4 0 0 12",
            "1: hello of 5 false",
            "3: abc of 7 false",
            "3: z of 2 true",
            "6 1 0 8",
            "1:  of 0 true",
            "250 9 5 0",
        ];
        for portion in 1..input.len() + 1 {
            assert_eq!(cut(&input, portion).unwrap(), expected, "in portions of {portion}");
        }
    }

    #[test]
    fn broken_frames_end_the_connection() {
        for (name, input, expected) in [
            ("too long", frame(kind::DATA, 0, 1, &[0; 20_001]), Code::FrameSize),
            ("padding over its frame", frame(kind::DATA, flag::PADDED, 1, b"\x02a"), Code::Protocol),
            ("padding without its length", frame(kind::DATA, flag::PADDED, 1, b""), Code::FrameSize),
        ] {
            for portion in [1, 7, 65_536] {
                assert_eq!(cut(&input, portion).unwrap_err().code, expected, "{name}");
            }
        }
    }
}
