//! GRPCRoute → Rules. A method of gRPC is a path: `/service/method`.

use mesh_model::route::{PathMatch, RequestMatch, Rule};

use super::world::World;
use super::{backends, http_filter};
use crate::resources::gateway_api::common::MatchType;
use crate::resources::gateway_api::grpc_route::{GrpcMatch, GrpcRoute, GrpcRule, MethodMatch};

/// The rules of a route, as `blank` but for what they say themselves.
pub(super) fn rules(route: &GrpcRoute, blank: &Rule, world: &World<'_>) -> Vec<Rule> {
    let namespace = &*blank.route.namespace;
    let one = |(i, rule): (usize, &GrpcRule)| Rule {
        name: rule.name.as_deref().map_or_else(|| format!("rules[{i}]").into(), Into::into),
        matches: matches(&rule.matches),
        filters: http_filter::of(&rule.filters, namespace, world),
        backends: backends::of_rule(&rule.backend_refs, namespace, world),
        ..blank.clone()
    };
    route.spec.rules.iter().enumerate().map(one).collect()
}

fn matches(written: &[GrpcMatch]) -> Vec<RequestMatch> {
    if written.is_empty() {
        return vec![RequestMatch::default()];
    }
    let one = |written: &GrpcMatch| RequestMatch {
        path: written.method.as_ref().map(method),
        headers: backends::header_matches(&written.headers),
        ..RequestMatch::default()
    };
    written.iter().map(one).collect()
}

fn method(written: &MethodMatch) -> PathMatch {
    const ANY: &str = "[^/]+";
    let (service, method) = (written.service.as_deref(), written.method.as_deref());
    match (written.kind.unwrap_or_default(), service, method) {
        (MatchType::Exact, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
        (MatchType::Exact, Some(service), None) => PathMatch::Beginning(format!("/{service}/").into()),
        // Of letters, digits and underscores, it means itself.
        (MatchType::Exact, None, method) => PathMatch::Regex(format!("/{ANY}/{}", method.unwrap_or(ANY)).into()),
        (MatchType::RegularExpression, service, method) => {
            PathMatch::Regex(format!("/(?:{})/(?:{})", service.unwrap_or(ANY), method.unwrap_or(ANY)).into())
        }
    }
}
