//! Routes ↔ `ambit.v1.ServiceRoutes`: the service and its rules here; `matches` and `filters` of a rule; `streams` those
//! of what is no HTTP; `parts` are what they have in common.

mod access_logging;
mod fault;
mod filters;
mod matches;
mod parts;
mod streams;
mod tokens;
mod tracing;

use std::sync::Arc;

use mesh_proto::ambit as pb;
use pb::port_protocol::Protocol as WireProtocol;

use parts::{duration, duration_to_wire, or_empty, port, service, set, target, target_to_wire};

use super::{Backend, PortProtocol, Protocol, Retry, RouteKind, Rule, ServiceRoutes, StreamRule};
use crate::access_log::InvalidExpression;
use crate::address::{NamespacedName, is_key_part};
use crate::rate_limit::{InvalidRateLimit, wire as rate_limit};
use crate::shared::text;
use crate::token::JwtRule;
use crate::traffic::{InvalidTraffic, PortTraffic, Subset};

pub use parts::InvalidRule;

/// Why the routes of a service were refused, all of them: what is held of the service stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoutes {
    /// No namespace or hostname, or one that would make the key ambiguous.
    #[error("namespace or hostname is empty or holds a slash")]
    Key,
    /// A port that is none.
    #[error("port {0} is not 1 to 65535")]
    Port(u32),
    /// A protocol this version does not know.
    #[error("protocol {0} is not supported")]
    Protocol(i32),
    /// A policy that is not named by namespace and name.
    #[error("policy {0:?} is not namespace/name")]
    Policy(String),
    /// What holds for a port's endpoints.
    #[error("traffic: {0}")]
    Traffic(#[from] InvalidTraffic),
    /// A rule on tokens that breaks one.
    #[error("a jwtRule of {0:?} has no issuer, or names a header or claim that is none")]
    Token(String),
    /// Settings of tracing that break a rule.
    #[error("tracing names a collector or header that is none, or samples more than everything")]
    Tracing,
    /// An expression of its access log that is none.
    #[error("the filter of its access log: {0}")]
    AccessLogging(#[source] InvalidExpression),
    /// A rate limit that breaks a rule.
    #[error("a rate limit: {0}")]
    RateLimit(#[from] InvalidRateLimit),
    /// A rule that breaks one.
    #[error("{rule} of route {route:?}: {error}")]
    Rule {
        /// The route, `namespace/name`.
        route: String,
        /// The rule.
        rule: String,
        /// What is wrong with it.
        error: InvalidRule,
    },
}

impl TryFrom<pb::ServiceRoutes> for ServiceRoutes {
    type Error = InvalidRoutes;

    fn try_from(routes: pb::ServiceRoutes) -> Result<Self, InvalidRoutes> {
        if !is_key_part(&routes.namespace) || !is_key_part(&routes.hostname) {
            return Err(InvalidRoutes::Key);
        }
        let policy = |name: String| NamespacedName::parse_shared(&name).ok_or(InvalidRoutes::Policy(name));
        Ok(Self {
            service: service(&routes.namespace, &routes.hostname),
            ports: routes.ports.into_iter().map(port_protocol).collect::<Result<_, _>>()?,
            rules: routes.rules.into_iter().map(rule).collect::<Result<_, _>>()?,
            streams: routes.streams.into_iter().map(stream).collect::<Result<_, _>>()?,
            policies: routes.policies.into_iter().map(policy).collect::<Result<_, _>>()?,
            traffic: routes.traffic.into_iter().map(PortTraffic::try_from).collect::<Result<_, _>>()?,
            tokens: routes.jwt_rules.iter().map(token).collect::<Result<_, _>>()?,
            tracing: match &routes.tracing {
                Some(tracing) => Some(tracing::read(tracing).ok_or(InvalidRoutes::Tracing)?.into()),
                None => None,
            },
            access_logging: match &routes.access_logging {
                Some(wire) => Some(access_logging::read(wire).map_err(InvalidRoutes::AccessLogging)?.into()),
                None => None,
            },
            subsets: routes.subsets.into_iter().map(subset).collect::<Result<_, _>>()?,
            rate_limits: routes.rate_limits.into_iter().map(rate_limit::read).collect::<Result<_, _>>()?,
        })
    }
}

fn subset(wire: pb::Subset) -> Result<Arc<Subset>, InvalidRoutes> {
    Subset::try_from(wire).map(Arc::new).map_err(InvalidRoutes::Traffic)
}

fn token(wire: &pb::JwtRule) -> Result<JwtRule, InvalidRoutes> {
    tokens::read(wire).ok_or_else(|| InvalidRoutes::Token(wire.authentication.clone()))
}

fn port_protocol(wire: pb::PortProtocol) -> Result<PortProtocol, InvalidRoutes> {
    let protocol = match WireProtocol::try_from(wire.protocol) {
        Ok(WireProtocol::Http) => Protocol::Http,
        Ok(WireProtocol::Http2) => Protocol::Http2,
        Ok(WireProtocol::Grpc) => Protocol::Grpc,
        Ok(WireProtocol::WebSocket) => Protocol::WebSocket,
        Ok(WireProtocol::Tcp) => Protocol::Tcp,
        Ok(WireProtocol::Tls) => Protocol::Tls,
        Ok(WireProtocol::Unspecified) | Err(_) => return Err(InvalidRoutes::Protocol(wire.protocol)),
    };
    Ok(PortProtocol { port: port(wire.port).ok_or(InvalidRoutes::Port(wire.port))?, protocol })
}

fn rule(wire: pb::RouteRule) -> Result<Rule, InvalidRoutes> {
    let (route, rule) = (wire.route.clone(), wire.name.clone());
    valid_rule(wire).map_err(|error| InvalidRoutes::Rule { route, rule, error })
}

fn stream(wire: pb::StreamRule) -> Result<Arc<StreamRule>, InvalidRoutes> {
    let (route, rule) = (wire.route.clone(), wire.name.clone());
    streams::read(wire).map(Arc::new).map_err(|error| InvalidRoutes::Rule { route, rule, error })
}

fn valid_rule(wire: pb::RouteRule) -> Result<Rule, InvalidRule> {
    use pb::route_rule::Kind;
    if wire.matches.is_empty() {
        return Err(InvalidRule::NoMatch);
    }
    Ok(Rule {
        kind: match Kind::try_from(wire.kind) {
            Ok(Kind::Http) => RouteKind::Http,
            Ok(Kind::Grpc) => RouteKind::Grpc,
            Ok(Kind::VirtualService) => RouteKind::VirtualService,
            Ok(Kind::Unspecified) | Err(_) => return Err(InvalidRule::Kind(wire.kind)),
        },
        route: NamespacedName::parse_shared(&wire.route).ok_or(InvalidRule::Route)?,
        name: text(&wire.name),
        port: match wire.port {
            0 => None,
            number => Some(port(number).ok_or(InvalidRule::Range("port", number))?),
        },
        callers: set(&wire.callers),
        matches: wire.matches.into_iter().map(matches::read).collect::<Result<_, _>>()?,
        filters: wire.filters.into_iter().map(filters::read).collect::<Result<_, _>>()?,
        backends: wire.backends.into_iter().map(backend).collect::<Result<_, _>>()?,
        request_timeout: duration("the request's time-out", wire.request_timeout)?,
        backend_timeout: duration("the backend's time-out", wire.backend_timeout)?,
        retry: wire.retry.map(retry).transpose()?,
        fault: wire.fault.map(fault::read).transpose()?,
    })
}

fn backend(wire: pb::Backend) -> Result<Backend, InvalidRule> {
    Ok(Backend {
        target: target(wire.target)?,
        weight: wire.weight,
        filters: wire.filters.into_iter().map(filters::read).collect::<Result<_, _>>()?,
    })
}

fn retry(wire: pb::Retry) -> Result<Retry, InvalidRule> {
    let code = |code: u32| match u16::try_from(code) {
        Ok(code @ 400..=599) => Ok(code),
        _ => Err(InvalidRule::Range("a retry's code", code)),
    };
    let grpc_code = |code: u32| match u8::try_from(code) {
        Ok(code @ 1..=16) => Ok(code),
        _ => Err(InvalidRule::Range("a retry's code of gRPC", code)),
    };
    Ok(Retry {
        codes: wire.codes.into_iter().map(code).collect::<Result<_, _>>()?,
        grpc_codes: wire.grpc_codes.into_iter().map(grpc_code).collect::<Result<_, _>>()?,
        attempts: wire.attempts,
        backoff: duration("a retry's backoff", wire.backoff)?,
    })
}

impl From<&ServiceRoutes> for pb::ServiceRoutes {
    fn from(routes: &ServiceRoutes) -> Self {
        Self {
            namespace: routes.service.namespace.to_string(),
            hostname: routes.service.name.to_string(),
            ports: routes.ports.iter().map(port_protocol_to_wire).collect(),
            rules: routes.rules.iter().map(rule_to_wire).collect(),
            streams: routes.streams.iter().map(|rule| streams::write(rule)).collect(),
            policies: routes.policies.iter().map(ToString::to_string).collect(),
            traffic: routes.traffic.iter().map(Into::into).collect(),
            jwt_rules: routes.tokens.iter().map(tokens::write).collect(),
            tracing: routes.tracing.as_deref().map(tracing::write),
            access_logging: routes.access_logging.as_deref().map(access_logging::write),
            subsets: routes.subsets.iter().map(|subset| (&**subset).into()).collect(),
            rate_limits: routes.rate_limits.iter().map(rate_limit::write).collect(),
        }
    }
}

fn port_protocol_to_wire(port: &PortProtocol) -> pb::PortProtocol {
    let protocol = match port.protocol {
        Protocol::Http => WireProtocol::Http,
        Protocol::Http2 => WireProtocol::Http2,
        Protocol::Grpc => WireProtocol::Grpc,
        Protocol::WebSocket => WireProtocol::WebSocket,
        Protocol::Tcp => WireProtocol::Tcp,
        Protocol::Tls => WireProtocol::Tls,
    };
    pb::PortProtocol { port: port.port.into(), protocol: protocol.into() }
}

fn rule_to_wire(rule: &Rule) -> pb::RouteRule {
    use pb::route_rule::Kind;
    pb::RouteRule {
        kind: match rule.kind {
            RouteKind::Http => Kind::Http,
            RouteKind::Grpc => Kind::Grpc,
            RouteKind::VirtualService => Kind::VirtualService,
        }
        .into(),
        route: rule.route.to_string(),
        name: rule.name.to_string(),
        port: rule.port.unwrap_or_default().into(),
        callers: or_empty(rule.callers.as_ref()),
        matches: rule.matches.iter().map(matches::write).collect(),
        filters: rule.filters.iter().map(filters::write).collect(),
        backends: rule.backends.iter().map(backend_to_wire).collect(),
        request_timeout: rule.request_timeout.map(duration_to_wire),
        backend_timeout: rule.backend_timeout.map(duration_to_wire),
        retry: rule.retry.as_ref().map(retry_to_wire),
        fault: rule.fault.as_ref().map(fault::write),
    }
}

fn backend_to_wire(backend: &Backend) -> pb::Backend {
    pb::Backend {
        target: Some(target_to_wire(&backend.target)),
        weight: backend.weight,
        filters: backend.filters.iter().map(filters::write).collect(),
    }
}

fn retry_to_wire(retry: &Retry) -> pb::Retry {
    pb::Retry {
        codes: retry.codes.iter().map(|code| (*code).into()).collect(),
        grpc_codes: retry.grpc_codes.iter().map(|code| (*code).into()).collect(),
        attempts: retry.attempts,
        backoff: retry.backoff.map(duration_to_wire),
    }
}
