//! Whether a request has a line in the access log, where its service does not have them all logged.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use mesh_model::access_log::{AccessLogging, Seen, SeenRequest};

use super::caller::Caller;

/// What is asked when it ends.
#[derive(Clone)]
pub(super) struct Logging {
    settings: Arc<AccessLogging>,
    /// Those that are asked about, as the caller sent them.
    pub(super) headers: HeaderMap,
}

impl Logging {
    /// Of a request with these headers.
    pub(super) fn new(settings: &Arc<AccessLogging>, headers: &HeaderMap) -> Self {
        let mut kept = HeaderMap::new();
        for name in settings.headers() {
            // Two expressions may ask for the same.
            if !kept.contains_key(name) {
                kept.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
            }
        }
        Self { settings: settings.clone(), headers: kept }
    }

    /// Whether there is a line.
    pub(super) fn logs(&self, caller: &Caller, upstream: Option<SocketAddr>, request: SeenRequest<'_>) -> bool {
        self.settings.logs(&Seen {
            source: caller.from,
            destination: caller.target.dialled,
            upstream,
            peer: Some(&caller.identity),
            request: Some(request),
        })
    }
}
