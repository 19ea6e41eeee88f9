//! What a ztunnel or waypoint proves itself with: a service account token as Kubernetes would mount it, signed by a key that lives
//! as long as the machine.
use anyhow::{Context, Result};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a token is good for.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);
/// How often a new one is written: well before the old one ends.
pub(crate) const RENEWAL: Duration = Duration::from_secs(20 * 60);
/// Name of the issuer in the tokens.
pub(crate) const ISSUER: &str = "ambit";

/// The key that signs tokens.
pub(crate) struct Issuer {
    key: EncodingKey,
    /// The key that verifies, PEM.
    public: String,
}

/// The pod and service account that a token is for.
#[derive(Debug, Clone)]
pub(crate) struct Bearer<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service_account: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) pod_uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) node_uid: &'a str,
}

/// The uid of a service account: an account that is deleted and made anew has the same rights here.
pub(crate) fn account_uid(namespace: &str, name: &str) -> String {
    format!("{namespace}-{name}")
}

impl Issuer {
    /// A new key; only in memory.
    pub(crate) fn new() -> Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("cannot make a signing key")?;
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().context("cannot encode the public key")?;
        let public = Pem::new("PUBLIC KEY", public.as_ref());
        let pkcs8 = key.to_pkcs8v1().context("cannot encode the signing key")?;
        Ok(Issuer {
            key: EncodingKey::from_ec_der(pkcs8.as_ref()),
            public: pem::encode_config(&public, EncodeConfig::new().set_line_ending(LineEnding::LF)),
        })
    }

    /// The key that verifies, as a PEM file for istiod-lite.
    pub(crate) fn public_pem(&self) -> &str {
        &self.public
    }

    /// A token (JWT, ES256) good from now for [`LIFETIME`].
    pub(crate) fn token(&self, bearer: &Bearer<'_>, now: SystemTime) -> Result<String> {
        let now = now.duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
        let claims = json!({
            "iss": ISSUER,
            "aud": ["istio-ca"],
            "sub": format!("system:serviceaccount:{}:{}", bearer.namespace, bearer.service_account),
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME.as_secs(),
            "kubernetes.io": {
                "namespace": bearer.namespace,
                "serviceaccount": {"name": bearer.service_account, "uid": account_uid(bearer.namespace, bearer.service_account)},
                "pod": {"name": bearer.pod, "uid": bearer.pod_uid},
                "node": {"name": bearer.node, "uid": bearer.node_uid},
            },
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key).context("cannot sign a token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};

    #[test]
    fn tokens_verify_with_the_public_key() {
        let issuer = Issuer::new().unwrap();
        let bearer = Bearer {
            namespace: "istio-system",
            service_account: "ztunnel",
            pod: "ztunnel-node1",
            pod_uid: "u",
            node: "node1",
            node_uid: "n",
        };
        let token = issuer.token(&bearer, UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        let public = DecodingKey::from_ec_pem(issuer.public_pem().as_bytes()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        // The clock of the test stands in 1970.
        validation.validate_exp = false;
        validation.set_audience(&["istio-ca"]);
        validation.set_issuer(&[ISSUER]);
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &public, &validation).unwrap().claims;
        assert_eq!(claims["exp"], 4600);
        assert_eq!(claims["sub"], "system:serviceaccount:istio-system:ztunnel");
        assert_eq!(claims["kubernetes.io"]["pod"]["uid"], "u");
        assert!(issuer.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\nMFkw"));
    }
}
