//! Tokens of requests: the keys of their issuers, and which tokens these have signed.
//!
//! | file | holds |
//! |---|---|
//! | this one | all keys of a data thread; a request's tokens, verified |
//! | `key_set` | the keys of one issuer, and the tokens that they have signed |
//! | `recent` | what was found out lately |

mod key_set;
mod recent;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use mesh_model::tables::Tables;
use mesh_model::token::check::check;
use mesh_model::token::find::{Found, Place, find};
use mesh_model::token::{JwtRule, TokenFault, read};

use key_set::KeySet;
pub(crate) use key_set::Verified;

/// The keys of all issuers. What was verified with keys is forgotten with them.
#[derive(Default)]
pub(crate) struct Keys(RefCell<HashMap<usize, OfText>>);

/// The key sets of one text: what each is of, the text and which claims are lists.
type OfText = Vec<((Arc<str>, Vec<Arc<str>>), Rc<KeySet>)>;

/// A token that is valid by one of the rules.
pub(crate) struct Valid {
    /// What it has proven.
    pub(crate) verified: Rc<Verified>,
    /// Where it was.
    pub(crate) place: Place,
    /// The rule, by its place.
    pub(crate) rule: usize,
}

impl Keys {
    /// The tokens of a request, all of them valid.
    ///
    /// # Errors
    /// When one is not.
    pub(crate) fn verify(
        &self,
        rules: &[JwtRule],
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Vec<Valid>, TokenFault> {
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        // Before 1970 no token is valid.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        find(rules, headers, query)?.into_iter().map(|found| self.one(rules, found, now)).collect()
    }

    fn one(&self, rules: &[JwtRule], found: Found, now: u64) -> Result<Valid, TokenFault> {
        let Found { text, place } = found;
        let digest = recent::digest(&text);
        let here = || rules.iter().enumerate().filter(|(_, rule)| place.is_of(rule));
        for (number, rule) in here() {
            let Some(set) = self.of(rule) else { continue };
            let known = set.known(&digest).filter(|known| *known.issuer == *rule.issuer);
            // Where one rule does not take it, another one may: all are looked at below.
            if let Some(verified) = known.filter(|known| check(&known.claims, rule, now).is_ok()) {
                return Ok(Valid { verified, place, rule: number });
            }
        }
        let said = read(&text)?;
        let mut fault = TokenFault::Issuer;
        // Several rules may take an issuer's tokens, for different audiences.
        for (number, rule) in here().filter(|(_, rule)| *rule.issuer == *said.issuer) {
            let Some(set) = self.of(rule) else {
                fault = TokenFault::NoKeys;
                continue;
            };
            // What has ended is not worth a signature.
            let verified = check(&said.claims, rule, now).and_then(|_| set.verify(digest, &said));
            match verified {
                Ok(verified) => return Ok(Valid { verified, place, rule: number }),
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    /// The keys of a rule, ready to be used.
    fn of(&self, rule: &JwtRule) -> Option<Rc<KeySet>> {
        let keys = rule.keys.as_ref().ok()?;
        let mut all = self.0.borrow_mut();
        let of_text = all.entry(keys.as_ptr().addr()).or_default();
        if let Some((_, set)) = of_text.iter().find(|((_, lists), _)| *lists == rule.space_delimited) {
            return Some(set.clone());
        }
        let set = Rc::new(KeySet::new(keys, &rule.space_delimited));
        // It keeps the text, so that no other comes to have its address.
        of_text.push(((keys.clone(), rule.space_delimited.clone()), set.clone()));
        Some(set)
    }

    /// Lets go of keys that the tables tell of no more.
    pub(crate) fn follow(&self, tables: &Tables) {
        let mut all = self.0.borrow_mut();
        if all.is_empty() {
            return;
        }
        let rules = tables.all_routes().flat_map(|routes| routes.tokens.iter());
        let told: std::collections::HashSet<_> =
            rules.filter_map(|rule| Some(rule.keys.as_ref().ok()?.as_ptr().addr())).collect();
        all.retain(|text, _| told.contains(text));
    }
}

#[cfg(test)]
pub(crate) mod issuer;
#[cfg(test)]
mod tests;
