//! Which rate limits a request is counted by that follows a rule.

use super::{RouteKind, Rule};
use crate::rate_limit::{LimitedRoute, Target};

impl Rule {
    /// Whether a limit with this target is for what follows the rule. One of a service or Gateway is for all requests.
    pub fn is_limited_by(&self, target: &Target) -> bool {
        let (kind, LimitedRoute { route, rule }) = match target {
            Target::Gateway(_) | Target::Service(_) => return true,
            Target::HttpRoute(of) => (RouteKind::Http, of),
            Target::GrpcRoute(of) => (RouteKind::Grpc, of),
        };
        self.kind == kind && self.route == *route && rule.as_ref().is_none_or(|rule| *rule == self.name)
    }
}
