//! Which rule a request follows.
//!
//! Gateway API's order over all rules of all routes: whole path, longest prefix, method, headers, query parameters, then the
//! older route, its name, the rule's place. Regular expressions stand between prefixes and rules for any path, as in Istio. What
//! a gRPC call meets first are GRPCRoutes, which are more specific; other requests do not meet them.
//!
//! Rules of a VirtualService are asked in their own order; where there is one, none of Gateway API's is asked.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, header};

use super::compiled::CompiledRule;
use super::condition::{Compiled, Condition, Verdict};
use super::ordered::{Entry, Ordered};
use super::table::{Candidate, Path, Table};
use super::{RequestMatch, RouteKind, Rule, ServiceRoutes};
use crate::http::Request;

/// The routes of a service, ready to be followed.
#[derive(Debug)]
pub struct Router {
    routes: Arc<ServiceRoutes>,
    rules: Vec<Arc<CompiledRule>>,
    producers: Ports,
    consumers: HashMap<Arc<str>, Ports>,
}

/// Which rule a request follows.
#[derive(Clone, Debug)]
pub enum Selected {
    /// This one.
    Rule(Matched),
    /// No route is attached for this port and caller: the request goes to the service itself.
    NoRoutes,
    /// Routes are attached, and none of their rules matches: 404.
    NoMatch,
}

/// A rule, and by what of it a request follows it.
#[derive(Clone, Debug)]
pub struct Matched {
    pub(super) rule: Arc<CompiledRule>,
    pub(super) matched: usize,
    /// Something of the match does not compile.
    pub(super) broken: bool,
}

impl Selected {
    /// The rule, if it is one.
    pub fn rule(&self) -> Option<&Rule> {
        match self {
            Self::Rule(matched) => Some(matched.rule()),
            Self::NoRoutes | Self::NoMatch => None,
        }
    }
}

impl Matched {
    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule.rule
    }

    /// The match of it.
    pub fn request_match(&self) -> Option<&RequestMatch> {
        self.rule.rule.matches.get(self.matched)
    }
}

/// By port.
#[derive(Debug, Default)]
struct Ports {
    named: HashMap<u16, Kinds>,
    /// At ports that no rule names. None where rules are for named ports only.
    other: Option<Kinds>,
}

#[derive(Debug, Default)]
struct Kinds {
    grpc: Table,
    http: Table,
    ordered: Ordered,
}

impl Ports {
    fn at(&self, port: u16) -> Option<&Kinds> {
        self.named.get(&port).or(self.other.as_ref())
    }

    /// Room for a rule of this port.
    fn prepare(&mut self, port: Option<u16>) {
        match port {
            Some(port) => drop(self.named.entry(port).or_default()),
            None => drop(self.other.get_or_insert_default()),
        }
    }

    /// Where a rule is asked.
    fn of<'a>(&'a mut self, rule: &Rule) -> impl Iterator<Item = &'a mut Kinds> {
        let wanted = rule.port;
        let of_port =
            move |(port, kinds): (&u16, &'a mut Kinds)| wanted.is_none_or(|wanted| wanted == *port).then_some(kinds);
        let named = self.named.iter_mut().filter_map(of_port);
        let other = wanted.is_none().then_some(self.other.as_mut()).flatten();
        named.chain(other)
    }

    fn add(&mut self, rule: &Rule, path: &Path, candidate: &Candidate) {
        for kinds in self.of(rule) {
            let table = match rule.kind {
                RouteKind::Grpc => &mut kinds.grpc,
                RouteKind::Http | RouteKind::VirtualService => &mut kinds.http,
            };
            table.add(path, candidate.clone());
        }
    }

    fn add_ordered(&mut self, rule: &Rule, entry: &Arc<Entry>) {
        self.of(rule).for_each(|kinds| kinds.ordered.add(entry.clone()));
    }

    fn finish(&mut self) {
        for kinds in self.named.values_mut().chain(&mut self.other) {
            kinds.grpc.finish();
            kinds.http.finish();
        }
    }
}

impl Router {
    /// Makes routes ready. Not for the data path: it compiles expressions.
    pub fn new(routes: Arc<ServiceRoutes>) -> Self {
        let (mut producers, mut consumers) = (Ports::default(), HashMap::<Arc<str>, Ports>::new());
        for rule in &routes.rules {
            match &rule.callers {
                None => producers.prepare(rule.port),
                Some(callers) => consumers.entry(callers.clone()).or_default().prepare(rule.port),
            }
        }
        let mut compiled = Compiled::default();
        let mut rules = Vec::with_capacity(routes.rules.len());
        for (number, rule) in routes.rules.iter().enumerate() {
            let ports = match &rule.callers {
                None => Some(&mut producers),
                Some(callers) => consumers.get_mut(callers),
            };
            if let Some(ports) = ports {
                for (matched, of) in rule.matches.iter().enumerate() {
                    if rule.kind == RouteKind::VirtualService {
                        let Some(condition) = Condition::new(of, &mut compiled) else { continue };
                        let candidate = Candidate { rule: number, matched, condition: condition.into() };
                        let Some(entry) = Entry::new(of, candidate, &mut compiled) else { continue };
                        ports.add_ordered(rule, &entry);
                        continue;
                    }
                    let path = Path::new(of.path.as_ref(), |text| compiled.get(text));
                    let Some(condition) = Condition::new(of, &mut compiled) else { continue };
                    ports.add(rule, &path, &Candidate { rule: number, matched, condition: condition.into() });
                }
            }
            rules.push(Arc::new(CompiledRule::new(rule, compiled.failed())));
        }
        producers.finish();
        consumers.values_mut().for_each(Ports::finish);
        Self { routes, rules, producers, consumers }
    }

    /// What it was made of.
    pub fn routes(&self) -> &Arc<ServiceRoutes> {
        &self.routes
    }

    /// Which rule a request follows that a caller of namespace `caller` sends to `port` of the service.
    pub fn select(&self, request: &Request, headers: &HeaderMap, caller: &str, port: u16) -> Selected {
        self.select_counted(request, headers, caller, port, &mut 0)
    }

    /// [`Self::select`] that counts the matches it looks at.
    fn select_counted(
        &self,
        request: &Request,
        headers: &HeaderMap,
        caller: &str,
        port: u16,
        tried: &mut usize,
    ) -> Selected {
        let own = self.consumers.get(caller).and_then(|ports| ports.at(port));
        let Some(kinds) = own.or_else(|| self.producers.at(port)) else { return Selected::NoRoutes };
        let found = match kinds.ordered.is_empty() {
            false => kinds.ordered.find(request, headers, caller, tried),
            true => {
                let grpc = is_grpc(headers).then(|| kinds.grpc.find(request, headers, tried)).flatten();
                grpc.or_else(|| kinds.http.find(request, headers, tried))
            }
        };
        let rule = |candidate: &Candidate| self.rules.get(candidate.rule).cloned();
        match found.and_then(|(candidate, verdict)| Some((rule(candidate)?, candidate.matched, verdict))) {
            Some((rule, matched, verdict)) => {
                Selected::Rule(Matched { rule, matched, broken: verdict == Verdict::Perhaps })
            }
            None => Selected::NoMatch,
        }
    }
}

/// `application/grpc`, and what begins so.
fn is_grpc(headers: &HeaderMap) -> bool {
    let of = |value: &http::HeaderValue| {
        value.as_bytes().get(..16).is_some_and(|begins| begins.eq_ignore_ascii_case(b"application/grpc"))
    };
    headers.get(header::CONTENT_TYPE).is_some_and(of)
}

#[cfg(test)]
mod tests;
