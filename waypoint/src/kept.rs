//! A body that is kept while it passes, so that it can be sent again from its beginning.
//!
//! Nothing waits for it: what has come is sent on, and a copy that shares its bytes stays until the answer has come.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error as AnyError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::limits::{KEPT, KEPT_BODY};

/// Why a body broke off.
pub(crate) type Error = Box<dyn AnyError + Send + Sync>;

/// What is kept of bodies by a data thread.
#[derive(Clone, Default)]
pub(crate) struct Room(Rc<Cell<usize>>);

impl Room {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.get() + bytes;
        let fits = taken <= KEPT;
        if fits {
            self.0.set(taken);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// A body that can be sent again, as long as it is kept.
pub(crate) struct KeptBody<B>(Rc<RefCell<Source<B>>>);

struct Source<B> {
    /// What has not come yet.
    rest: B,
    /// What has, or what of it the present reader still has to send.
    come: VecDeque<Piece>,
    /// How many of them the present reader has sent.
    sent: usize,
    /// Bytes of all of them.
    bytes: usize,
    /// All that has come is still here.
    whole: bool,
    /// Why it broke off.
    broke: Option<String>,
    /// The number of the reader that sends it now: those before it have failed.
    reader: u32,
    room: Room,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(data) => Self::data(data),
            Piece::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

/// Its present reader.
pub(crate) struct Reader<B> {
    source: Rc<RefCell<Source<B>>>,
    number: u32,
}

/// Another try has begun.
#[derive(Debug, thiserror::Error)]
#[error("it is being sent again elsewhere")]
struct Superseded;

impl<B> KeptBody<B> {
    /// Keeps what passes of `body` if there is room for it.
    pub(crate) fn new(body: B, room: Room) -> Self {
        let (come, broke) = (VecDeque::new(), None);
        Self(Rc::new(RefCell::new(Source { rest: body, come, sent: 0, bytes: 0, whole: true, broke, reader: 0, room })))
    }

    /// The body from its beginning; who has had it before gets nothing more of it. None: its beginning is not here any more.
    pub(crate) fn read(&self) -> Option<Reader<B>> {
        let mut source = self.0.borrow_mut();
        if !source.whole {
            return None;
        }
        (source.sent, source.reader) = (0, source.reader + 1);
        Some(Reader { source: self.0.clone(), number: source.reader })
    }

    /// It can be sent again.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.borrow().whole
    }

    /// Why the caller's side of it broke off, if it did.
    pub(crate) fn broke(&self) -> Option<String> {
        self.0.borrow().broke.clone()
    }

    /// It will not be sent again: what was sent is let go of, and what comes is not kept.
    pub(crate) fn let_go(&self) {
        self.0.borrow_mut().let_go();
    }
}

impl<B> Source<B> {
    fn let_go(&mut self) {
        self.whole = false;
        self.come.drain(..self.sent);
        self.sent = 0;
        self.room.give_back(std::mem::take(&mut self.bytes));
    }

    fn keep(&mut self, piece: Piece) {
        let bytes = match &piece {
            Piece::Data(data) => data.len(),
            // As HTTP/2 counts them (RFC 9113, 6.5.2).
            Piece::Trailers(all) => all.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum(),
        };
        if self.bytes + bytes > KEPT_BODY || !self.room.take(bytes) {
            return self.let_go();
        }
        self.bytes += bytes;
        self.come.push_back(piece);
        self.sent += 1;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>>
    where
        B: HttpBody<Data = Bytes, Error = Error> + Unpin,
    {
        if let Some(piece) = self.come.get(self.sent) {
            let piece = piece.clone();
            if self.whole {
                self.sent += 1;
            } else {
                self.come.pop_front();
            }
            return Poll::Ready(Some(Ok(piece.into())));
        }
        let frame = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) if self.whole => {
                if let Some(data) = frame.data_ref() {
                    self.keep(Piece::Data(data.clone()));
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.keep(Piece::Trailers(trailers.clone()));
                }
            }
            Some(Err(error)) => {
                self.broke = Some(error.to_string());
                self.let_go();
            }
            Some(Ok(_)) | None => {}
        }
        Poll::Ready(frame)
    }
}

impl<B> Drop for Source<B> {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

impl<B: HttpBody<Data = Bytes, Error = Error> + Unpin> Reader<B> {
    /// The next of it.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut source = self.source.borrow_mut();
        if source.reader != self.number {
            return Poll::Ready(Some(Err(Box::new(Superseded))));
        }
        source.poll(cx)
    }

    /// Nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        source.reader == self.number && source.come.len() == source.sent && source.rest.is_end_stream()
    }

    /// How much more comes.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let mut bytes = 0;
        for piece in source.come.range(source.sent..) {
            match piece {
                Piece::Data(data) => bytes += data.len() as u64,
                // As of a body that does not say how long it is: what has trailers is not written with its length.
                Piece::Trailers(_) => return SizeHint::new(),
            }
        }
        longer(&source.rest.size_hint(), bytes)
    }
}

/// The length of `bytes` and what is as long as `rest` says.
pub(crate) fn longer(rest: &SizeHint, bytes: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(bytes));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(bytes));
    }
    hint
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// What comes, as it stands here.
    struct Frames(VecDeque<Result<Piece, Error>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| piece.map(Frame::from)))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let data = |piece: &Result<Piece, Error>| match piece {
                Ok(Piece::Data(data)) => data.len() as u64,
                _ => 0,
            };
            SizeHint::with_exact(self.0.iter().map(data).sum())
        }
    }

    fn pieces(lengths: [usize; 2]) -> Frames {
        Frames(lengths.into_iter().map(|length| Ok(Piece::Data(vec![b'x'; length].into()))).collect())
    }

    async fn next(reader: &Reader<Frames>) -> Option<Result<Frame<Bytes>, Error>> {
        poll_fn(|cx| reader.poll(cx)).await
    }

    /// How many bytes come, and which trailers.
    async fn all(reader: &Reader<Frames>) -> (usize, Option<HeaderMap>) {
        let (mut bytes, mut trailers) = (0, None);
        while let Some(frame) = next(reader).await {
            let frame = frame.unwrap();
            bytes += frame.data_ref().map_or(0, Bytes::len);
            trailers = frame.into_trailers().ok().or(trailers);
        }
        assert!(reader.is_end_stream());
        (bytes, trailers)
    }

    #[tokio::test]
    async fn it_is_sent_again_from_its_beginning_with_what_comes_later() {
        let room = Room::default();
        let kept = KeptBody::new(pieces([10, 20]), room.clone());
        let first = kept.read().unwrap();
        assert_eq!(first.size_hint().exact(), Some(30));
        assert_eq!(next(&first).await.unwrap().unwrap().data_ref().map(Bytes::len), Some(10));
        assert_eq!((room.0.get(), first.size_hint().exact()), (10, Some(20)));
        let second = kept.read().unwrap();
        assert_eq!(second.size_hint().exact(), Some(30));
        assert!(next(&first).await.unwrap().is_err(), "another has it now");
        assert_eq!(all(&second).await, (30, None));
        assert_eq!(all(&kept.read().unwrap()).await, (30, None));
        drop((first, second, kept));
        assert_eq!(room.0.get(), 0);
    }

    #[tokio::test]
    async fn trailers_are_sent_again() {
        let trailers = HeaderMap::from_iter([(http::header::TRAILER, http::HeaderValue::from_static("all"))]);
        let mut frames = pieces([10, 0]);
        frames.0.push_back(Ok(Piece::Trailers(trailers.clone())));
        let kept = KeptBody::new(frames, Room::default());
        assert_eq!(all(&kept.read().unwrap()).await, (10, Some(trailers.clone())));
        let again = kept.read().unwrap();
        assert_eq!((again.is_end_stream(), again.size_hint().exact()), (false, None));
        assert_eq!(all(&again).await, (10, Some(trailers)));
    }

    #[tokio::test]
    async fn what_is_let_go_of_goes_on_where_it_is() {
        let room = Room::default();
        let kept = KeptBody::new(pieces([10, 20]), room.clone());
        assert_eq!(all(&kept.read().unwrap()).await, (30, None));
        let second = kept.read().unwrap();
        next(&second).await.unwrap().unwrap();
        kept.let_go();
        assert!(!kept.is_whole() && kept.read().is_none());
        assert_eq!(room.0.get(), 0, "what is still to be sent of it is on its way");
        assert_eq!(all(&second).await, (20, None));
    }

    #[tokio::test]
    async fn what_is_too_long_or_has_no_room_is_sent_once() {
        let room = Room::default();
        for (lengths, is_kept) in [([1, KEPT_BODY - 1], true), ([1, KEPT_BODY], false), ([KEPT_BODY + 1, 5], false)] {
            let kept = KeptBody::new(pieces(lengths), room.clone());
            assert_eq!(all(&kept.read().unwrap()).await, (lengths.iter().sum(), None));
            assert_eq!(kept.is_whole(), is_kept, "{lengths:?}");
        }
        assert_eq!(room.0.get(), 0);
        assert!(room.take(KEPT - 10));
        let kept = KeptBody::new(pieces([10, 1]), room.clone());
        assert_eq!(all(&kept.read().unwrap()).await, (11, None));
        assert!(!kept.is_whole(), "there was no room for all of it");
    }

    #[tokio::test]
    async fn one_that_breaks_off_is_not_sent_again() {
        let mut frames = pieces([1, 2]);
        frames.0.push_back(Err("gone".into()));
        let kept = KeptBody::new(frames, Room::default());
        let reader = kept.read().unwrap();
        while next(&reader).await.unwrap().is_ok() {}
        assert_eq!((kept.is_whole(), kept.broke().as_deref()), (false, Some("gone")));
    }
}
