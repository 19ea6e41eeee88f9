//! The first bytes of a tunnel of which nobody has said what is spoken in it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// How long a client may take to say something. Who waits for the server to speak first speaks no HTTP.
const LIMIT: Duration = Duration::from_secs(2);
/// HTTP/2's first words (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a request line that are looked at: a method and what follows it.
const MOST: usize = 24;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
    /// Something else.
    Tcp,
}

/// Whether a stream that begins so is HTTP/2; `None` while it may still become it.
pub(crate) fn is_preface(first: &[u8]) -> Option<bool> {
    match first.len() >= PREFACE.len() {
        true => Some(first.starts_with(PREFACE)),
        false => (!PREFACE.starts_with(first)).then_some(false),
    }
}

/// What the first bytes say; `None` while they may still become several.
pub(crate) fn spoken(first: &[u8]) -> Option<Protocol> {
    match is_preface(first) {
        Some(true) => return Some(Protocol::Http2),
        Some(false) => {}
        None => return None,
    }
    // A method is a token of upper-case letters, and a space follows it (RFC 9110 9.1; others in lower case are not in use).
    match first.iter().position(|byte| !byte.is_ascii_uppercase() && *byte != b'-') {
        Some(0) => Some(Protocol::Tcp),
        Some(end) if first[end] == b' ' => match first.get(end + 1) {
            Some(b'/' | b'*' | b'h' | b'H') => Some(Protocol::Http1),
            Some(byte) if first[..end] == *b"CONNECT" && byte.is_ascii_alphanumeric() => Some(Protocol::Http1),
            Some(_) => Some(Protocol::Tcp),
            None => None,
        },
        Some(_) => Some(Protocol::Tcp),
        None if first.len() >= MOST => Some(Protocol::Tcp),
        None => None,
    }
}

/// A stream and what was read of it already.
pub(crate) struct Peeked<T> {
    first: Vec<u8>,
    read: usize,
    rest: T,
}

impl<T> Peeked<T> {
    /// Nothing was read of it.
    pub(crate) fn new(rest: T) -> Self {
        Self { first: Vec::new(), read: 0, rest }
    }

    /// `first` was read of it.
    pub(crate) fn after(first: Vec<u8>, rest: T) -> Self {
        Self { first, read: 0, rest }
    }

    /// What was read of it and not taken yet.
    pub(crate) fn first(&self) -> &[u8] {
        &self.first[self.read..]
    }
}

impl<T: AsyncRead + Unpin> Peeked<T> {
    /// Reads more of it, to be taken later. Gives how much: 0 at its end.
    ///
    /// # Errors
    /// When it breaks.
    pub(crate) async fn read_more(&mut self) -> io::Result<usize> {
        self.first.reserve(2048);
        self.rest.read_buf(&mut self.first).await
    }
}

/// Waits for the first bytes of `stream`, as many as it takes to tell.
///
/// # Errors
/// When it breaks.
pub(crate) async fn sniff<T: AsyncRead + Unpin>(mut stream: T) -> io::Result<(Protocol, Peeked<T>)> {
    let (deadline, mut first) = (Instant::now() + LIMIT, Vec::with_capacity(512));
    loop {
        let read = match timeout_at(deadline, stream.read_buf(&mut first)).await {
            Ok(read) => read?,
            Err(_) => 0,
        };
        let told = spoken(&first);
        if read == 0 || told.is_some() {
            return Ok((told.unwrap_or(Protocol::Tcp), Peeked::after(first, stream)));
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Peeked<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read == this.first.len() {
            return Pin::new(&mut this.rest).poll_read(cx, buffer);
        }
        let taken = (this.first.len() - this.read).min(buffer.remaining());
        buffer.put_slice(&this.first[this.read..this.read + taken]);
        this.read += taken;
        if this.read == this.first.len() {
            (this.first, this.read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Peeked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_say_what_is_spoken() {
        for (first, expected) in [
            (&b""[..], None),
            (b"G", None),
            (b"GET", None),
            (b"GET ", None),
            (b"GET /", Some(Protocol::Http1)),
            (b"OPTIONS *", Some(Protocol::Http1)),
            (b"GET http://cart/ HTTP/1.1", Some(Protocol::Http1)),
            (b"CONNECT cart:80", Some(Protocol::Http1)),
            (b"M-SEARCH *", Some(Protocol::Http1)),
            (b"P", None),
            (b"POST /", Some(Protocol::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\n", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSMALL TALK, no preface", Some(Protocol::Http1)),
            (b"GET  /", Some(Protocol::Tcp)),
            (b"get /", Some(Protocol::Tcp)),
            (b"\x16\x03\x01", Some(Protocol::Tcp)),
            (b"*1\r\n$4\r\nPING", Some(Protocol::Tcp)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(Protocol::Tcp)),
        ] {
            assert_eq!(spoken(first), expected, "{:?}", String::from_utf8_lossy(first));
        }
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_again() {
        let (mut client, server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET /cart HTTP/1.1\r\n").await.unwrap();
        drop(client);
        let (spoken, mut peeked) = sniff(server).await.unwrap();
        let mut text = String::new();
        peeked.read_to_string(&mut text).await.unwrap();
        assert_eq!((spoken, &*text), (Protocol::Http1, "GET /cart HTTP/1.1\r\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_server_speaks_no_http() {
        let (_client, server) = tokio::io::duplex(64);
        assert_eq!(sniff(server).await.unwrap().0, Protocol::Tcp);
    }
}
