//! W3C Trace Context: `traceparent` and `tracestate` (its level 2).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::read;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of all `tracestate` headers together. The specification asks for 512 at least.
const MOST_STATE: usize = 4096;
/// Members of a list, as the specification has it.
const MOST_MEMBERS: usize = 32;

/// The flags that have a meaning; all others are sent as zeros.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace_id: u128,
    pub(super) span: u64,
    pub(super) sampled: bool,
    /// Whoever began the trace has drawn the last 56 bits of its id by chance.
    pub(super) random: bool,
}

/// What the one `traceparent` says: of version 00 exactly as long as that is, of a later one as much as this version knows.
pub(super) fn parent(headers: &HeaderMap) -> Option<Parent> {
    let text = read::only(headers, &TRACEPARENT)?;
    let (known, more) = text.split_at_checked(55)?;
    let [version @ .., b'-'] = known.get(..3)? else { return None };
    match (read::number(version, 2)?, more) {
        (0xff, _) => return None,
        (0, more) if !more.is_empty() => return None,
        (_, [first, ..]) if *first != b'-' => return None,
        _ => {}
    }
    if known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let flags = u8::try_from(read::number(&known[53..], 2)?).ok()?;
    Some(Parent {
        trace_id: read::id(&known[3..35], 32)?,
        span: read::span(&known[36..52])?,
        sampled: flags & SAMPLED != 0,
        random: flags & RANDOM != 0,
    })
}

/// The `traceparent` of a parent.
pub(super) fn written(parent: &Parent) -> Option<HeaderValue> {
    let flags = (u8::from(parent.sampled) * SAMPLED) | (u8::from(parent.random) * RANDOM);
    HeaderValue::try_from(format!("00-{:032x}-{:016x}-{flags:02x}", parent.trace_id, parent.span)).ok()
}

/// Whether the `tracestate` of a request is one: nobody is sent one that is not.
pub(super) fn is_valid_state(headers: &HeaderMap) -> bool {
    let (mut bytes, mut members) = (0, 0);
    headers.get_all(&TRACESTATE).iter().all(|line| {
        bytes += line.len();
        bytes <= MOST_STATE
            && line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty()).all(
                |one| {
                    members += 1;
                    members <= MOST_MEMBERS && is_member(one)
                },
            )
    })
}

fn is_member(text: &[u8]) -> bool {
    let Some(at) = text.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&text[..at], &text[at + 1..]);
    let of_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= 256
        && key.first().is_some_and(begins)
        && key.iter().all(of_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=')
}
