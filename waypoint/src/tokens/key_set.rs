//! The keys of one issuer (a JWKS, RFC 7517), and the tokens that they have signed.
//!
//! The algorithms that a key may be used with follow from the key, never from a token: a public key is no shared secret
//! because somebody says HS256.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use mesh_model::token::{Token, TokenFault, Unverified};
use serde_json::{Map, Value};

use super::recent::{Digest, Recent};

/// Keys that are looked at: a token that names none is tried with each of its algorithm.
const MOST_KEYS: usize = 32;
/// Tokens that are remembered as signed, of an issuer and on a thread; as many again while they are asked for.
const MOST_TOKENS: usize = 1024;
/// Longest token that is remembered, in bytes: with those above some 20 MiB at the very most, of tokens that the issuer has signed.
const LONGEST_REMEMBERED: usize = 4 << 10;
/// Shortest shared secret, in bytes: that of its hash (RFC 7518 3.2).
const SHORTEST_SECRET: usize = 32;

/// What a token says that its issuer has signed.
pub(crate) struct Verified {
    /// Its `iss`.
    pub(crate) issuer: Box<str>,
    /// Its claims, as they came.
    pub(crate) claims: Map<String, Value>,
    /// Its payload, in base64url.
    pub(crate) payload: Box<str>,
    /// Its claims, as policies compare them.
    pub(crate) token: Arc<Token>,
}

/// The keys of one issuer.
pub(super) struct KeySet {
    keys: Vec<Key>,
    lists: Vec<Arc<str>>,
    signed: RefCell<Recent<Digest, Rc<Verified>>>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Of a JWKS. What is no key that tokens are verified with is left out; without any, no token is valid. `lists` are claims
    /// that spaces part.
    pub(super) fn new(text: &str, lists: &[Arc<str>]) -> Self {
        let set = serde_json::from_str::<Value>(text).unwrap_or_default();
        let all = set.get("keys").and_then(Value::as_array).into_iter().flatten();
        let keys = all.filter_map(|value| key(serde_json::from_value(value.clone()).ok()?)).take(MOST_KEYS).collect();
        Self { keys, lists: lists.to_vec(), signed: RefCell::new(Recent::new(MOST_TOKENS)) }
    }

    /// What is known of a token that was verified before.
    pub(super) fn known(&self, digest: &Digest) -> Option<Rc<Verified>> {
        self.signed.borrow_mut().get(digest)
    }

    /// Looks at the signature of a token.
    pub(super) fn verify(&self, digest: Digest, said: &Unverified<'_>) -> Result<Rc<Verified>, TokenFault> {
        let algorithm: Algorithm = said.algorithm.parse().map_err(|_| TokenFault::Algorithm)?;
        let named = |key: &&Key| match (&said.key_id, &key.id) {
            (Some(wanted), Some(own)) => **wanted == **own,
            // One of the two says nothing of it.
            _ => true,
        };
        let mut fault = TokenFault::NoKey;
        for key in self.keys.iter().filter(named).filter(|key| key.algorithms.contains(&algorithm)) {
            let signed = said.signed.as_bytes();
            if jsonwebtoken::crypto::verify(said.signature, signed, &key.key, algorithm).unwrap_or(false) {
                let verified = Rc::new(Verified {
                    issuer: said.issuer.clone(),
                    claims: said.claims.clone(),
                    payload: said.payload.into(),
                    token: Arc::new(Token::new(said.claims.clone(), &self.lists)),
                });
                if said.signed.len() <= LONGEST_REMEMBERED {
                    self.signed.borrow_mut().insert(digest, verified.clone());
                }
                return Ok(verified);
            }
            fault = TokenFault::Signature;
        }
        Err(fault)
    }
}

fn key(jwk: Jwk) -> Option<Key> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
        && jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let family: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => &[EdDSA],
        AlgorithmParameters::OctetKey(_) => &[HS256, HS384, HS512],
        _ => &[],
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let is_secret = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
    if !for_signatures || is_secret && key.try_get_as_bytes().ok()?.len() < SHORTEST_SECRET {
        return None;
    }
    let algorithms = match jwk.common.key_algorithm {
        None => family.to_vec(),
        Some(only) => family.iter().copied().filter(|algorithm| only.to_string() == format!("{algorithm:?}")).collect(),
    };
    Some(Key { id: jwk.common.key_id, algorithms, key })
}
