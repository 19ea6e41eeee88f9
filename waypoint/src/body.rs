//! Bodies that pass through. Nothing is collected: a piece is taken from one side when the other has room for it.

use std::error::Error as AnyError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

/// Why a body broke off.
pub(crate) type Error = Box<dyn AnyError + Send + Sync>;

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
}

/// It took longer than its route allows.
#[derive(Debug, thiserror::Error)]
#[error("the route's timeout has passed")]
pub(crate) struct TimedOut;

impl Body {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self { inner: Inner::Empty, watch: None, deadline: None, held: None }
    }

    /// These bytes.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { inner: Inner::Whole(bytes.into()), ..Self::empty() }
    }

    /// What comes from the other side.
    pub(crate) fn passing(incoming: Incoming) -> Self {
        Self { inner: Inner::Passing(incoming), ..Self::empty() }
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
    pub(crate) fn holding(self, held: impl std::any::Any) -> Self {
        Self { held: Some(Box::new(held)), ..self }
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
        let incoming = match &mut this.inner {
            Inner::Empty => return Poll::Ready(None),
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.inner = Inner::Empty;
                if let Some(watch) = &mut this.watch {
                    watch.passed(bytes.len());
                }
                this.end(None);
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Inner::Passing(incoming) => incoming,
        };
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            this.inner = Inner::Empty;
            this.end(Some(&TimedOut));
            return Poll::Ready(Some(Err(Box::new(TimedOut))));
        }
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
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
                this.end_if_over();
            }
            Some(Err(error)) => this.end(Some(error)),
            None => this.end(None),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Passing(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Passing(incoming) => incoming.size_hint(),
        }
    }
}
