//! Heads of requests that are not whole yet. What has come of one is kept until the rest comes, which may be never: it is counted with what
//! the layer of tunnels keeps of its kind ([`mesh_hbone::unfinished`]), and each caller has its share of that. Past it, the connection
//! of the greediest caller whose head is oldest ends.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mesh_hbone::unfinished::Unfinished;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::caller::Caller;

/// What is kept of a head is no longer than it may be: past this it has been refused.
const MOST: usize = crate::limits::HEADER_BYTES;

/// A connection of a caller, on which heads come.
pub(super) struct Heads<T, R> {
    stream: T,
    reading: R,
}

/// Counts what comes.
pub(super) trait Reading {
    /// This has come, or nothing.
    ///
    /// # Errors
    /// When what is kept has to be given up.
    fn come(&mut self, bytes: &[u8], cx: &Context<'_>) -> io::Result<()>;
}

impl<T, R> Heads<T, R> {
    pub(super) fn new(stream: T, reading: R) -> Self {
        Self { stream, reading }
    }

    pub(super) fn into_inner(self) -> T {
        self.stream
    }
}

fn of(caller: &Caller) -> Unfinished {
    Unfinished::of(caller.source(), caller.worker.context.proxy.hbone.unfinished_bytes)
}

/// Of HTTP/1: between requests whatever comes belongs to a head.
#[derive(Clone)]
pub(super) struct Http1(Rc<RefCell<Next>>);

struct Next {
    /// What has come of the next head; None while a request is served.
    come: Option<usize>,
    unfinished: Unfinished,
}

/// A request is served. The next head begins when this is dropped.
pub(super) struct Served(Http1);

impl Http1 {
    pub(super) fn of(caller: &Caller) -> Self {
        Self(Rc::new(RefCell::new(Next { come: Some(0), unfinished: of(caller) })))
    }

    /// A head is whole.
    pub(super) fn whole(&self) -> Served {
        let mut next = self.0.borrow_mut();
        next.come = None;
        next.unfinished.forget();
        Served(self.clone())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.0.borrow_mut().come = Some(0);
    }
}

impl Reading for Http1 {
    fn come(&mut self, bytes: &[u8], cx: &Context<'_>) -> io::Result<()> {
        let mut next = self.0.borrow_mut();
        let Some(come) = next.come.map(|come| (come + bytes.len()).min(MOST)) else { return Ok(()) };
        next.come = Some(come);
        next.unfinished.keep(come, cx).map_err(io::Error::other)
    }
}

/// Of HTTP/2: a header block is HEADERS and the CONTINUATIONs after it (RFC 9113 4.3).
pub(super) struct Http2 {
    frames: Frames,
    unfinished: Unfinished,
}

impl Http2 {
    pub(super) fn of(caller: &Caller) -> Self {
        Self { frames: Frames::default(), unfinished: of(caller) }
    }
}

impl Reading for Http2 {
    fn come(&mut self, bytes: &[u8], cx: &Context<'_>) -> io::Result<()> {
        self.unfinished.keep(self.frames.come(bytes), cx).map_err(io::Error::other)
    }
}

/// Where in its frames a connection is.
struct Frames {
    /// What is left of the preface.
    preface: usize,
    /// The head of a frame, as far as it has come.
    head: [u8; 9],
    have: usize,
    /// What is left of the frame after that.
    left: usize,
    /// It belongs to a header block, which may end with it.
    block: Option<Ends>,
    /// What has come of the header block.
    come: usize,
}

struct Ends(bool);

impl Default for Frames {
    fn default() -> Self {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
        Self { preface, head: [0; 9], have: 0, left: 0, block: None, come: 0 }
    }
}

impl Frames {
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;

    /// How much has come of a header block that has not ended.
    fn come(&mut self, mut bytes: &[u8]) -> usize {
        skip(&mut bytes, &mut self.preface);
        while !bytes.is_empty() {
            if self.left == 0 {
                let taken = bytes.len().min(self.head.len() - self.have);
                self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                (self.have, bytes) = (self.have + taken, &bytes[taken..]);
                if self.have < self.head.len() {
                    break;
                }
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.block =
                    matches!(kind, Self::HEADERS | Self::CONTINUATION).then_some(Ends(flags & Self::END_HEADERS != 0));
            }
            let taken = skip(&mut bytes, &mut self.left);
            if let Some(Ends(ends)) = self.block {
                self.come = (self.come + taken).min(MOST);
                if ends && self.left == 0 {
                    self.come = 0;
                }
            }
        }
        self.come
    }
}

/// Passes over as many of `bytes` as are left of something: how many.
fn skip(bytes: &mut &[u8], left: &mut usize) -> usize {
    let taken = bytes.len().min(*left);
    let (_, rest) = bytes.split_at(taken);
    (*bytes, *left) = (rest, *left - taken);
    taken
}

impl<T: AsyncRead + Unpin, R: Reading + Unpin> AsyncRead for Heads<T, R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        // Also when nothing has come: it may have to be given up.
        this.reading.come(&buffer.filled()[before..], cx)?;
        read
    }
}

impl<T: AsyncWrite + Unpin, R: Unpin> AsyncWrite for Heads<T, R> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use mesh_testkit::frames::{CONTINUATION, DATA, END_HEADERS, HEADERS, frame, greeting};

    use super::*;

    #[test]
    fn what_has_come_of_a_header_block_is_counted() {
        let all = [
            (greeting(), 0),
            (frame(HEADERS, END_HEADERS, 1, &[0; 100]), 0),
            (frame(DATA, 0, 1, &[0; 16_000]), 0),
            (frame(HEADERS, 0, 3, &[0; 10_000]), 10_000),
            (frame(CONTINUATION, 0, 3, &[0; 5_000]), 15_000),
            (frame(CONTINUATION, 0, 3, &[]), 15_000),
            (frame(CONTINUATION, END_HEADERS, 3, &[]), 0),
            (frame(HEADERS, 0, 5, &[0; 16_000]), 16_000),
            (frame(CONTINUATION, 0, 5, &[0; 16_000]).repeat(5), MOST),
            (frame(CONTINUATION, END_HEADERS, 5, &[0; 7]), 0),
            (frame(HEADERS, END_HEADERS, 7, &[0; 1_000])[..509].to_vec(), 500),
        ];
        // However it is cut into pieces.
        for size in [1, 8, 9, 10, 4_096, 100_000] {
            let mut frames = Frames::default();
            for (bytes, expected) in &all {
                let come = bytes.chunks(size).map(|piece| frames.come(piece)).last();
                assert_eq!(come, Some(*expected), "in pieces of {size}");
            }
        }
    }
}
