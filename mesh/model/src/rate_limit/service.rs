//! `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`: what is asked, and what the answer means. Pure.

use std::time::Duration;

use http::HeaderMap;
use mesh_proto::rate_limit as pb;
use pb::rate_limit_descriptor::Entry;
use pb::rate_limit_response::Code;
use prost::Message;
use prost::bytes::Bytes;

use super::{About, GlobalRateLimit};
use crate::authorizer::verdict::{Edit, header_of};

/// The method that is called.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The request passes.
    Pass {
        /// Headers that it gets.
        request: Vec<Edit>,
        /// Headers that its answer gets.
        answer: Vec<Edit>,
    },
    /// It is over a limit.
    Over {
        /// Headers of the answer.
        headers: HeaderMap,
        /// Its body; empty is the waypoint's usual one.
        body: Bytes,
        /// When it may be tried again, if the service says so.
        again: Option<Duration>,
    },
}

/// The message that is sent. None where the request has nothing to be counted by: as in Envoy, nobody is asked then.
pub fn request(limit: &GlobalRateLimit, about: &About<'_>) -> Option<Bytes> {
    let entry = |entry: &super::Entry| {
        let value = entry.value.of(about).filter(|value| !value.is_empty())?.into_owned();
        Some(Entry { key: entry.key.to_string(), value })
    };
    let descriptor = |entries: &Vec<super::Entry>| {
        let entries = entries.iter().map(entry).collect::<Option<Vec<_>>>()?;
        Some(pb::RateLimitDescriptor { entries })
    };
    let descriptors: Vec<_> = limit.descriptors.iter().filter_map(descriptor).collect();
    let request = pb::RateLimitRequest { domain: limit.domain.to_string(), descriptors, hits_addend: 0 };
    (!request.descriptors.is_empty()).then(|| request.encode_to_vec().into())
}

/// What an answer means. None when it is none.
pub fn answer(bytes: Bytes) -> Option<Verdict> {
    let answer = pb::RateLimitResponse::decode(bytes).ok()?;
    let edits = |list: &[pb::HeaderValue]| list.iter().filter_map(edit).collect::<Vec<_>>();
    let told = edits(&answer.response_headers_to_add);
    Some(match answer.overall_code() {
        Code::Unknown => return None,
        Code::Ok => Verdict::Pass { request: edits(&answer.request_headers_to_add), answer: told },
        Code::OverLimit => {
            let mut headers = HeaderMap::new();
            told.iter().for_each(|edit| edit.apply(&mut headers));
            // The longest of those that refuse.
            let refuse = answer.statuses.iter().filter(|status| status.code() == Code::OverLimit);
            let times = refuse.filter_map(|status| Duration::try_from(status.duration_until_reset?).ok());
            Verdict::Over { headers, body: answer.raw_body, again: times.max() }
        }
    })
}

/// Besides what there is, as in Envoy.
fn edit(header: &pb::HeaderValue) -> Option<Edit> {
    let raw = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    header_of(&header.key, raw).map(|(name, value)| Edit::Add(name, value))
}
