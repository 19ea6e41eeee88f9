//! Asks the API server as the plan says, and carries the answers on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::Request;
use kube::{Client, Error};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::answer::{self, Line};
use super::event::{Event, Query};
use super::lines::Lines;
use super::metrics::WatchMetrics;
use super::plan::{Ask, End, Next, Plan};
use crate::raw::{Meta, Raw};

/// Objects in a page of a list.
const PAGE: usize = 500;
/// How long until an answer begins, and a page is whole.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a watch may be silent: a server sends a bookmark about every minute.
const SILENCE: Duration = Duration::from_secs(150);
/// Shortest and longest time after which the server is asked to end a watch, so that connections spread over its replicas.
const LIFE: std::ops::Range<u64> = 240..480;

/// A watch in progress.
struct Follower<T, F> {
    client: Client,
    query: Query,
    read: F,
    events: Sender<Event<T>>,
    plan: Plan,
}

/// Nobody listens any more.
struct Gone;

/// Never returns while somebody listens.
pub(super) async fn follow<T: Send, F: Fn(Raw<'_>) -> T + Send + Sync>(
    client: Client,
    query: Query,
    metrics: WatchMetrics,
    read: F,
    events: Sender<Event<T>>,
) {
    let plan = Plan::new(query.resource);
    let mut follower = Follower { client, query, read, events, plan };
    let mut trouble = None;
    while let Ok(end) = follower.ask(&mut trouble).await {
        metrics.ended(follower.query.resource, &end);
        let Next { nothing, wait, trouble: now } = follower.plan.after(end);
        let resource = follower.query.resource;
        if nothing {
            tracing::info!(%resource, "the API server does not have this kind: taken for one without objects");
            if follower.events.send(Event::All(Vec::new())).await.is_err() {
                return;
            }
        }
        if let Some(now) = now.filter(|now| trouble.as_ref() != Some(now)) {
            tracing::warn!(%resource, "the watch failed and is tried again: {now}");
            trouble = Some(now);
        }
        // Between half of it and all, so that watches that failed together do not come back together.
        sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
    }
}

impl<T: Send, F: Fn(Raw<'_>) -> T + Send + Sync> Follower<T, F> {
    /// Asks what the plan says, until the answer ends.
    async fn ask(&mut self, trouble: &mut Option<String>) -> Result<End, Gone> {
        match self.plan.ask() {
            Ask::Pages => self.pages().await,
            Ask::Stream => {
                let all = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
                self.watch(all, Some(BTreeMap::new()), trouble).await
            }
            Ask::Changes { since } => self.watch(&format!("&resourceVersion={}", escaped(&since)), None, trouble).await,
        }
    }

    /// Everything, page by page. All of them are of the version of the first.
    async fn pages(&mut self) -> Result<End, Gone> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let mut more = format!("limit={PAGE}");
            if !next.is_empty() {
                let _ = write!(more, "&continue={}", escaped(&next));
            }
            let text = match timeout(ANSWER, self.client.request_text(self.request(&more))).await {
                Ok(Ok(text)) => text,
                Ok(Err(error)) => return Ok(end(error)),
                Err(_) => return Ok(End::Broken(format!("no answer within {ANSWER:?}"))),
            };
            let page = match answer::page(&text) {
                Ok(page) => page,
                Err(error) => return Ok(End::Broken(format!("the list cannot be read: {error}"))),
            };
            all.extend(page.items.into_iter().map(&self.read));
            if page.next.is_empty() {
                self.tell(Event::All(all)).await?;
                return Ok(End::Listed { version: page.version });
            }
            next = page.next;
        }
    }

    /// What changes; and at first, into `fresh`, what there is.
    async fn watch(
        &mut self,
        more: &str,
        mut fresh: Option<BTreeMap<(String, String), T>>,
        trouble: &mut Option<String>,
    ) -> Result<End, Gone> {
        let life = rand::random_range(LIFE);
        let request = self.request(&format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={life}{more}"));
        let body = match timeout(ANSWER, self.client.request_stream(request)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Ok(end(error)),
            Err(_) => return Ok(End::Broken(format!("no answer within {ANSWER:?}"))),
        };
        let mut lines = Lines::new(Box::pin(body));
        loop {
            let text = match timeout(SILENCE, lines.next()).await {
                Ok(Ok(Some(text))) => text,
                Ok(Ok(None)) => return Ok(End::Served),
                Ok(Err(error)) => return Ok(End::Broken(error.to_string())),
                Err(_) => return Ok(End::Broken(format!("silent for {SILENCE:?}"))),
            };
            let line = match answer::line(text) {
                Ok(line) => line,
                Err(error) => return Ok(End::Broken(format!("the API server says what is no event: {error}"))),
            };
            let key = |meta: &Meta| (meta.namespace.clone(), meta.name.clone());
            let version = match line {
                Line::Error { code, message } => return Ok(End::Refused { code, message }),
                Line::Apply(raw) => {
                    let (key, version) = (key(&raw.meta), raw.meta.resource_version.clone());
                    let object = (self.read)(raw);
                    match &mut fresh {
                        Some(fresh) => drop(fresh.insert(key, object)),
                        None => self.tell(Event::Apply(object)).await?,
                    }
                    version
                }
                Line::Delete(meta) => {
                    let version = meta.resource_version.clone();
                    match &mut fresh {
                        Some(fresh) => drop(fresh.remove(&key(&meta))),
                        None => self.tell(Event::Delete(meta)).await?,
                    }
                    version
                }
                Line::Bookmark { version, all } => {
                    if all && let Some(fresh) = fresh.take() {
                        self.tell(Event::All(fresh.into_values().collect())).await?;
                    }
                    version
                }
            };
            // Before everything was said, there is nothing to go on from.
            if fresh.is_none() {
                if self.plan.heard(&version) {
                    tracing::info!(resource = %self.query.resource, "the watch goes on");
                }
                *trouble = None;
            }
        }
    }

    async fn tell(&self, event: Event<T>) -> Result<(), Gone> {
        self.events.send(event).await.map_err(|_| Gone)
    }

    fn request(&self, more: &str) -> Request<Vec<u8>> {
        let Query { resource, namespace, fields, labels } = &self.query;
        let mut uri = format!("{}?{more}", resource.path(self.plan.version(), namespace.as_deref()));
        for (name, selector) in [("fieldSelector", fields), ("labelSelector", labels)] {
            if !selector.is_empty() {
                let _ = write!(uri, "&{name}={}", escaped(selector));
            }
        }
        let mut request = Request::new(Vec::new());
        // Only a namespace that is none could make it none, and the server says so then.
        *request.uri_mut() = uri.parse().unwrap_or_default();
        request
    }
}

fn escaped(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

fn end(error: Error) -> End {
    match error {
        Error::Api(status) => End::Refused { code: status.code, message: status.message },
        other => End::Broken(crate::write::causes(&other)),
    }
}
