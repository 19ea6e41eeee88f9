//! What Ambit says of HTTP in a policy, beyond `istio.security.Match`: an extension there. Who does not know it has met a
//! condition that he cannot evaluate, which is decided against the caller.

use mesh_proto::policy::StringMatch as WireString;
use mesh_proto::workload::Extension;
use mesh_proto::{Any, ambit as pb};
use pb::path_pattern::Kind;
use prost::Message;

use super::claims::{ClaimCondition, RequestPrincipal};
use super::http::{HeaderCondition, HttpMatch, PathPattern};
use super::strings::{self, StringMatch};
use crate::shared::text;

/// Its name among a match's extensions.
const NAME: &str = "ambit.dev/http";
/// What it holds.
const TYPE_URL: &str = "type.googleapis.com/ambit.v1.HttpMatch";

/// Whether an extension is the one of ours.
pub(super) fn is_ours(extension: &Extension) -> bool {
    extension.name == NAME
}

/// What the extension of ours says. None when it cannot be read as a whole: a part of a condition is another condition.
pub(super) fn read(extension: &Extension) -> Option<HttpMatch> {
    let config = extension.config.as_ref().filter(|config| config.type_url == TYPE_URL)?;
    let wire = pb::HttpMatch::decode(&*config.value).ok()?;
    let read = HttpMatch {
        hosts: texts(wire.hosts)?,
        not_hosts: texts(wire.not_hosts)?,
        methods: texts(wire.methods)?,
        not_methods: texts(wire.not_methods)?,
        paths: wire.paths.into_iter().map(path).collect::<Option<_>>()?,
        not_paths: wire.not_paths.into_iter().map(path).collect::<Option<_>>()?,
        headers: wire.headers.into_iter().map(header).collect::<Option<_>>()?,
        request_principals: wire.request_principals.into_iter().map(principal).collect::<Option<_>>()?,
        not_request_principals: wire.not_request_principals.into_iter().map(principal).collect::<Option<_>>()?,
        claims: wire.claims.into_iter().map(claim).collect::<Option<_>>()?,
    };
    // With nothing set it would match everything, which nobody asked for.
    (read != HttpMatch::default()).then_some(read)
}

fn texts(wire: Vec<WireString>) -> Option<Vec<StringMatch>> {
    wire.into_iter().map(strings::read).collect()
}

fn path(wire: pb::PathPattern) -> Option<PathPattern> {
    Some(match wire.kind? {
        Kind::Text(text) => PathPattern::Text(strings::read(text)?),
        Kind::Template(template) => PathPattern::Template(template.into()),
    })
}

fn header(wire: pb::HeaderCondition) -> Option<HeaderCondition> {
    let (values, not_values) = (texts(wire.values)?, texts(wire.not_values)?);
    let says_something = !wire.name.is_empty() && (!values.is_empty() || !not_values.is_empty());
    says_something.then(|| HeaderCondition { name: text(&wire.name.to_ascii_lowercase()), values, not_values })
}

fn principal(wire: pb::RequestPrincipal) -> Option<RequestPrincipal> {
    Some(RequestPrincipal { issuer: strings::read(wire.issuer?)?, subject: strings::read(wire.subject?)? })
}

fn claim(wire: pb::ClaimCondition) -> Option<ClaimCondition> {
    let (values, not_values) = (texts(wire.values)?, texts(wire.not_values)?);
    let says_something = !wire.path.is_empty() && (!values.is_empty() || !not_values.is_empty());
    says_something.then(|| ClaimCondition {
        path: wire.path.iter().map(|name| text(name)).collect(),
        values,
        not_values,
    })
}

pub(super) fn write(http: &HttpMatch) -> Extension {
    let texts = |list: &[StringMatch]| list.iter().map(strings::write).collect();
    let paths = |list: &[PathPattern]| list.iter().map(path_to_wire).collect();
    let header = |header: &HeaderCondition| pb::HeaderCondition {
        name: header.name.to_string(),
        values: texts(&header.values),
        not_values: texts(&header.not_values),
    };
    let principals = |list: &[RequestPrincipal]| {
        let one = |principal: &RequestPrincipal| pb::RequestPrincipal {
            issuer: Some(strings::write(&principal.issuer)),
            subject: Some(strings::write(&principal.subject)),
        };
        list.iter().map(one).collect()
    };
    let claim = |claim: &ClaimCondition| pb::ClaimCondition {
        path: claim.path.iter().map(ToString::to_string).collect(),
        values: texts(&claim.values),
        not_values: texts(&claim.not_values),
    };
    let wire = pb::HttpMatch {
        hosts: texts(&http.hosts),
        not_hosts: texts(&http.not_hosts),
        methods: texts(&http.methods),
        not_methods: texts(&http.not_methods),
        paths: paths(&http.paths),
        not_paths: paths(&http.not_paths),
        headers: http.headers.iter().map(header).collect(),
        request_principals: principals(&http.request_principals),
        not_request_principals: principals(&http.not_request_principals),
        claims: http.claims.iter().map(claim).collect(),
    };
    Extension {
        name: NAME.to_owned(),
        config: Some(Any { type_url: TYPE_URL.to_owned(), value: wire.encode_to_vec() }),
    }
}

fn path_to_wire(path: &PathPattern) -> pb::PathPattern {
    let kind = match path {
        PathPattern::Text(text) => Kind::Text(strings::write(text)),
        PathPattern::Template(template) => Kind::Template(template.to_string()),
    };
    pb::PathPattern { kind: Some(kind) }
}
