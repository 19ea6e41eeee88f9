//! gRPC, as far as a proxy has to tell it from other HTTP.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// It is a gRPC call, whose caller expects its errors in gRPC's words.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let is = |value: &HeaderValue| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
    };
    headers.get(CONTENT_TYPE).is_some_and(is)
}
