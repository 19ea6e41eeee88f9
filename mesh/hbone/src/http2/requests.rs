//! Requests that have come and that nobody has taken yet, and who waits for them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, Method};

use super::stream::wake;

/// A request as it came.
pub(crate) struct Request {
    pub(crate) stream: u32,
    pub(crate) method: Method,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
}

/// Requests in the order in which they came. As many as there are streams, at most.
#[derive(Default)]
pub(super) struct Requests {
    waiting: VecDeque<Request>,
    /// Waits for a request, the peer's greeting, or the end.
    acceptor: Option<Waker>,
}

impl Requests {
    pub(super) fn push(&mut self, request: Request) {
        self.waiting.push_back(request);
        self.wake();
    }

    /// The next request.
    pub(super) fn pop(&mut self) -> Option<Request> {
        self.waiting.pop_front()
    }

    /// Has `cx` woken by the next request, the peer's greeting, or the end.
    pub(super) fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Wakes who waits.
    pub(super) fn wake(&mut self) {
        wake(&mut self.acceptor);
    }

    /// Gives up all that nobody has taken; returns their streams.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|request| request.stream)
    }
}
