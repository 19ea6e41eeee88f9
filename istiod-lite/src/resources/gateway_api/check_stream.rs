//! Checks of TCPRoutes and TLSRoutes.

use super::check::{self, Checked};
use super::check_filter::{backend_ref, weight};
use super::check_rule::{EXPERIMENTAL, names, parents};
use super::stream_route::{StreamRouteRule, TcpRoute, TlsRoute};
use crate::resources::field::FieldPath;

pub(in crate::resources) fn tcp_route(route: &TcpRoute) -> Checked {
    let (spec, path) = (&route.spec, FieldPath::of("spec"));
    check::unsupported(spec.use_default_gateways.is_some(), &path.field("useDefaultGateways"), EXPERIMENTAL)?;
    parents(&spec.parent_refs, &path)?;
    rules(&spec.rules, &path)
}

pub(in crate::resources) fn tls_route(route: &TlsRoute) -> Checked {
    let (spec, path) = (&route.spec, FieldPath::of("spec"));
    check::unsupported(spec.use_default_gateways.is_some(), &path.field("useDefaultGateways"), EXPERIMENTAL)?;
    parents(&spec.parent_refs, &path)?;
    let hostnames = path.field("hostnames");
    if spec.hostnames.is_empty() {
        return Err(
            hostnames.error("missing: name what clients ask for (SNI); a TCPRoute is for whatever they ask for")
        );
    }
    check::at_most(&spec.hostnames, 1024, &hostnames)?;
    let each = |(i, name): (usize, &String)| check::host_pattern(name, &hostnames.index(i));
    spec.hostnames.iter().enumerate().try_for_each(each)?;
    rules(&spec.rules, &path)
}

fn rules(rules: &[StreamRouteRule], path: &FieldPath) -> Checked {
    let path = path.field("rules");
    let rule = match rules {
        [rule] => rule,
        [] => return Err(path.error("missing: write one rule, with backendRefs")),
        _ => return Err(path.error(format!("{} of them, and nothing tells them apart: keep one", rules.len()))),
    };
    names([rule.name.as_deref()].into_iter(), &path)?;
    let path = path.index(0).field("backendRefs");
    if rule.backend_refs.is_empty() {
        return Err(path.error("missing: name a Service; one with weight 0 refuses every connection"));
    }
    check::at_most(&rule.backend_refs, 16, &path)?;
    for (i, backend) in rule.backend_refs.iter().enumerate() {
        backend_ref(&backend.reference(), &path.index(i))?;
        weight(backend.weight, &path.index(i))?;
    }
    Ok(())
}
