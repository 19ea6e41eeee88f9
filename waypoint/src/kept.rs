//! A body that is kept while it passes, so that it can be sent again from its beginning.
//!
//! Nothing waits for it: what has come is sent on, and a copy stays until the answer has come. It is a copy because a piece of what was read
//! holds all that was read with it, which may be a thousand times as much.

use std::cell::RefCell;
use std::error::Error as AnyError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::limits::KEPT_BODY;
use crate::room::Part;

/// Why a body broke off.
pub(crate) type Error = Box<dyn AnyError + Send + Sync>;

/// A body that can be sent again, as long as it is kept.
pub(crate) struct KeptBody<B>(Rc<RefCell<Source<B>>>);

struct Source<B> {
    /// What has not come yet.
    rest: B,
    /// What has come and is kept, or what of it the present reader still has to send.
    come: Vec<u8>,
    /// The last that has come.
    trailers: Option<HeaderMap>,
    /// What the present reader has sent.
    sent: Sent,
    /// What it takes of its caller's share of the room.
    part: Part,
    /// What comes is kept.
    keeps: bool,
    /// All that has come is still here.
    whole: bool,
    /// Why it broke off.
    broke: Option<String>,
    /// The number of the reader that sends it now: those before it have failed.
    reader: u32,
    /// Who waits for what has not come.
    waits: Option<Waker>,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    bytes: usize,
    trailers: bool,
}

/// Its present reader.
pub(crate) struct Reader<B> {
    source: Rc<RefCell<Source<B>>>,
    number: u32,
}

/// Another try has begun. The endpoint of the one before is told that it is not wanted any more.
#[derive(Debug, thiserror::Error)]
#[error("it is being sent again elsewhere")]
struct Superseded(#[source] h2::Error);

impl<B> KeptBody<B> {
    /// Keeps what passes of `body` if that is wanted, and as long as its caller has room for it.
    pub(crate) fn new(body: B, keeps: bool, part: Part) -> Self {
        Self(Rc::new(RefCell::new(Source {
            rest: body,
            come: Vec::new(),
            trailers: None,
            sent: Sent::default(),
            part,
            keeps,
            whole: true,
            broke: None,
            reader: 0,
            waits: None,
        })))
    }

    /// The body from its beginning; who has had it before gets nothing more of it. None: its beginning is not here any more.
    pub(crate) fn read(&self) -> Option<Reader<B>> {
        let mut source = self.0.borrow_mut();
        if !source.whole {
            return None;
        }
        (source.sent, source.reader) = (Sent::default(), source.reader + 1);
        // Who waited hears that it waits for nothing.
        if let Some(waits) = source.waits.take() {
            waits.wake();
        }
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
        self.come = self.come.split_off(self.sent.bytes);
        self.sent.bytes = 0;
        self.settle();
    }

    /// Something that has come is still to be sent.
    fn is_ahead(&self) -> bool {
        self.come.len() > self.sent.bytes || self.trailers.is_some() && !self.sent.trailers
    }

    /// Takes as much of the room as it holds.
    fn settle(&mut self) {
        self.part.shrink(self.come.len());
    }

    /// Room for so much more, if there is.
    fn fits(&mut self, bytes: usize) -> bool {
        self.keeps && self.part.amount() + bytes <= KEPT_BODY && self.part.take(bytes).is_ok()
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            match self.fits(data.len()) {
                true => {
                    self.come.extend_from_slice(data);
                    self.sent.bytes += data.len();
                }
                false => self.let_go(),
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            // As HTTP/2 counts them (RFC 9113, 6.5.2).
            match self.fits(trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()) {
                true => (self.trailers, self.sent.trailers) = (Some(trailers.clone()), true),
                false => self.let_go(),
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>>
    where
        B: HttpBody<Data = Bytes, Error = Error> + Unpin,
    {
        let kept = self.come.get(self.sent.bytes..).unwrap_or_default();
        if !kept.is_empty() {
            let data = Bytes::copy_from_slice(kept);
            self.sent.bytes = self.come.len();
            if !self.whole {
                self.let_go();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.trailers.as_ref().filter(|_| !self.sent.trailers) {
            self.sent.trailers = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) else {
            self.waits = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) if self.whole => self.keep(frame),
            Some(Err(error)) => {
                self.broke = Some(error.to_string());
                self.let_go();
            }
            Some(Ok(_)) | None => {}
        }
        Poll::Ready(frame)
    }
}

impl<B: HttpBody<Data = Bytes, Error = Error> + Unpin> Reader<B> {
    /// The next of it.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut source = self.source.borrow_mut();
        if source.reader != self.number {
            return Poll::Ready(Some(Err(Box::new(Superseded(Reason::CANCEL.into())))));
        }
        source.poll(cx)
    }

    /// Nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        source.reader == self.number && !source.is_ahead() && source.rest.is_end_stream()
    }

    /// How much more comes.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        match source.trailers {
            // As of a body that does not say how long it is: what has trailers is not written with its length.
            Some(_) => SizeHint::new(),
            None => longer(&source.rest.size_hint(), (source.come.len() - source.sent.bytes) as u64),
        }
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
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use mesh_model::share::Source as Caller;

    use super::*;
    use crate::limits::KEPT;
    use crate::room::Room;

    /// What comes, as it stands here.
    struct Frames(VecDeque<Result<Piece, Error>>);

    #[derive(Clone)]
    enum Piece {
        Data(Bytes),
        Trailers(HeaderMap),
        /// Nothing yet.
        Later,
    }

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            match self.0.pop_front() {
                Some(Ok(Piece::Data(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Piece::Trailers(trailers))) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Ok(Piece::Later)) => Poll::Pending,
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(None),
            }
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

    /// A part of a caller.
    fn of(room: &Room, caller: u8) -> Part {
        room.part(Caller::address([10, 0, 0, caller].into()))
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
        let room = Room::new(KEPT);
        let kept = KeptBody::new(pieces([10, 20]), true, of(&room, 1));
        let first = kept.read().unwrap();
        assert_eq!(first.size_hint().exact(), Some(30));
        assert_eq!(next(&first).await.unwrap().unwrap().data_ref().map(Bytes::len), Some(10));
        assert_eq!((room.taken(), first.size_hint().exact()), (10, Some(20)));
        let second = kept.read().unwrap();
        assert_eq!(second.size_hint().exact(), Some(30));
        assert!(next(&first).await.unwrap().is_err(), "another has it now");
        assert_eq!(all(&second).await, (30, None));
        assert_eq!(all(&kept.read().unwrap()).await, (30, None));
        drop((first, second, kept));
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn trailers_are_sent_again() {
        let trailers = HeaderMap::from_iter([(http::header::TRAILER, http::HeaderValue::from_static("all"))]);
        let mut frames = pieces([10, 0]);
        frames.0.push_back(Ok(Piece::Trailers(trailers.clone())));
        let kept = KeptBody::new(frames, true, of(&Room::new(KEPT), 1));
        assert_eq!(all(&kept.read().unwrap()).await, (10, Some(trailers.clone())));
        let again = kept.read().unwrap();
        assert_eq!((again.is_end_stream(), again.size_hint().exact()), (false, None));
        assert_eq!(all(&again).await, (10, Some(trailers)));
    }

    #[tokio::test]
    async fn what_is_let_go_of_goes_on_where_it_is() {
        let room = Room::new(KEPT);
        let mut frames = pieces([10, 20]);
        frames.0.push_back(Ok(Piece::Data(vec![b'x'; 5].into())));
        let kept = KeptBody::new(frames, true, of(&room, 1));
        let first = kept.read().unwrap();
        for _ in 0..2 {
            next(&first).await.unwrap().unwrap();
        }
        let second = kept.read().unwrap();
        kept.let_go();
        assert!(!kept.is_whole() && kept.read().is_none());
        assert_eq!(room.taken(), 30, "it is still to be sent");
        assert_eq!(next(&second).await.unwrap().unwrap().data_ref().map(Bytes::len), Some(30));
        assert_eq!(room.taken(), 0);
        assert_eq!(all(&second).await, (5, None));
        assert_eq!(room.taken(), 0, "what came later is not kept");
    }

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Else it would hold its connection for as long as nothing comes.
    #[test]
    fn who_waits_hears_that_another_has_it() {
        let frames = Frames([Ok(Piece::Later)].into());
        let kept = KeptBody::new(frames, true, of(&Room::new(KEPT), 1));
        let (first, woken) = (kept.read().unwrap(), Arc::new(Counts(AtomicUsize::new(0))));
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        assert!(first.poll(&mut cx).is_pending());
        let _second = kept.read().unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(first.poll(&mut cx), Poll::Ready(Some(Err(_)))));
    }

    #[tokio::test]
    async fn what_nobody_would_send_again_is_not_kept() {
        let room = Room::new(KEPT);
        let kept = KeptBody::new(pieces([10, 20]), false, of(&room, 1));
        drop(kept.read().unwrap());
        let reader = kept.read().expect("nothing of it was sent");
        next(&reader).await.unwrap().unwrap();
        assert_eq!((kept.is_whole(), room.taken()), (false, 0));
        assert_eq!(all(&reader).await, (20, None));
    }

    #[tokio::test]
    async fn what_is_too_long_or_has_no_room_is_sent_once() {
        let room = Room::new(KEPT);
        for (lengths, is_kept) in [([1, KEPT_BODY - 1], true), ([1, KEPT_BODY], false), ([KEPT_BODY + 1, 5], false)] {
            let kept = KeptBody::new(pieces(lengths), true, of(&room, 1));
            assert_eq!(all(&kept.read().unwrap()).await, (lengths.iter().sum(), None));
            assert_eq!(kept.is_whole(), is_kept, "{lengths:?}");
        }
        assert_eq!(room.taken(), 0);
        let room = Room::new(20);
        let kept = KeptBody::new(pieces([10, 1]), true, of(&room, 1));
        assert_eq!(all(&kept.read().unwrap()).await, (11, None));
        assert!(!kept.is_whole(), "there was no room for all of it");
    }

    /// Bodies that one caller has kept are no reason why another one's requests are sent once.
    #[tokio::test]
    async fn one_caller_takes_no_room_from_another() {
        let room = Room::new(KEPT);
        let one = async |caller| {
            let kept = KeptBody::new(pieces([1, KEPT_BODY - 1]), true, of(&room, caller));
            all(&kept.read().unwrap()).await;
            kept
        };
        let mut greedy = Vec::new();
        while greedy.last().is_none_or(KeptBody::is_whole) {
            greedy.push(one(1).await);
        }
        assert_eq!(greedy.len(), KEPT / KEPT_BODY / 2 + 1, "its share is half of the room");
        assert!(one(2).await.is_whole());
    }

    #[tokio::test]
    async fn one_that_breaks_off_is_not_sent_again() {
        let mut frames = pieces([1, 2]);
        frames.0.push_back(Err("gone".into()));
        let kept = KeptBody::new(frames, true, of(&Room::new(KEPT), 1));
        let reader = kept.read().unwrap();
        while next(&reader).await.unwrap().is_ok() {}
        assert_eq!((kept.is_whole(), kept.broke().as_deref()), (false, Some("gone")));
    }
}
