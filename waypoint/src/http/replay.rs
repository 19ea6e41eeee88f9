//! A request that may have to be sent again.

use std::time::Duration;

use http::request::Parts;
use http::{Method, Request};
use hyper::body::Body as _;
use mesh_model::route::Retry;

use crate::body::Body;
use crate::kept::KeptBody;
use crate::limits::KEPT_BODY;
use crate::room::Part;
use crate::upstream::HttpVersion;

/// Between two tries where the route says nothing, as Envoy has it.
const BACKOFF: Duration = Duration::from_millis(25);

/// A request, and what is left to send of it.
pub(super) struct Replay {
    head: Parts,
    /// None: it has none.
    body: Option<KeptBody<Body>>,
}

impl Replay {
    /// Keeps the body as it passes, if it is short enough, and somebody may want it again: a route, an endpoint of HTTP/2 that says that
    /// it has not taken the request, or a request that does the same twice. `part` is its caller's, of the room for kept bodies.
    pub(super) fn new(
        request: Request<Body>,
        version: HttpVersion,
        retry: Option<&Retry>,
        part: impl FnOnce() -> Part,
    ) -> Self {
        let (head, body) = request.into_parts();
        let length = body.size_hint();
        let again =
            version == HttpVersion::Http2 || retry.is_some_and(|retry| retry.attempts > 0) || is_idempotent(&head);
        let keeps = again && length.lower() <= KEPT_BODY as u64;
        let body = (length.exact() != Some(0)).then(|| KeptBody::new(body, keeps, part()));
        Self { head, body }
    }

    /// The request for the next try, if there can be one.
    pub(super) fn next(&self) -> Option<Request<Body>> {
        let body = match &self.body {
            Some(kept) => Body::kept(kept.read()?),
            None => Body::empty(),
        };
        Some(Request::from_parts(self.head.clone(), body))
    }

    /// It can be sent again.
    pub(super) fn is_kept(&self) -> bool {
        self.body.as_ref().is_none_or(KeptBody::is_whole)
    }

    /// Doing it twice is like doing it once (RFC 9110 9.2.2), and it can be sent again.
    pub(super) fn is_harmless(&self) -> bool {
        is_idempotent(&self.head) && self.is_kept()
    }

    /// Why its caller broke it off, if it did.
    pub(super) fn broke(&self) -> Option<String> {
        self.body.as_ref().and_then(KeptBody::broke)
    }

    /// It has its answer: nothing more of it is kept.
    pub(super) fn is_answered(&self) {
        if let Some(kept) = &self.body {
            kept.let_go();
        }
    }
}

fn is_idempotent(head: &Parts) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE];
    idempotent.contains(&head.method)
}

/// How long to wait before try `number`, counted from 1: twice as long each time, at most ten times the first.
pub(super) fn backoff(retry: &Retry, number: u32) -> Duration {
    let first = retry.backoff.unwrap_or(BACKOFF);
    first.saturating_mul(1 << number.saturating_sub(1).min(4)).min(first.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use mesh_model::share::Source;

    use super::*;
    use crate::room::Room;

    #[test]
    fn tries_wait_longer_and_longer() {
        let retry = Retry { backoff: Some(Duration::from_millis(10)), ..Retry::default() };
        let waits: Vec<_> = (1..=6).map(|number| backoff(&retry, number).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 100, 100]);
        assert_eq!(backoff(&Retry::default(), 1), BACKOFF);
    }

    #[tokio::test]
    async fn what_was_sent_is_sent_again_only_if_it_was_kept() {
        let retry = Retry { attempts: 1, ..Retry::default() };
        let (one, two) = (HttpVersion::Http1, HttpVersion::Http2);
        // (method, body, what the endpoint speaks, whether the route wants tries, whether it can be sent again, and that is harmless)
        for (method, body, version, wanted, again, harmless) in [
            (Method::GET, Body::empty(), one, false, true, true),
            (Method::POST, Body::empty(), one, false, true, false),
            (Method::POST, Body::whole("short"), one, false, false, false),
            (Method::POST, Body::whole("short"), one, true, true, false),
            (Method::POST, Body::whole("short"), two, false, true, false),
            (Method::PUT, Body::whole("short"), one, false, true, true),
            (Method::PUT, Body::whole(vec![0; KEPT_BODY + 1]), two, true, false, false),
        ] {
            let request = Request::builder().method(&method).body(body).unwrap();
            let length = request.body().size_hint().exact();
            let part = || Room::new(KEPT_BODY * 2).part(Source::address([10, 0, 0, 1].into()));
            let replay = Replay::new(request, version, wanted.then_some(&retry), part);
            // Nothing of it is sent.
            drop(replay.next().unwrap());
            let first = replay.next().unwrap();
            assert_eq!((first.method(), first.body().size_hint().exact()), (&method, length));
            first.into_body().collect().await.unwrap();
            assert_eq!((replay.is_kept(), replay.is_harmless()), (again, harmless), "{method} of {length:?}");
            assert_eq!(replay.next().is_some(), again);
        }
    }
}
