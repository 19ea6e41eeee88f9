//! On which routes, TrafficPolicies and Gateways there is something to say: on those that are read, and on those that were rejected or could not be
//! deployed. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Status;
use super::deployed::{self, Problems};
use crate::resources::gateway_api::gateway::REMOTE_CLASS;
use crate::resources::{Key, Kind};
use crate::source::Rejected;
use crate::translate::condition::PolicyStatus;

/// What there is to say on one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attached<'a> {
    /// What became of it.
    Told(Cow<'a, PolicyStatus>),
    /// Its present version cannot be used. Whatever is told of it is about the version before.
    Rejected(Cow<'a, Rejected>),
}

impl Attached<'_> {
    /// The same, to be kept.
    pub(super) fn owned(&self) -> Attached<'static> {
        match self {
            Self::Told(told) => Attached::Told(Cow::Owned((**told).clone())),
            Self::Rejected(rejected) => Attached::Rejected(Cow::Owned((**rejected).clone())),
        }
    }
}

/// Of each route and TrafficPolicy, and of each Gateway of these classes, or that says where another network's is. Of one that was rejected nobody knows the class here.
pub(super) fn wanted<'a>(status: &'a Status, classes: &[String], problems: &Problems) -> BTreeMap<Key, Attached<'a>> {
    let is_ours = |status: &&PolicyStatus| match status.key.kind {
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute | Kind::TlsRoute | Kind::TrafficPolicy => true,
        Kind::Gateway => status
            .waypoint
            .as_ref()
            .is_some_and(|waypoint| classes.contains(&waypoint.class) || waypoint.class == REMOTE_CLASS),
        _ => false,
    };
    let told = status.policies.iter().filter(is_ours);
    let told = told.map(|status| {
        let is_gateway = status.key.kind == Kind::Gateway;
        let told = match problems.get(&status.key.object()).filter(|_| is_gateway) {
            Some(problem) => Cow::Owned(PolicyStatus { conditions: deployed::conditions(problem), ..status.clone() }),
            None => Cow::Borrowed(status),
        };
        (status.key.clone(), Attached::Told(told))
    });
    let rejected = status.rejected.iter().filter_map(|rejected| {
        let kinds =
            [Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute, Kind::TlsRoute, Kind::Gateway, Kind::TrafficPolicy];
        let kind = kinds.into_iter().find(|kind| rejected.kind.as_deref() == Some(kind.as_str()))?;
        let key = Key::new(kind, rejected.namespace.as_deref(), rejected.name.as_deref()?);
        Some((key, Attached::Rejected(Cow::Borrowed(rejected))))
    });
    // The later ones replace the earlier ones.
    told.chain(rejected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;

    #[test]
    fn what_was_rejected_is_not_told_as_the_version_before() {
        let key = |kind, name| Key::new(kind, Some("shop"), name);
        let of = |key: Key| PolicyStatus::new(key, Vec::new());
        let rejected = Rejected {
            origin: Origin::Cluster { resource_version: "7".into(), generation: 2 },
            kind: Some("HTTPRoute".into()),
            namespace: Some("shop".into()),
            name: Some("bad".into()),
            field: None,
            message: "wrong".into(),
            last_good_kept: true,
        };
        let status = Status {
            rejected: vec![rejected.clone(), Rejected { kind: Some("Service".into()), ..rejected.clone() }],
            policies: ["good", "bad"].map(|name| of(key(Kind::HttpRoute, name))).into(),
            skipped: Vec::new(),
        };
        let all = wanted(&status, &[], &Problems::new());
        assert_eq!(all.len(), 2);
        assert_eq!(all[&key(Kind::HttpRoute, "bad")], Attached::Rejected(Cow::Owned(rejected)));
        assert!(matches!(all[&key(Kind::HttpRoute, "good")], Attached::Told(_)));
    }
}
