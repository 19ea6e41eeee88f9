//! A request that may have to be sent again.

use std::time::Duration;

use http::request::Parts;
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes};
use mesh_model::route::Retry;

use crate::body::{Body, Error};

/// Bytes of a body that are kept for another try. A request whose body is longer, or does not say how long it is, is sent once.
const MOST: u64 = 64 << 10;
/// Between two tries where the route says nothing, as Envoy has it.
const BACKOFF: Duration = Duration::from_millis(25);

/// A request, and what is left to send of it.
pub(super) struct Replay {
    head: Parts,
    body: Kept,
}

enum Kept {
    /// It can be sent once, and has been if there is nothing.
    Once(Option<Body>),
    /// It can be sent as often as is wanted.
    Again(Bytes),
}

impl Replay {
    /// Keeps the body where a route wants tries and it is short enough.
    ///
    /// # Errors
    /// When the caller breaks off before its body has come.
    pub(super) async fn new(request: Request<Body>, retry: Option<&Retry>) -> Result<Self, Error> {
        let (head, body) = request.into_parts();
        let wanted = retry.is_some_and(|retry| retry.attempts > 0);
        let body = match body.size_hint().exact() {
            Some(0) => Kept::Again(Bytes::new()),
            Some(length) if wanted && length <= MOST => Kept::Again(Box::pin(body.collect()).await?.to_bytes()),
            _ => Kept::Once(Some(body)),
        };
        Ok(Self { head, body })
    }

    /// The request for the next try, if there can be one.
    pub(super) fn next(&mut self) -> Option<Request<Body>> {
        let body = match &mut self.body {
            Kept::Once(body) => body.take()?,
            Kept::Again(bytes) => Body::whole(bytes.clone()),
        };
        Some(Request::from_parts(self.head.clone(), body))
    }

    /// A request of which nothing was sent: it can be sent as if it had never been tried.
    pub(super) fn back(&mut self, unsent: Request<Body>) {
        if let Kept::Once(body) = &mut self.body {
            *body = Some(unsent.into_body());
        }
    }

    /// It can be sent again.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.body, Kept::Again(_))
    }

    /// Doing it twice is like doing it once (RFC 9110 9.2.2), and it can be sent again.
    pub(super) fn is_harmless(&self) -> bool {
        let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE];
        idempotent.contains(&self.head.method) && self.is_kept()
    }
}

/// How long to wait before try `number`, counted from 1: twice as long each time, at most ten times the first.
pub(super) fn backoff(retry: &Retry, number: u32) -> Duration {
    let first = retry.backoff.unwrap_or(BACKOFF);
    first.saturating_mul(1 << number.saturating_sub(1).min(4)).min(first.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let request = |body| Request::post("/").body(body).unwrap();
        // (body, whether a route wants tries, whether there is a second request)
        for (body, wanted, again) in [
            (Body::empty(), false, true),
            (Body::whole("short"), true, true),
            (Body::whole("short"), false, false),
            (Body::whole(vec![0; 100_000]), true, false),
        ] {
            let mut replay = Replay::new(request(body), wanted.then_some(&retry)).await.unwrap();
            let first = replay.next().unwrap();
            assert_eq!(replay.next().is_some(), again);
            replay.back(first);
            assert!(replay.next().is_some(), "nothing of it was sent");
            assert!(!replay.is_harmless(), "a POST");
        }
    }
}
