//! What must hold for whatever a request says of its trace.

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_model::trace::{Context, Tracing};

/// Lines of bytes, `NAME VALUE`, as headers: what is written for the next hop is well formed, whatever came, and belongs to the same
/// trace; a hop that begins with it says the same.
pub fn trace(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(20) {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (name, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let tracing =
        Tracing { provider: "a".into(), collector: None, sampling: 5_000, tags: Vec::new(), istio_tags: true };
    let first = Context::begin(&headers, &tracing, || 0x8000_0000_0000_0000);
    first.write(&mut headers, 2, Some(1));
    // Whoever comes next would draw another id, and samples nothing by itself.
    let next = Context::begin(&headers, &Tracing { sampling: 0, ..tracing }, || 9);
    assert_eq!((next.trace_id, next.parent, next.sampled), (first.trace_id, Some(2), first.sampled), "{headers:?}");
    assert_eq!(next.flags() & 1, first.flags() & 1);
    let mut again = headers.clone();
    next.write(&mut again, 2, Some(1));
    assert_eq!(again, headers, "it is written in the same way");
}
