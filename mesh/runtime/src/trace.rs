//! Trace context: the `traceparent` of a connection, as W3C Trace Context writes it.
//!
//! `00-<32 hex trace id>-<16 hex parent id>-<2 hex flags>`, always 55 characters. HBONE carries it with the CONNECT, and both
//! ends show it in their access logs: the one that makes it, and the one that reads it.

use std::fmt;

/// Which trace a connection belongs to, and the step in it that led here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// The length of every `traceparent` of version 00.
pub const LENGTH: usize = 55;

impl TraceParent {
    /// A new trace from 24 random bytes, not sampled. Ids of zero mean "none" on the wire, so they are nudged to one.
    pub fn from_random(random: [u8; 24]) -> Self {
        let [trace_high, trace_low, parent] =
            [0, 8, 16].map(|at| u64::from_be_bytes(std::array::from_fn(|i| random[at + i])));
        Self {
            trace_id: (u128::from(trace_high) << 64 | u128::from(trace_low)).max(1),
            parent_id: parent.max(1),
            flags: 0,
        }
    }

    /// A new trace with fresh random ids.
    pub fn random() -> Self {
        Self::from_random(rand::random())
    }

    /// What the header says, if it is version 00 and well formed: lower-case hex, ids not zero.
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        if bytes.len() != LENGTH || !header.starts_with("00-") || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        let trace_id = lower_hex(&bytes[3..35])?;
        let parent_id = lower_hex(&bytes[36..52])?;
        let flags = lower_hex(&bytes[53..55])?;
        (trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id,
            parent_id: u64::try_from(parent_id).ok()?,
            flags: u8::try_from(flags).ok()?,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(nibble))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn parses_and_prints_the_same() {
        assert_eq!(TraceParent::parse(EXAMPLE).unwrap().to_string(), EXAMPLE);
    }

    #[test]
    fn refuses_what_is_malformed() {
        let cases = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
        ];
        for header in cases {
            assert_eq!(TraceParent::parse(header), None, "{header:?}");
        }
    }

    #[test]
    fn new_ones_are_well_formed() {
        for random in [[0u8; 24], [0xff; 24], std::array::from_fn(|i| i as u8)] {
            let made = TraceParent::from_random(random);
            let text = made.to_string();
            assert_eq!(text.len(), LENGTH);
            assert_eq!(TraceParent::parse(&text), Some(made), "{text}");
        }
        assert_eq!(
            TraceParent::from_random(std::array::from_fn(|i| i as u8)).to_string(),
            "00-000102030405060708090a0b0c0d0e0f-1011121314151617-00"
        );
    }
}
