//! The body of a response: whole, or in pieces while it is being made.

use std::fmt;
use std::io::{self, Write as _};
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// Size of a piece: few enough of them, and each far below the size from which an allocator treats memory as huge.
const PIECE: usize = 32 << 10;
/// Pieces that wait for a slow client.
const WAITING: usize = 2;

/// What answers a request.
#[derive(Debug)]
pub struct Body(Content);

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    /// `None` is the end. A writer that is dropped without it has failed, and the body is incomplete.
    Pieces(mpsc::Receiver<Option<Bytes>>),
}

/// Where a body is written that comes in pieces. Blocks while the client is slower: only for threads that may.
#[derive(Debug)]
pub struct Writer {
    pieces: mpsc::Sender<Option<Bytes>>,
    piece: Vec<u8>,
}

impl Body {
    /// A body that holds a few pieces at a time, however long it gets.
    pub fn in_pieces() -> (Writer, Self) {
        let (pieces, receiver) = mpsc::channel(WAITING);
        (Writer { pieces, piece: Vec::new() }, Self(Content::Pieces(receiver)))
    }

    /// All of it; `None` for one that comes in pieces.
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.0 {
            Content::Whole(bytes) => Some(bytes),
            Content::Pieces(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Whole(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from(text).into()
    }
}

impl Writer {
    /// There is nothing more. Dropped without this, the client sees its connection break, not an end.
    ///
    /// # Errors
    /// The client is gone.
    pub fn finish(mut self) -> fmt::Result {
        self.flush().map_err(|_| fmt::Error)?;
        self.pieces.blocking_send(None).map_err(|_| fmt::Error)
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() + bytes.len() > PIECE {
            self.flush()?;
        }
        let bytes = &bytes[..bytes.len().min(PIECE)];
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE);
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Sends what there is.
    fn flush(&mut self) -> io::Result<()> {
        match take(&mut self.piece) {
            piece if piece.is_empty() => Ok(()),
            piece => self.pieces.blocking_send(Some(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let end = || Self::from(Bytes::new());
        let piece = match &mut self.0 {
            Content::Whole(bytes) => Ok(Some(take(bytes)).filter(|bytes| !bytes.is_empty())),
            Content::Pieces(pieces) => match ready!(pieces.poll_recv(cx)) {
                Some(piece) => Ok(piece),
                None => Err(io::Error::other("the page could not be written to its end")),
            },
        };
        if !matches!(piece, Ok(Some(_))) {
            *self = end();
        }
        Poll::Ready(piece.transpose().map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.whole().is_some_and(<[u8]>::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.whole().map_or_else(SizeHint::default, |bytes| SizeHint::with_exact(bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn written(lines: usize, finish: bool) -> (std::thread::JoinHandle<fmt::Result>, Body) {
        let (mut writer, body) = Body::in_pieces();
        let writing = std::thread::spawn(move || {
            (0..lines).try_for_each(|number| writeln!(writer, "line {number}")).map_err(|_| fmt::Error)?;
            if finish { writer.finish() } else { Ok(()) }
        });
        (writing, body)
    }

    #[tokio::test]
    async fn what_is_written_is_said() {
        for lines in [0, 1, 100_000] {
            let (writing, mut body) = written(lines, true);
            let mut said = String::new();
            while let Some(piece) = body.frame().await {
                let piece = piece.unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE);
                said.push_str(std::str::from_utf8(&piece).unwrap());
            }
            assert_eq!(said.lines().count(), lines);
            assert!(said.lines().enumerate().all(|(number, line)| line == format!("line {number}")));
            assert_eq!(writing.join().unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_page_that_breaks_off_has_no_end() {
        let (_, body) = written(10, false);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn nobody_writes_to_a_client_that_is_gone() {
        let (writing, body) = written(100_000, true);
        drop(body);
        assert_eq!(writing.join().unwrap(), Err(fmt::Error));
    }

    #[tokio::test]
    async fn whole() {
        let body = Body::from("all");
        assert_eq!((body.whole(), hyper::body::Body::size_hint(&body).exact()), (Some(&b"all"[..]), Some(3)));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "all");
        assert!(hyper::body::Body::is_end_stream(&Body::from("")));
    }
}
