//! B3, in one header (`b3`) or in several (`x-b3-*`).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::read::{self, only};

pub(super) const SINGLE: HeaderName = HeaderName::from_static("b3");
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
pub(super) const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
pub(super) const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
pub(super) const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What B3 says: the step that led here, a decision, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ids: Option<Ids>,
    pub(super) decision: Option<Decision>,
}

/// A step of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace_id: u128,
    pub(super) span: u64,
    /// The id of the trace has 64 bits, and is written so.
    pub(super) short: bool,
}

/// Whether the trace is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Deny,
    Accept,
    /// It is, whatever anybody else would say.
    Debug,
}

impl Decision {
    pub(super) fn sampled(self) -> bool {
        self != Self::Deny
    }
}

/// What `b3` says.
pub(super) fn single(headers: &HeaderMap) -> Option<Told> {
    let text = only(headers, &SINGLE)?;
    let decision = |text: &[u8]| match text {
        b"0" => Some(Decision::Deny),
        b"1" => Some(Decision::Accept),
        b"d" => Some(Decision::Debug),
        _ => None,
    };
    if let Some(decision) = decision(text) {
        return Some(Told { ids: None, decision: Some(decision) });
    }
    let parts: Vec<&[u8]> = text.splitn(5, |byte| *byte == b'-').collect();
    let (ids, rest) = match parts[..] {
        [trace, span, ref rest @ ..] => (ids(trace, span)?, rest),
        _ => return None,
    };
    let decision = match rest {
        [] => None,
        [one] => Some(decision(one)?),
        [one, parent] => {
            read::span(parent)?;
            Some(decision(one)?)
        }
        _ => return None,
    };
    Some(Told { ids: Some(ids), decision })
}

/// What `x-b3-*` say.
pub(super) fn multi(headers: &HeaderMap) -> Option<Told> {
    let decision = match (headers.contains_key(FLAGS), headers.contains_key(SAMPLED)) {
        (true, _) if only(headers, &FLAGS)? == b"1" => Some(Decision::Debug),
        (_, true) => Some(match only(headers, &SAMPLED)? {
            b"0" | b"false" => Decision::Deny,
            b"1" | b"true" => Decision::Accept,
            _ => return None,
        }),
        _ => None,
    };
    let ids = match (headers.contains_key(TRACE_ID), headers.contains_key(SPAN_ID)) {
        (false, false) => None,
        _ => Some(ids(only(headers, &TRACE_ID)?, only(headers, &SPAN_ID)?)?),
    };
    (ids.is_some() || decision.is_some()).then_some(Told { ids, decision })
}

fn ids(trace: &[u8], span: &[u8]) -> Option<Ids> {
    let short = trace.len() == 16;
    Some(Ids { trace_id: read::id(trace, if short { 16 } else { 32 })?, span: read::span(span)?, short })
}

/// A step, as it is written.
pub(super) struct Written {
    pub(super) ids: Ids,
    pub(super) decision: Decision,
    /// The step before it.
    pub(super) parent: Option<u64>,
}

impl Written {
    fn trace(&self) -> String {
        match self.ids.short {
            true => format!("{:016x}", self.ids.trace_id),
            false => format!("{:032x}", self.ids.trace_id),
        }
    }

    pub(super) fn single(&self, headers: &mut HeaderMap) {
        let decision = match self.decision {
            Decision::Deny => '0',
            Decision::Accept => '1',
            Decision::Debug => 'd',
        };
        let mut text = format!("{}-{:016x}-{decision}", self.trace(), self.ids.span);
        if let Some(parent) = self.parent {
            text.push_str(&format!("-{parent:016x}"));
        }
        set(headers, SINGLE, text);
    }

    pub(super) fn multi(&self, headers: &mut HeaderMap) {
        set(headers, TRACE_ID, self.trace());
        set(headers, SPAN_ID, format!("{:016x}", self.ids.span));
        if let Some(parent) = self.parent {
            set(headers, PARENT_SPAN_ID, format!("{parent:016x}"));
        }
        // A debug flag says that it is sampled.
        match self.decision {
            Decision::Debug => headers.insert(FLAGS, HeaderValue::from_static("1")),
            Decision::Accept => headers.insert(SAMPLED, HeaderValue::from_static("1")),
            Decision::Deny => headers.insert(SAMPLED, HeaderValue::from_static("0")),
        };
    }
}

/// Hexadecimal digits are a header's value.
fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
