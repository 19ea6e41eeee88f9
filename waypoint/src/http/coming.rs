//! The body of a request, of which something may be read before it passes: to be shown to whoever is asked about it.

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body as _, Incoming};
use mesh_model::reason::ReasonCode;
use tokio::time::{Instant, timeout_at};

use super::answer::Refused;
use super::report::{Received, Report};
use crate::body::{Begun, Body};

/// A body that has not begun to pass.
pub(super) struct Coming {
    body: State,
    /// Bytes, if it says so.
    pub(super) length: Option<u64>,
}

enum State {
    Untouched(Incoming),
    Begun(Begun),
    /// Its caller has broken it off.
    Broken,
}

impl Coming {
    pub(super) fn new(body: Incoming) -> Self {
        Self { length: body.size_hint().exact(), body: State::Untouched(body) }
    }

    /// Reads its beginning: until it has ended, or more than `most` bytes have come.
    ///
    /// # Errors
    /// When the caller breaks off, or takes too long.
    pub(super) async fn begin(&mut self, most: usize, deadline: Instant) -> Result<(), Refused> {
        let mut begun = match std::mem::replace(&mut self.body, State::Broken) {
            State::Untouched(body) => Begun::new(body),
            State::Begun(begun) => begun,
            State::Broken => Begun::ended(),
        };
        match timeout_at(deadline, begun.read(most)).await {
            Ok(Ok(())) => {
                self.body = State::Begun(begun);
                Ok(())
            }
            Ok(Err(error)) => {
                let why = format!("its body broke off: {error}");
                Err(Refused::new(StatusCode::BAD_REQUEST, ReasonCode::CallerGone, why))
            }
            Err(_) => {
                let why = "what an authorizer is to see of its body did not come in time";
                Err(Refused::new(StatusCode::REQUEST_TIMEOUT, ReasonCode::RequestTimeout, why))
            }
        }
    }

    /// What has been read of it.
    pub(super) fn beginning(&self) -> Bytes {
        match &self.body {
            State::Begun(begun) => begun.beginning().clone(),
            State::Untouched(_) | State::Broken => Bytes::new(),
        }
    }

    /// The whole body, which passes from now on and is counted.
    pub(super) fn into_body(self, report: &Report) -> Body {
        let body = match self.body {
            State::Untouched(body) => Body::passing(body),
            State::Begun(begun) => begun.into_body(),
            State::Broken => Body::empty(),
        };
        body.watched(Received(report.received.clone()))
    }
}
