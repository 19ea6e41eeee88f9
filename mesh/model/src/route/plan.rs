//! What a rule does with a request: decided here, carried out by whoever holds the connection.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;

use super::compiled::{CompiledRule, Filters};
use super::select::Matched;
use super::{BackendTarget, Mirror, PathMatch, Retry, Rewrite, RouteKind, Rule, cors, path_edit, redirect};
use crate::address::NamespacedName;
use crate::http::Request;
use crate::reason::ReasonCode;

/// Of how many a mirror's share is.
const MILLION: u64 = 1_000_000;

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The waypoint answers by itself.
    Answer(Answer),
    /// It is sent on.
    Forward(Forward),
}

/// An answer of the waypoint's own; it has no body but the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Why there is no other, where that is a failure, and in words which rule or backend it is about.
    pub refused: Option<(ReasonCode, String)>,
}

/// A port of a service, and which of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct To {
    /// The service.
    pub service: NamespacedName,
    /// Its port.
    pub port: u16,
    /// The name of a subset; `None` is all endpoints.
    pub subset: Option<Arc<str>>,
}

impl To {
    /// None of a target that cannot be followed.
    pub(super) fn of(target: &BackendTarget) -> Option<Self> {
        let (service, port, subset) = match target {
            BackendTarget::Service(service, port) => (service, port, None),
            BackendTarget::Subset(service, port, subset) => (service, port, Some(subset.clone())),
            BackendTarget::Invalid(_) => return None,
        };
        Some(Self { service: service.clone(), port: *port, subset })
    }
}

/// Where a request goes, and how it is changed on the way.
#[derive(Clone, Debug)]
pub struct Forward {
    rule: Arc<CompiledRule>,
    backend: usize,
    /// Path and query to send.
    pub target: PathAndQuery,
    /// What to send as `Host`, where that is not the request's own.
    pub authority: Option<Arc<str>>,
    /// Who gets a copy.
    pub mirrors: Vec<To>,
    /// What the answer says of origins; empty where nobody asked.
    cors: HeaderMap,
}

impl Answer {
    /// To a request that no rule matches, though routes are attached.
    pub fn no_route(service: &NamespacedName) -> Self {
        let why = format!("no rule of the routes of {service} matches the request");
        Self::refused(StatusCode::NOT_FOUND, ReasonCode::NoRoute, why)
    }

    fn refused(status: StatusCode, code: ReasonCode, why: String) -> Self {
        Self { status, headers: HeaderMap::new(), refused: Some((code, why)) }
    }
}

impl Matched {
    /// What the rule does with the request. `port` is the service's that was dialled; `roll` gives random numbers: one for the
    /// backend, one for each mirror.
    pub fn plan(&self, request: &Request, headers: &HeaderMap, port: u16, mut roll: impl FnMut() -> u64) -> Plan {
        self.decide(request, headers, port, &mut roll).unwrap_or_else(|answer| Plan::Answer(*answer))
    }

    fn decide(
        &self,
        request: &Request,
        headers: &HeaderMap,
        port: u16,
        roll: &mut dyn FnMut() -> u64,
    ) -> Result<Plan, Box<Answer>> {
        let rule = &self.rule;
        if self.broken {
            return Err(invalid(&rule.rule, rule.broken.as_deref().unwrap_or("its matches do not compile")));
        }
        let filters = rule.filters.as_ref().map_err(|why| invalid(&rule.rule, why))?;
        if let Some(cors) = &filters.cors
            && let Some(headers) = cors::preflight(cors, request, headers)
        {
            return Ok(Plan::Answer(Answer { status: StatusCode::NO_CONTENT, headers, refused: None }));
        }
        let cors = filters.cors.as_ref().map(|cors| cors::answer(cors, headers)).unwrap_or_default();
        let matched = self.request_match().and_then(|matched| matched.path.as_ref());
        if let Some(redirect) = &filters.redirect {
            let location = redirect::location(redirect, request, matched, port);
            let location = location.ok_or_else(|| invalid(&rule.rule, "its redirect makes no URL of this path"))?;
            let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
            let mut headers = HeaderMap::from_iter([(header::LOCATION, location)]);
            filters.answer.iter().for_each(|edit| edit.apply(&mut headers));
            merge(&cors, &mut headers);
            return Ok(Plan::Answer(Answer { status, headers, refused: None }));
        }
        let backend = rule.backend(roll()).ok_or_else(|| no_backend(&rule.rule, "it has none with a weight"))?;
        let chosen = rule.rule.backends.get(backend).map(|backend| &backend.target);
        if let Some(BackendTarget::Invalid(why)) = chosen {
            return Err(no_backend(&rule.rule, why));
        }
        let own = rule.backends.get(backend).map(Result::as_ref);
        let own = own.transpose().map_err(|why| invalid(&rule.rule, why))?;
        let of_both = || [Some(filters), own].into_iter().flatten();
        let mut forward = Forward {
            rule: rule.clone(),
            backend,
            target: request.target.clone(),
            authority: None,
            mirrors: Vec::new(),
            cors,
        };
        for edit in of_both().flat_map(|filters| &filters.request) {
            forward.authority = edit.host.clone().or(forward.authority);
        }
        for rewrite in of_both().filter_map(|filters| filters.rewrite.as_ref()) {
            forward.rewrite(rewrite, request, matched)?;
        }
        for mirror in of_both().flat_map(|filters| &filters.mirrors) {
            forward.mirrors.extend(mirrored(mirror, roll()));
        }
        Ok(Plan::Forward(forward))
    }
}

impl Forward {
    fn rewrite(&mut self, to: &Rewrite, request: &Request, matched: Option<&PathMatch>) -> Result<(), Box<Answer>> {
        if let Some(hostname) = &to.hostname {
            self.authority = Some(hostname.clone());
        }
        if let Some(edit) = &to.path {
            let path = path_edit::edited(edit, request.path(), matched);
            let target = path.and_then(|path| path_edit::with_query(path, request.query()));
            let why = "its rewrite makes no path of this one";
            self.target = target.ok_or_else(|| invalid(&self.rule.rule, why))?;
        }
        Ok(())
    }

    /// The rule that is followed.
    pub fn rule(&self) -> &Rule {
        &self.rule.rule
    }

    /// Where to send the request. None is never planned.
    pub fn backend(&self) -> Option<To> {
        To::of(&self.rule.rule.backends.get(self.backend)?.target)
    }

    /// Edits the headers of the request, first as the rule says, then as its backend does.
    pub fn edit_request(&self, headers: &mut HeaderMap) {
        self.filters().flat_map(|filters| &filters.request).for_each(|edit| edit.apply(headers));
    }

    /// Edits the headers of the answer, in the same order; what is said of origins is the route's to say.
    pub fn edit_answer(&self, headers: &mut HeaderMap) {
        self.filters().flat_map(|filters| &filters.answer).for_each(|edit| edit.apply(headers));
        merge(&self.cors, headers);
    }

    fn filters(&self) -> impl Iterator<Item = &Filters> {
        let own = self.rule.backends.get(self.backend);
        [Some(&self.rule.filters), own].into_iter().flatten().filter_map(|filters| filters.as_ref().ok())
    }

    /// How long the request may take, with all its tries.
    pub fn request_timeout(&self) -> Option<Duration> {
        self.rule.rule.request_timeout.filter(|limit| !limit.is_zero())
    }

    /// How long one try may take.
    pub fn backend_timeout(&self) -> Option<Duration> {
        self.rule.rule.backend_timeout.filter(|limit| !limit.is_zero())
    }

    /// What is tried again.
    pub fn retry(&self) -> Option<&Retry> {
        self.rule.rule.retry.as_ref().filter(|retry| retry.attempts > 0)
    }
}

/// The backend of a mirror, for its share of requests. One that cannot be followed gets nothing: a copy is nobody's request.
fn mirrored(mirror: &Mirror, roll: u64) -> Option<To> {
    To::of(&mirror.backend).filter(|_| roll % MILLION < mirror.millionths.into())
}

/// Replaces headers by those that are given; `Vary` is added to.
fn merge(given: &HeaderMap, headers: &mut HeaderMap) {
    for (name, value) in given {
        match *name == header::VARY {
            true => drop(headers.append(name, HeaderValue::clone(value))),
            false => drop(headers.insert(name, value.clone())),
        }
    }
}

fn invalid(rule: &Rule, why: &str) -> Box<Answer> {
    let why = format!("{} of route {} cannot be followed: {why}", rule.name, rule.route);
    Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, ReasonCode::RouteInvalid, why).into()
}

fn no_backend(rule: &Rule, why: &str) -> Box<Answer> {
    let why = format!("{} of route {} has no backend for the request: {why}", rule.name, rule.route);
    // As Gateway API says it, and as Istio's proxies do.
    let status = match rule.kind {
        RouteKind::Http | RouteKind::Grpc => StatusCode::INTERNAL_SERVER_ERROR,
        RouteKind::VirtualService => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::refused(status, ReasonCode::NoBackend, why).into()
}

#[cfg(test)]
mod tests;
