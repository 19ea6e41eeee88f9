//! What a netlink message looks like: a header, a fixed part that depends on the kind, and attributes, each padded to four
//! bytes (`linux/netlink.h`). Numbers are in the machine's order unless an attribute says otherwise.

use std::net::IpAddr;

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 16;
/// The attribute holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its number.
const TYPE_MASK: u16 = 0x3fff;

/// A message that is being written. Its length and its sequence number are set by whoever sends it.
#[derive(Debug, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A message of a kind (`nlmsg_type`), with flags (`NLM_F_*`) beside `NLM_F_REQUEST`, and its fixed part.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("netlink flags have 16 bits");
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    /// With one more attribute.
    pub(crate) fn with(mut self, kind: u16, value: impl AsRef<[u8]>) -> Self {
        put(&mut self.0, kind, value.as_ref());
        self
    }

    /// With an attribute that holds attributes.
    pub(crate) fn nest(mut self, kind: u16, inner: Attributes) -> Self {
        put(&mut self.0, kind | NESTED, &inner.0);
        self
    }

    /// With more flags.
    pub(crate) fn flagged(mut self, more: i32) -> Self {
        let more = u16::try_from(more).expect("netlink flags have 16 bits");
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | more;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// The bytes to send under a sequence number.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).expect("a message of ours is short");
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0
    }
}

/// Attributes that are being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Attributes after a fixed part, as `VETH_INFO_PEER` holds them.
    pub(crate) fn after(fixed: &[u8]) -> Self {
        Self(fixed.to_vec())
    }

    /// With one more.
    pub(crate) fn with(mut self, kind: u16, value: impl AsRef<[u8]>) -> Self {
        put(&mut self.0, kind, value.as_ref());
        self
    }

    /// With one that holds attributes.
    pub(crate) fn nest(mut self, kind: u16, inner: Self) -> Self {
        put(&mut self.0, kind | NESTED, &inner.0);
        self
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).expect("an attribute is shorter than 64 KiB");
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A text with the end that C gives it.
pub(crate) fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// An address as packets and attributes have it.
pub(crate) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The attributes in these bytes, as (number, value). Ends at the first that cannot be one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this number.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A number in the machine's order.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// A number in the network's order, as nftables' own attributes have it.
pub(crate) fn be_number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A text, up to the end that C gave it.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

/// A message that came: its kind, its flags, its sequence number, and what follows the header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in a datagram. Ends at the first that cannot be one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let field = |from: usize, to: usize| bytes.get(from..to);
        let len = usize::try_from(number(field(0, 4)?)?).ok()?;
        let message = Received {
            kind: u16::from_ne_bytes(field(4, 6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(field(6, 8)?.try_into().ok()?),
            sequence: number(field(8, 12)?)?,
            body: bytes.get(HEADER..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::new().with(1, c_string("veth")).with(2, [1, 2, 3]);
        let bytes = Message::new(16, libc::NLM_F_ACK, &[7; 16]).with(3, c_string("eth0")).nest(18, inner).finish(9);
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        let message = all[0];
        assert_eq!((message.kind, message.sequence), (16, 9));
        assert_eq!(i32::from(message.flags), libc::NLM_F_ACK | libc::NLM_F_REQUEST);
        let (fixed, rest) = message.body.split_at(16);
        assert_eq!(fixed, [7; 16]);
        assert_eq!(attribute(rest, 3).and_then(text), Some("eth0"));
        let nested = attribute(rest, 18).unwrap();
        assert_eq!(attributes(nested).collect::<Vec<_>>(), [(1, &b"veth\0"[..]), (2, &[1, 2, 3][..])]);
    }

    /// The kernel is trusted; a fault here must still be an error and not an endless loop or a panic.
    #[test]
    fn what_is_cut_off_ends() {
        let bytes = Message::new(16, 0, &[0; 16]).with(3, c_string("eth0")).finish(1);
        for end in 0..bytes.len() {
            assert!(messages(&bytes[..end]).next().is_none(), "{end}");
        }
        for end in 1..9 {
            assert!(attributes(&bytes[32..32 + end]).next().is_none(), "{end}");
        }
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 0, 0]).count(), 0, "a length below its own header");
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
