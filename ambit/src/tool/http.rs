//! An HTTP/1.1 answer as the tools read it: everything that came until the connection was closed.
use anyhow::{Context, Result, bail};
use std::borrow::Cow;

/// What came, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The three digits.
    pub status: Cow<'a, str>,
    /// The body without the frames of its chunks, as far as it came.
    pub body: Cow<'a, [u8]>,
    /// The body came to its end. A server that is killed between head and body closes the connection, too.
    pub whole: bool,
}

/// Takes apart what came.
///
/// # Errors
/// There is no whole head.
pub(super) fn read(came: &[u8]) -> Result<Answer<'_>> {
    let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("the connection was closed without an answer");
    };
    let head = String::from_utf8_lossy(&came[..end]).to_ascii_lowercase();
    let rest = &came[end + 4..];
    let status = came[..end].split(|b| *b == b' ').nth(1).context("the answer has no status")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let (body, whole) = if head.contains("\r\ntransfer-encoding: chunked") {
        let (body, whole) = unchunked(rest);
        (Cow::Owned(body), whole)
    } else {
        let whole = length.is_none_or(|length| length.trim().parse() == Ok(rest.len()));
        (Cow::Borrowed(rest), whole)
    };
    Ok(Answer { status: String::from_utf8_lossy(status), body, whole })
}

/// A body without the frames of its chunks (RFC 9112, 7.1), as far as it came, and whether its last chunk did.
fn unchunked(mut chunks: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&chunks[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else { break };
        if size == 0 {
            return (body, true);
        }
        let chunk = &chunks[end + 2..];
        body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        chunks = chunk.get(size.saturating_add(2)..).unwrap_or_default();
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use super::{read, unchunked};

    #[test]
    fn an_answer_is_whole_or_said_to_be_cut() {
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (head, rest, body, whole) in [
            (length, "bob\n", "bob\n", true),
            (length, "bob", "bob", false),
            // The server was killed after it had written the head.
            (length, "", "", false),
            (chunked, "3\r\nabc\r\n0\r\n\r\n", "abc", true),
            (chunked, "3\r\nabc\r\n", "abc", false),
            (chunked, "", "", false),
            ("HTTP/1.0 200 OK\r\nServer: old\r\n\r\n", "to the end", "to the end", true),
        ] {
            let came = format!("{head}{rest}");
            let answer = read(came.as_bytes()).unwrap();
            assert_eq!((&*answer.status, &*answer.body, answer.whole), ("200", body.as_bytes(), whole), "{came:?}");
        }
        for none in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1\r\n\r\n"] {
            assert!(read(none.as_bytes()).is_err(), "{none:?}");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        for (chunks, body, whole) in [
            ("0\r\n\r\n", "", true),
            ("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "abc0123456789", true),
            ("ff\r\ncut off", "cut off", false),
            ("3\r\nabc", "abc", false),
            ("ffffffffffffffff\r\nabc", "abc", false),
            ("no size\r\nabc\r\n", "", false),
            ("", "", false),
        ] {
            assert_eq!(unchunked(chunks.as_bytes()), (body.as_bytes().to_vec(), whole), "{chunks:?}");
        }
    }
}
