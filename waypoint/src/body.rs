//! Bodies that pass through. Nothing is collected: a piece is taken from one side when the other has room for it.

use std::error::Error as AnyError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

pub(crate) use crate::kept::Error;
use crate::kept::{Reader, longer};

/// What is told of a body as it passes.
pub(crate) trait Watch {
    /// So many bytes have passed.
    fn passed(&mut self, bytes: usize);
    /// Trailers have passed.
    fn trailers(&mut self, trailers: &http::HeaderMap);
    /// It has ended; `error` says why, if before its end.
    fn ended(&mut self, error: Option<&(dyn AnyError + 'static)>);
}

/// The body of a request or an answer.
pub(crate) struct Body {
    /// What has been read of it already, and is yet to pass.
    read: Bytes,
    inner: Inner,
    /// One that is dropped before it has ended is told by being dropped.
    watch: Option<Box<dyn Watch>>,
    /// When it must have ended.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What lives as long as it.
    held: Option<Box<dyn std::any::Any>>,
}

enum Inner {
    Empty,
    Whole(Bytes),
    Passing(Incoming),
    Kept(Reader<Body>),
    /// All that is left of it.
    Trailers(http::HeaderMap),
}

/// A body of which the beginning has been read.
pub(crate) struct Begun {
    read: Bytes,
    rest: Inner,
}

impl Begun {
    /// Nothing has been read yet.
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self { read: Bytes::new(), rest: Inner::Passing(incoming) }
    }

    /// One that has no more to come.
    pub(crate) fn ended() -> Self {
        Self { read: Bytes::new(), rest: Inner::Empty }
    }

    /// Reads on until it has ended, or more than `most` bytes of it have been read.
    ///
    /// # Errors
    /// When it breaks off.
    pub(crate) async fn read(&mut self, most: usize) -> Result<(), Error> {
        let Inner::Passing(incoming) = &mut self.rest else { return Ok(()) };
        let mut read = Vec::from(std::mem::take(&mut self.read));
        let mut rest = None;
        while read.len() <= most {
            match incoming.frame().await.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => read.extend_from_slice(&data),
                Some(Err(frame)) => rest = Some(frame.into_trailers().map_or(Inner::Empty, Inner::Trailers)),
                None => rest = Some(Inner::Empty),
            }
            if rest.is_some() {
                break;
            }
        }
        self.read = read.into();
        if let Some(rest) = rest {
            self.rest = rest;
        }
        Ok(())
    }

    /// What has been read of it.
    pub(crate) fn beginning(&self) -> &Bytes {
        &self.read
    }

    /// The whole body, as it was.
    pub(crate) fn into_body(self) -> Body {
        Body { read: self.read, inner: self.rest, ..Body::empty() }
    }
}

/// It took longer than its route allows.
#[derive(Debug, thiserror::Error)]
#[error("the route's timeout has passed")]
pub(crate) struct TimedOut;

impl Body {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self { read: Bytes::new(), inner: Inner::Empty, watch: None, deadline: None, held: None }
    }

    /// These bytes.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { inner: Inner::Whole(bytes.into()), ..Self::empty() }
    }

    /// What comes from the other side.
    pub(crate) fn passing(incoming: Incoming) -> Self {
        Self { inner: Inner::Passing(incoming), ..Self::empty() }
    }

    /// What is kept as it passes.
    pub(crate) fn kept(reader: Reader<Self>) -> Self {
        Self { inner: Inner::Kept(reader), ..Self::empty() }
    }

    /// Tells `watch` of it.
    pub(crate) fn watched(self, watch: impl Watch + 'static) -> Self {
        let mut this = Self { watch: Some(Box::new(watch)), ..self };
        this.end_if_over();
        this
    }

    /// Breaks it off at `deadline`.
    pub(crate) fn until(self, deadline: Option<tokio::time::Instant>) -> Self {
        Self { deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))), ..self }
    }

    /// Keeps something for as long as it lives.
    pub(crate) fn holding(mut self, held: impl std::any::Any) -> Self {
        let before = self.held.take();
        Self { held: Some(Box::new((before, held))), ..self }
    }

    fn end_if_over(&mut self) {
        if self.is_end_stream() {
            self.end(None);
        }
    }

    fn end(&mut self, error: Option<&(dyn AnyError + 'static)>) {
        if let Some(mut watch) = self.watch.take() {
            watch.ended(error);
        }
        self.held = None;
        self.deadline = None;
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if !this.read.is_empty() {
            let bytes = std::mem::take(&mut this.read);
            if let Some(watch) = &mut this.watch {
                watch.passed(bytes.len());
            }
            this.end_if_over();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut this.inner {
            Inner::Empty => return Poll::Ready(None),
            Inner::Trailers(trailers) => {
                let trailers = std::mem::take(trailers);
                this.inner = Inner::Empty;
                if let Some(watch) = &mut this.watch {
                    watch.trailers(&trailers);
                }
                this.end(None);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.inner = Inner::Empty;
                if let Some(watch) = &mut this.watch {
                    watch.passed(bytes.len());
                }
                this.end(None);
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Inner::Passing(_) | Inner::Kept(_) => {}
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            this.inner = Inner::Empty;
            this.end(Some(&TimedOut));
            return Poll::Ready(Some(Err(Box::new(TimedOut))));
        }
        let frame = match &mut this.inner {
            Inner::Passing(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Inner::Kept(reader) => ready!(reader.poll(cx)),
            _ => None,
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(watch) = &mut this.watch {
                    if let Some(data) = frame.data_ref() {
                        watch.passed(data.len());
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        watch.trailers(trailers);
                    }
                }
                // Nothing follows trailers, and nobody may ask for more.
                match frame.is_trailers() {
                    true => this.end(None),
                    false => this.end_if_over(),
                }
            }
            Some(Err(error)) => this.end(Some(error.as_ref())),
            None => this.end(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && match &self.inner {
                Inner::Empty => true,
                Inner::Whole(bytes) => bytes.is_empty(),
                Inner::Passing(incoming) => incoming.is_end_stream(),
                Inner::Kept(reader) => reader.is_end_stream(),
                Inner::Trailers(_) => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(read),
            Inner::Whole(bytes) => SizeHint::with_exact(read + bytes.len() as u64),
            Inner::Passing(incoming) => longer(&incoming.size_hint(), read),
            Inner::Kept(reader) => longer(&reader.size_hint(), read),
            // As of a body that does not say how long it is: what has trailers is not written with its length.
            Inner::Trailers(_) => SizeHint::new(),
        }
    }
}
