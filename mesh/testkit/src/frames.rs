//! HTTP/2 frames written by hand (RFC 9113 4 to 6), and header fields (RFC 7541): for peers that say what no library would.

/// What a client says first of all.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame type (RFC 9113 6.1).
pub const DATA: u8 = 0;
/// Frame type (RFC 9113 6.2).
pub const HEADERS: u8 = 1;
/// Frame type (RFC 9113 6.3).
pub const PRIORITY: u8 = 2;
/// Frame type (RFC 9113 6.4).
pub const RST_STREAM: u8 = 3;
/// Frame type (RFC 9113 6.5).
pub const SETTINGS: u8 = 4;
/// Frame type (RFC 9113 6.6).
pub const PUSH_PROMISE: u8 = 5;
/// Frame type (RFC 9113 6.7).
pub const PING: u8 = 6;
/// Frame type (RFC 9113 6.8).
pub const GOAWAY: u8 = 7;
/// Frame type (RFC 9113 6.9).
pub const WINDOW_UPDATE: u8 = 8;
/// Frame type (RFC 9113 6.10).
pub const CONTINUATION: u8 = 9;

/// A flag of a frame.
pub const END_STREAM: u8 = 1;
/// A flag of a frame.
pub const ACK: u8 = 1;
/// A flag of a frame.
pub const END_HEADERS: u8 = 4;
/// A flag of a frame.
pub const PADDED: u8 = 8;

/// A frame (RFC 9113 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame has at most 24 bits of payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What a client says first.
pub fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A field that is not indexed (RFC 7541 6.2.2): a name shorter than 127 bytes, a value of any length below 16,511.
pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    match value.len().checked_sub(127) {
        None => field.push(value.len() as u8),
        Some(more) => field.extend_from_slice(&[127, more as u8 | 0x80, (more >> 7) as u8]),
    }
    field.extend_from_slice(value);
    field
}
