//! Which trace a request belongs to, and what the next hop is told of it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::b3::{self, Decision, Ids};
use super::{EVERY_TRACE, Tracing, w3c};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its id.
    pub trace_id: u128,
    /// The step that led here, if the caller has said one.
    pub parent: Option<u64>,
    /// It is sampled: whoever can, reports its part.
    pub sampled: bool,
    /// Whoever began it has drawn its id by chance.
    random: bool,
    /// `b3: d`.
    debug: bool,
    /// Its id is written as 64 bits where B3 is.
    short: bool,
    /// How the request says it, and so how the next hop is told.
    formats: Formats,
    /// It has a `tracestate` that is passed on.
    state: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Formats {
    w3c: bool,
    single: bool,
    multi: bool,
}

impl Context {
    /// What the headers of a request say: `traceparent` first, then `b3`, then `x-b3-*`. What is malformed counts as not there. A request
    /// that says nothing begins a trace with the id that `new` draws; whether that is sampled, `tracing` says. So it does of a trace
    /// whose caller has left that open; whatever else the caller has decided stays as it is.
    pub fn begin(headers: &HeaderMap, tracing: &Tracing, new: impl FnOnce() -> u128) -> Self {
        let (parent, single, multi) = (w3c::parent(headers), b3::single(headers), b3::multi(headers));
        let formats = Formats { w3c: parent.is_some(), single: single.is_some(), multi: multi.is_some() };
        let told = single.filter(|told| told.ids.is_some()).or(multi).or(single);
        if let Some(parent) = parent {
            return Self {
                trace_id: parent.trace_id,
                parent: Some(parent.span),
                sampled: parent.sampled,
                random: parent.random,
                debug: parent.sampled && told.is_some_and(|told| told.decision == Some(Decision::Debug)),
                short: false,
                formats,
                state: headers.contains_key(w3c::TRACESTATE) && w3c::is_valid_state(headers),
            };
        }
        let (ids, decision) = told.map_or((None, None), |told| (told.ids, told.decision));
        // An id of zeros means "none".
        let trace_id = ids.map_or_else(|| new().max(1), |ids| ids.trace_id);
        Self {
            trace_id,
            parent: ids.map(|ids| ids.span),
            sampled: decision.map_or_else(|| is_sampled(trace_id, tracing.sampling), Decision::sampled),
            random: ids.is_none(),
            debug: decision == Some(Decision::Debug),
            short: ids.is_some_and(|ids| ids.short),
            // Who says nothing is told in the standard's way.
            formats: Formats { w3c: told.is_none(), ..formats },
            state: false,
        }
    }

    /// Tells the next hop, in the ways in which the request has told it, that `span` leads to it, and `before` to that if the waypoint
    /// reports both. Whatever else the request says of traces is taken away.
    pub fn write(&self, headers: &mut HeaderMap, span: u64, before: Option<u64>) {
        let own = [w3c::TRACEPARENT, b3::SINGLE, b3::TRACE_ID, b3::SPAN_ID, b3::PARENT_SPAN_ID, b3::SAMPLED, b3::FLAGS];
        own.iter().for_each(|name| drop(headers.remove(name)));
        if !self.state {
            headers.remove(w3c::TRACESTATE);
        }
        let Self { trace_id, sampled, random, .. } = *self;
        if self.formats.w3c
            && let Some(value) = w3c::written(&w3c::Parent { trace_id, span, sampled, random })
        {
            headers.insert(w3c::TRACEPARENT, value);
        }
        let decision = match (sampled, self.debug) {
            (true, true) => Decision::Debug,
            (true, false) => Decision::Accept,
            (false, _) => Decision::Deny,
        };
        let written = b3::Written { ids: Ids { trace_id, span, short: self.short }, decision, parent: before };
        if self.formats.single {
            written.single(headers);
        }
        if self.formats.multi {
            written.multi(headers);
        }
    }

    /// The flags of W3C's trace context.
    pub fn flags(&self) -> u8 {
        u8::from(self.sampled) | u8::from(self.random) << 1
    }
}

/// Whether a trace is among the `sampling` of 10,000 that are sampled. All who are asked agree, since nothing but the id decides: its
/// last 56 bits, as OpenTelemetry's probability sampling has it.
pub fn is_sampled(trace_id: u128, sampling: u16) -> bool {
    const ALL: u128 = 1 << 56;
    let none = EVERY_TRACE.saturating_sub(sampling);
    trace_id % ALL >= ALL * u128::from(none) / u128::from(EVERY_TRACE)
}

/// Gives the request an `x-request-id` if it has none: a UUID of version 4, of these random bits. What it has stays.
pub fn request_id(headers: &mut HeaderMap, random: u128) {
    if headers.get(REQUEST_ID).is_some_and(|id| !id.is_empty()) {
        return;
    }
    let id = random & !(0xf << 76 | 0x3 << 62) | 4 << 76 | 2 << 62;
    let digits = format!("{id:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    if let Ok(value) = HeaderValue::try_from(parts.join("-")) {
        headers.insert(REQUEST_ID, value);
    }
}
