//! Ready when every named part has said so.
//!
//! A program registers all its parts before it serves `/healthz/ready`; each part then speaks for itself, and may take its word back.

use std::fmt;
use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::sync::watch;

use crate::http_server::{Router, response};

/// The parts of a program and whether each is ready. Clones share them.
#[derive(Clone, Debug)]
pub struct Readiness {
    parts: watch::Sender<Vec<State>>,
}

/// One named part. Dropping it leaves its last word standing: a part that ended before it was ready stays pending.
#[derive(Debug)]
pub struct Part {
    parts: watch::Sender<Vec<State>>,
    index: usize,
}

/// A part the program still waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The part's name.
    pub name: Arc<str>,
    /// Why it is not ready, if it said.
    pub detail: Option<String>,
}

#[derive(Clone, Debug)]
struct State {
    name: Arc<str>,
    ready: bool,
    detail: Option<String>,
}

impl Readiness {
    /// No parts yet, which counts as ready.
    pub fn new() -> Self {
        Self { parts: watch::Sender::new(Vec::new()) }
    }

    /// Adds a part that is not ready yet.
    pub fn register(&self, name: impl Into<Arc<str>>) -> Part {
        let mut index = 0;
        self.parts.send_modify(|parts| {
            index = parts.len();
            parts.push(State { name: name.into(), ready: false, detail: None });
        });
        Part { parts: self.parts.clone(), index }
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        all_ready(&self.parts.borrow())
    }

    /// The parts that are not, in the order they were registered.
    pub fn pending(&self) -> Vec<Pending> {
        let parts = self.parts.borrow();
        let pending = parts.iter().filter(|part| !part.ready);
        pending.map(|part| Pending { name: part.name.clone(), detail: part.detail.clone() }).collect()
    }

    /// What the parts that are ready have to say all the same.
    pub fn remarks(&self) -> Vec<Pending> {
        let parts = self.parts.borrow();
        let remarks = parts.iter().filter(|part| part.ready && part.detail.is_some());
        remarks.map(|part| Pending { name: part.name.clone(), detail: part.detail.clone() }).collect()
    }

    /// `/healthz/ready`: 200 `ready`, with remarks below if there are any; or 500 naming the parts that are not.
    pub fn routes(&self) -> Router {
        let readiness = self.clone();
        Router::new().route(Method::GET, "/healthz/ready", "Whether this process is ready", move |_| {
            let pending: Vec<String> = readiness.pending().iter().map(Pending::to_string).collect();
            let (status, text) = match pending.as_slice() {
                [] => {
                    let remarks = readiness.remarks().into_iter().map(|remark| format!("{remark}\n"));
                    (StatusCode::OK, std::iter::once("ready\n".to_owned()).chain(remarks).collect())
                }
                pending => (StatusCode::INTERNAL_SERVER_ERROR, format!("not ready, pending: {}\n", pending.join(", "))),
            };
            std::future::ready(response(status, "text/plain; charset=utf-8", text))
        })
    }

    /// Returns once every part is ready.
    pub async fn ready(&self) {
        // Cannot fail: `self` holds a sender.
        let _ = self.parts.subscribe().wait_for(|parts| all_ready(parts)).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Part {
    /// This part is ready.
    pub fn ready(&self) {
        self.set(true, None);
    }

    /// This part is ready, and `detail` is to be known: what of it is not well, and why.
    pub fn ready_but(&self, detail: impl Into<String>) {
        self.set(true, Some(detail.into()));
    }

    /// This part is not ready, or no longer; `detail` says why, for the person reading `/healthz/ready`.
    pub fn not_ready(&self, detail: impl Into<String>) {
        self.set(false, Some(detail.into()));
    }

    /// Says why, if it is not ready; a part that is ready stays so.
    pub fn still_pending(&self, detail: impl Into<String>) {
        let detail = detail.into();
        self.parts.send_if_modified(|parts| {
            let state = &mut parts[self.index];
            let changed = !state.ready && state.detail.as_ref() != Some(&detail);
            if changed {
                state.detail = Some(detail);
            }
            changed
        });
    }

    fn set(&self, ready: bool, detail: Option<String>) {
        self.parts.send_if_modified(|parts| {
            let state = &mut parts[self.index];
            let changed = state.ready != ready || state.detail != detail;
            state.ready = ready;
            state.detail = detail;
            changed
        });
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn all_ready(parts: &[State]) -> bool {
    parts.iter().all(|part| part.ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(readiness: &Readiness) -> Vec<String> {
        readiness.pending().iter().map(Pending::to_string).collect()
    }

    #[test]
    fn ready_when_every_part_said_so() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (xds, pods) = (readiness.register("xds"), readiness.register("pods"));
        assert_eq!(pending(&readiness), ["xds", "pods"]);
        xds.ready();
        pods.not_ready("node agent not connected");
        assert_eq!(pending(&readiness), ["pods (node agent not connected)"]);
        assert!(!readiness.is_ready());
        pods.ready();
        assert!(readiness.is_ready());
        xds.still_pending("fails");
        assert!(readiness.is_ready());
        xds.not_ready("lost");
        assert_eq!(pending(&readiness), ["xds (lost)"]);
        xds.still_pending("lost again");
        assert_eq!(pending(&readiness), ["xds (lost again)"]);
    }

    #[test]
    fn ready_with_a_remark() {
        let readiness = Readiness::new();
        let pods = readiness.register("pods");
        pods.ready_but("one is not served");
        assert!(readiness.is_ready());
        assert_eq!(readiness.remarks()[0].to_string(), "pods (one is not served)");
        pods.ready();
        assert_eq!(readiness.remarks(), []);
    }

    #[test]
    fn a_part_that_ended_early_stays_pending() {
        let readiness = Readiness::new();
        drop(readiness.register("xds"));
        assert_eq!(pending(&readiness), ["xds"]);
    }

    #[tokio::test]
    async fn can_be_waited_for() {
        let readiness = Readiness::new();
        let part = readiness.register("xds");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        part.ready();
        waiting.await.unwrap();
    }
}
