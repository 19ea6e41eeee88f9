//! RequestAuthentication → the rules on tokens of the services that it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::token::JwtRule;
use mesh_model::token::rule::{ClaimHeader, TokenHeader};

use super::bound::Bound;
use super::condition::{Condition, JWKS_NOT_FETCHED};
use super::revision::Revisions;
use super::world::World;
use crate::cluster::attachments::refs_of_authentication;
use crate::cluster::{Cluster, Fetched};
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
        let rules: Vec<JwtRule> =
            object.spec.jwt_rules.iter().map(|written| rule(written, key, world.cluster)).collect();
        let (status, mut reason, mut message) = bound.told();
        for (number, rule) in rules.iter().enumerate().filter(|_| status) {
            if let Err(why) = &rule.keys {
                reason = JWKS_NOT_FETCHED;
                let _ = write!(
                    message,
                    ". jwtRules[{number}]: {why}. Until they are, EVERY token of that issuer is refused"
                );
            }
        }
        let old = object.spec.jwt_rules.iter().filter_map(|rule| {
            let source = rule.key_source()?;
            let Fetched { keys: Some(_), trouble: Some(why) } = &**world.cluster.fetched(&source)? else { return None };
            Some(format!(". Of {source} the keys of the last fetch that succeeded are used, since {why}"))
        });
        // Each address once, however many rules name it.
        message.extend(old.collect::<BTreeSet<_>>());
        self.0.insert(key.clone(), Authentication { rules, waypoints: bound.waypoints() });
        Some(Condition::waypoint(status, reason, message))
    }

    /// The rules of one, for a waypoint.
    pub(super) fn at(&self, key: &NamespacedName, waypoint: &NamespacedName) -> &[JwtRule] {
        self.0.get(key).filter(|one| one.waypoints.contains(waypoint)).map_or(&[], |one| &one.rules)
    }
}

/// The keys of a rule, else why they are not known.
fn keys(written: &written::JwtRule, cluster: &Cluster) -> Result<Arc<str>, Arc<str>> {
    let Some(source) = written.key_source() else { return Ok(written.jwks.as_deref().unwrap_or_default().into()) };
    match cluster.fetched(&source).map(|fetched| (&fetched.keys, &fetched.trouble)) {
        Some((Some(keys), _)) => Ok(keys.clone()),
        Some((None, Some(why))) => Err(format!("its keys could not be fetched from {source}: {why}").into()),
        _ => Err(format!("its keys are not fetched from {source} yet").into()),
    }
}

fn rule(written: &written::JwtRule, key: &NamespacedName, cluster: &Cluster) -> JwtRule {
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
        keys: keys(written, cluster),
        headers,
        params,
        cookies: texts(&written.from_cookies),
        forward: written.forward_original_token,
        payload_header: written.output_payload_to_header.as_deref().map(lower),
        claim_headers: written.output_claim_to_headers.iter().map(told).collect(),
        space_delimited: texts(&written.space_delimited_claims),
    }
}
