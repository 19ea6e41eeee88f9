//! Header blocks of requests and responses: fields of a decoded block, and blocks of ours.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::hpack::{self, known};

/// What a header block says.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) method: Option<Method>,
    pub(crate) authority: Option<String>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) headers: HeaderMap,
    /// It breaks the rules of RFC 9113 8.2 or 8.3, whatever it is: the stream is in error.
    pub(crate) malformed: bool,
    /// It has a pseudo-field: trailers have none.
    pub(crate) pseudo: bool,
    scheme: bool,
    path: bool,
    protocol: bool,
    regular: bool,
}

impl Head {
    /// Takes one field of the block.
    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        if let Some(pseudo) = name.strip_prefix(b":") {
            self.pseudo = true;
            // Pseudo-fields come first, and once.
            let fresh = !self.regular
                && match pseudo {
                    b"method" => put(&mut self.method, Method::from_bytes(value).ok()),
                    b"status" => put(&mut self.status, StatusCode::from_bytes(value).ok()),
                    b"authority" => put(&mut self.authority, std::str::from_utf8(value).ok().map(str::to_owned)),
                    // Of requests other than CONNECT, which are answered and not cut.
                    b"scheme" => !std::mem::replace(&mut self.scheme, true),
                    b"path" => !std::mem::replace(&mut self.path, true),
                    b"protocol" => !std::mem::replace(&mut self.protocol, true),
                    _ => false,
                };
            self.malformed |= !fresh;
            return;
        }
        self.regular = true;
        let connection_specific =
            matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade");
        // RFC 9113 8.2.2: the one thing that may still be said of the connection.
        let connection_specific = connection_specific || name == b"te" && value != b"trailers";
        let lower = !name.iter().any(u8::is_ascii_uppercase);
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if lower && !connection_specific => {
                self.headers.append(name, value);
            }
            _ => self.malformed = true,
        }
    }
}

impl Head {
    /// Whether it can be a request: a CONNECT names no scheme and no path (RFC 9113 8.5), and nobody was told that it might
    /// name a protocol (RFC 8441).
    pub(crate) fn is_request(&self) -> bool {
        let connect = self.method == Some(Method::CONNECT);
        !self.malformed && self.status.is_none() && !(connect && (self.scheme || self.path || self.protocol))
    }

    /// Whether it can be an answer: it has a status, and nothing of a request.
    pub(crate) fn is_response(&self) -> bool {
        let asks = self.method.is_some() || self.authority.is_some() || self.scheme || self.path || self.protocol;
        !self.malformed && self.status.is_some() && !asks
    }
}

/// Fills an empty place; false when it was not empty or there is nothing valid to put.
fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let fresh = place.is_none() && value.is_some();
    *place = value;
    fresh
}

/// The block of a request.
pub(crate) fn request(method: &Method, authority: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::with_capacity(512);
    hpack::encode_known(known::METHOD, method.as_str().as_bytes(), &mut block);
    hpack::encode_known(known::AUTHORITY, authority.as_bytes(), &mut block);
    fields(headers, &mut block);
    block
}

/// The block of a response.
pub(crate) fn response(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::with_capacity(256);
    match status {
        StatusCode::OK => hpack::encode_static(known::STATUS_200, &mut block),
        status => hpack::encode_known(known::STATUS, status.as_str().as_bytes(), &mut block),
    }
    fields(headers, &mut block);
    block
}

fn fields(headers: &HeaderMap, block: &mut Vec<u8>) {
    for (name, value) in headers {
        hpack::encode(name.as_str().as_bytes(), value.as_bytes(), block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            head.take(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn a_connect_reads_back() {
        let mut headers = HeaderMap::new();
        headers.insert("baggage", HeaderValue::from_static("k8s.namespace.name=shop"));
        let block = request(&Method::CONNECT, "10.0.0.1:80", &headers);
        let mut read = Head::default();
        hpack::Decoder::default().decode(&block, 4096, |n, v| read.take(n, v)).unwrap();
        assert!(!read.malformed);
        assert_eq!((read.method, read.authority.as_deref()), (Some(Method::CONNECT), Some("10.0.0.1:80")));
        assert_eq!(read.headers, headers);
        let mut answer = Head::default();
        let block = response(StatusCode::SERVICE_UNAVAILABLE, &headers);
        hpack::Decoder::default().decode(&block, 4096, |n, v| answer.take(n, v)).unwrap();
        assert_eq!((answer.status, answer.headers), (Some(StatusCode::SERVICE_UNAVAILABLE), headers));
    }

    #[test]
    fn malformed_heads_are_noticed() {
        for (fields, malformed) in [
            (&[(":method", "CONNECT"), (":authority", "a:1"), ("x", "y")][..], false),
            (&[(":method", "GET"), (":scheme", "http"), (":path", "/")], false),
            (&[("x", "y"), (":method", "CONNECT")], true),
            (&[(":method", "CONNECT"), (":method", "GET")], true),
            (&[(":method", "CON NECT")], true),
            (&[(":status", "2000")], true),
            (&[(":nonsense", "1")], true),
            (&[("Upper", "case")], true),
            (&[("x", "a\r\nb")], true),
            (&[("", "nameless")], true),
            (&[("transfer-encoding", "chunked")], true),
        ] {
            assert_eq!(head(fields).malformed, malformed, "{fields:?}");
        }
    }
}
