//! RequestAuthentication → the rules on tokens of the services that it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::token::JwtRule;
use mesh_model::token::rule::{ClaimHeader, TokenHeader};

use super::bound::Bound;
use super::condition::Condition;
use super::notes::names;
use super::revision::Revisions;
use super::world::World;
use crate::cluster::attachments::refs_of_authentication;
use crate::resources::RequestAuthentication;
use crate::resources::request_authentication as written;

/// All of them, translated.
#[derive(Default)]
pub(super) struct Authentications(BTreeMap<NamespacedName, Authentication>);

/// One of them.
struct Authentication {
    rules: Vec<JwtRule>,
    waypoints: BTreeSet<NamespacedName>,
}

impl Authentications {
    /// Translates one as it is now; None is gone. What its author is told.
    pub(super) fn update(
        &mut self,
        key: &NamespacedName,
        object: Option<&RequestAuthentication>,
        world: &World<'_>,
        revisions: &Revisions,
    ) -> Option<Condition> {
        self.0.remove(key);
        let object = object?;
        if let Some(condition) = revisions.left_to_another(&object.metadata) {
            return Some(condition);
        }
        if refs_of_authentication(object).next().is_none() {
            let message = "it has no targetRefs, so NO token is checked by it: with a selector, or with neither, it is for \
                           sidecars, as in Istio. Say by targetRefs which Services, Gateways or GatewayClass it is for";
            return Some(Condition::waypoint(false, "AncestorNotBound", message));
        }
        let bound = Bound::of(refs_of_authentication(object), &key.namespace, world);
        let rules: Vec<JwtRule> = object.spec.jwt_rules.iter().map(|written| rule(written, key)).collect();
        let (status, mut reason, mut message) = bound.told();
        let without: Vec<usize> = (0..rules.len()).filter(|i| rules[*i].keys.is_none()).collect();
        if status && !without.is_empty() {
            let them = names("jwtRules", &without);
            reason = "UnsupportedValue";
            message = format!(
                "{message}. {them}: keys are not fetched from jwksUri yet, so EVERY token of that issuer is refused. Write \
                 the key set itself as jwks"
            );
        }
        self.0.insert(key.clone(), Authentication { rules, waypoints: bound.waypoints() });
        Some(Condition::waypoint(status, reason, message))
    }

    /// The rules of one, for a waypoint.
    pub(super) fn at(&self, key: &NamespacedName, waypoint: &NamespacedName) -> &[JwtRule] {
        self.0.get(key).filter(|one| one.waypoints.contains(waypoint)).map_or(&[], |one| &one.rules)
    }
}

fn rule(written: &written::JwtRule, key: &NamespacedName) -> JwtRule {
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect::<Vec<Arc<str>>>();
    let lower = |name: &str| Arc::<str>::from(name.to_ascii_lowercase());
    let header =
        |header: &written::JwtHeader| TokenHeader { name: lower(&header.name), prefix: header.prefix.as_str().into() };
    let told = |told: &written::ClaimToHeader| ClaimHeader {
        header: lower(&told.header),
        claim: told.claim.split('.').map(Arc::from).collect(),
    };
    let (mut headers, mut params): (Vec<_>, _) =
        (written.from_headers.iter().map(header).collect(), texts(&written.from_params));
    // As Istio has it, where nothing is said.
    if headers.is_empty() && params.is_empty() && written.from_cookies.is_empty() {
        headers = vec![TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() }];
        params = vec!["access_token".into()];
    }
    JwtRule {
        authentication: key.clone(),
        issuer: written.issuer.as_str().into(),
        audiences: texts(&written.audiences),
        keys: written.jwks.as_deref().map(Arc::from),
        headers,
        params,
        cookies: texts(&written.from_cookies),
        forward: written.forward_original_token,
        payload_header: written.output_payload_to_header.as_deref().map(lower),
        claim_headers: written.output_claim_to_headers.iter().map(told).collect(),
        space_delimited: texts(&written.space_delimited_claims),
    }
}
