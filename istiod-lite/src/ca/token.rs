//! Who is calling: a Kubernetes service-account token, bound to a pod, whose signature we can check.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use mesh_model::address::NamespacedName;
use serde::Deserialize;

/// Longest token read, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 10;

/// A caller who has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Namespace and name of its service account.
    pub account: NamespacedName,
    /// The uid of that account.
    pub account_uid: String,
    /// Name and uid of the pod that the token is bound to.
    pub pod: Option<(String, String)>,
    /// Until when the token proves it.
    pub expires: SystemTime,
}

impl Caller {
    /// Its pod, or its account where there is none: tells callers apart.
    pub fn name(&self) -> String {
        match &self.pod {
            Some((pod, _)) => format!("{}/{pod}", self.account.namespace),
            None => self.account.to_string(),
        }
    }
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no `authorization: Bearer` header")]
    Missing,
    /// Not ours, expired, for somebody else.
    #[error("the token is not accepted: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// Its claims contradict each other.
    #[error("the token's subject {subject:?} is not the service account it names")]
    Subject {
        /// `sub`.
        subject: String,
    },
    /// It ends at no time that there is.
    #[error("the token's expiry is no time")]
    Expiry,
    /// The API server does not accept it, or it gives itself away.
    #[error("the token is not accepted: {0}")]
    Review(String),
    /// Nobody can tell now.
    #[error("the token cannot be checked now: {0}")]
    Unavailable(String),
    /// It is much too long.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
}

/// Why there is nothing to check tokens with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("token keys {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds no key.
    #[error("token keys {path}: {problem}; expected public keys in PEM (ECDSA P-256 or RSA), or a JWKS")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Checks tokens with the public keys in a file, which is read again when it changes.
pub struct Tokens {
    path: PathBuf,
    audiences: Vec<String>,
    issuer: Option<String>,
    keys: Mutex<(Stamp, Arc<Vec<DecodingKey>>)>,
}

/// Tells one version of the file from the next.
type Stamp = (u64, i64, i64);

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Reference,
    pod: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

impl Tokens {
    /// `audiences`: one of them must be the token's. `issuer`: the token's, where it matters.
    ///
    /// # Errors
    /// When the file holds no key.
    pub fn new(path: PathBuf, audiences: Vec<String>, issuer: Option<String>) -> Result<Self, KeyError> {
        let keys = Mutex::new(read(&path)?);
        Ok(Self { path, audiences, issuer, keys })
    }

    /// The caller that an `authorization` header proves.
    ///
    /// # Errors
    /// Says why not; for our log, not for the caller.
    pub fn verify(&self, authorization: Option<&str>) -> Result<Caller, TokenError> {
        let token = bearer(authorization)?;
        let mut last = None;
        for key in self.keys().iter() {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation(key)) {
                Ok(data) => return caller(data.claims),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(TokenError::Missing, TokenError::Invalid))
    }

    fn validation(&self, key: &DecodingKey) -> Validation {
        // The algorithm follows from the key, never from the token.
        let mut validation = Validation::new(match key.family() {
            AlgorithmFamily::Rsa => Algorithm::RS256,
            _ => Algorithm::ES256,
        });
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
        }
        validation
    }

    /// The keys, read again if the file was replaced. While it cannot be read, the keys before stay.
    fn keys(&self) -> Arc<Vec<DecodingKey>> {
        let mut held = self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stamp(&self.path).is_ok_and(|stamp| stamp != held.0) {
            match read(&self.path) {
                Ok(read) => *held = read,
                Err(error) => tracing::warn!(%error, "token keys changed but cannot be used; the ones before stay"),
            }
        }
        held.1.clone()
    }
}

/// The token in an `authorization` header.
pub(super) fn bearer(header: Option<&str>) -> Result<&str, TokenError> {
    let (scheme, token) = header.and_then(|header| header.split_once(' ')).ok_or(TokenError::Missing)?;
    match token.trim() {
        _ if !scheme.eq_ignore_ascii_case("bearer") => Err(TokenError::Missing),
        token if token.len() > MAX_TOKEN => Err(TokenError::TooLong),
        token => Ok(token),
    }
}

fn caller(claims: Claims) -> Result<Caller, TokenError> {
    let KubernetesClaims { namespace, serviceaccount, pod } = claims.kubernetes;
    if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
        return Err(TokenError::Subject { subject: claims.sub });
    }
    let account = NamespacedName::new(namespace, serviceaccount.name);
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(TokenError::Expiry)?;
    Ok(Caller { account, account_uid: serviceaccount.uid, pod: pod.map(|pod| (pod.name, pod.uid)), expires })
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    fs::metadata(path).map(|m| (m.ino(), m.ctime(), m.ctime_nsec()))
}

fn read(path: &Path) -> Result<(Stamp, Arc<Vec<DecodingKey>>), KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let stamp = stamp(path).map_err(failed)?;
    let text = fs::read_to_string(path).map_err(failed)?;
    match parse(&text) {
        Ok(keys) if !keys.is_empty() => Ok((stamp, Arc::new(keys))),
        Ok(_) => Err(KeyError::Content { path: path.to_owned(), problem: "no key in it".to_owned() }),
        Err(problem) => Err(KeyError::Content { path: path.to_owned(), problem }),
    }
}

fn parse(text: &str) -> Result<Vec<DecodingKey>, String> {
    if text.trim_start().starts_with('{') {
        let set: JwkSet = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let keys = set.keys.iter().map(|jwk| DecodingKey::from_jwk(jwk).map_err(|e| e.to_string()));
        return keys.filter(|key| key.as_ref().map_or(true, usable)).collect();
    }
    let blocks = pem::parse_many(text).map_err(|e| e.to_string())?;
    let keys = blocks.iter().map(|block| {
        let one = pem::encode(block);
        DecodingKey::from_ec_pem(one.as_bytes()).or_else(|_| DecodingKey::from_rsa_pem(one.as_bytes()))
    });
    keys.map(|key| key.map_err(|e| e.to_string())).collect()
}

/// A shared secret is no public key: whoever checks tokens with it could make them.
fn usable(key: &DecodingKey) -> bool {
    matches!(key.family(), AlgorithmFamily::Rsa | AlgorithmFamily::Ec)
}

#[cfg(test)]
mod tests;
