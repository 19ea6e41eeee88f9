//! What load and servers say to each other. Proxies below HTTP must not change a byte of it, so both ends know all bytes.

/// Takes a stream, counts it, and answers with the count (u64, little endian) once the stream has ended.
pub(crate) const BULK_PORT: u16 = 5001;
/// Sends every byte back.
pub(crate) const ECHO_PORT: u16 = 7000;
/// Accepts connections, reads nothing, and closes them after a time.
pub(crate) const SINK_PORT: u16 = 7001;
/// HTTP/1.1.
pub(crate) const HTTP_PORT: u16 = 8080;
/// HTTP/1.1 of the application that is attacked through a waypoint.
pub(crate) const WEB_PORT: u16 = 8081;

/// A request after which the connection stays open.
pub(crate) const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: server\r\nUser-Agent: perf\r\nAccept: */*\r\n\r\n";
/// A request after which the server closes.
pub(crate) const LAST_REQUEST: &[u8] =
    b"GET /hello HTTP/1.1\r\nHost: server\r\nUser-Agent: perf\r\nAccept: */*\r\nConnection: close\r\n\r\n";
/// The answer to [`REQUEST`].
pub(crate) const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 32\r\n\r\nhello from the other side of it\n";
/// The answer to [`LAST_REQUEST`].
pub(crate) const LAST_RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 32\r\nConnection: close\r\n\r\nhello from the other side of it\n";

/// Longest request a server reads before it gives up on the client, in bytes.
pub(crate) const LONGEST_REQUEST: usize = 4096;

/// A request found at the beginning of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its length in bytes.
    pub(crate) length: usize,
    /// The client wants the connection closed after the answer.
    pub(crate) last: bool,
}

/// The first whole request in `bytes`, if there is one.
pub(crate) fn request(bytes: &[u8]) -> Option<Request> {
    const END: &[u8] = b"\r\n\r\n";
    let length = bytes.windows(END.len()).position(|w| w == END)? + END.len();
    let last = bytes[..length].split(|b| *b == b'\n').any(|line| line.eq_ignore_ascii_case(b"connection: close\r"));
    Some(Request { length, last })
}

/// A response found at the beginning of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its length in bytes.
    pub(crate) length: usize,
    pub(crate) status: u16,
}

/// The first whole response in `bytes`, if there is one, of those that say how long they are.
pub(crate) fn response(bytes: &[u8]) -> Option<Response> {
    const END: &[u8] = b"\r\n\r\n";
    let head = bytes.windows(END.len()).position(|w| w == END)?;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body = content_length(text).unwrap_or(0);
    let length = head + END.len() + body;
    (length <= bytes.len()).then_some(Response { length, status })
}

/// What a head says of the length of the body after it.
pub(crate) fn content_length(head: &str) -> Option<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found() {
        let two = [REQUEST, LAST_REQUEST].concat();
        for (bytes, expected) in [
            (&two[..], Some(Request { length: REQUEST.len(), last: false })),
            (LAST_REQUEST, Some(Request { length: LAST_REQUEST.len(), last: true })),
            (&REQUEST[..REQUEST.len() - 1], None),
            (b"", None),
        ] {
            assert_eq!(request(bytes), expected);
        }
    }

    #[test]
    fn responses_are_found() {
        let length = RESPONSE.len();
        for (bytes, expected) in [
            ([RESPONSE, RESPONSE].concat(), Some(Response { length, status: 200 })),
            (RESPONSE[..length - 1].to_vec(), None),
            (b"HTTP/1.1 401 Unauthorized\r\n\r\nmore".to_vec(), Some(Response { length: 29, status: 401 })),
            (b"HTTP/1.1 200 OK\r\n".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(response(&bytes), expected, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn responses_are_http() {
        for response in [RESPONSE, LAST_RESPONSE] {
            let text = std::str::from_utf8(response).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}: {}", body.len());
        }
    }
}
