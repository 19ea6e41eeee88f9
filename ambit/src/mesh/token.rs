//! What a ztunnel proves itself with: a service account token as Kubernetes would mount it, signed by a key that lives
//! as long as the machine.
use anyhow::{Context, Result};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
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
    key: EcdsaKeyPair,
}

/// Who a token speaks for.
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
        Ok(Issuer { key })
    }

    /// The key that verifies, as a PEM file for istiod-lite.
    pub(crate) fn public_pem(&self) -> Result<String> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().context("cannot encode the public key")?;
        let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
        let body = base64(der.as_ref(), STANDARD, true);
        for line in body.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END PUBLIC KEY-----\n");
        Ok(text)
    }

    /// A token (JWT, ES256) good from now for [`LIFETIME`].
    pub(crate) fn token(&self, bearer: &Bearer<'_>, now: SystemTime) -> Result<String> {
        let now = now.duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
        let header = json!({"alg": "ES256", "typ": "JWT"});
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
        let part = |value: &serde_json::Value| base64(value.to_string().as_bytes(), URL_SAFE, false);
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).context("cannot sign a token")?;
        Ok(format!("{signed}.{}", base64(signature.as_ref(), URL_SAFE, false)))
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648, sections 4 and 5.
fn base64(bytes: &[u8], alphabet: &[u8; 64], padded: bool) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([0, 0].iter()).take(3).fold(0u32, |word, b| word << 8 | u32::from(*b));
        for position in 0..4 {
            if position <= chunk.len() {
                text.push(char::from(alphabet[(word >> (18 - 6 * position) & 63) as usize]));
            } else if padded {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn base64_by_the_book() {
        // RFC 4648, section 10.
        for (plain, padded, bare) in [
            ("", "", ""),
            ("f", "Zg==", "Zg"),
            ("fo", "Zm8=", "Zm8"),
            ("foo", "Zm9v", "Zm9v"),
            ("foobar", "Zm9vYmFy", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes(), STANDARD, true), padded);
            assert_eq!(base64(plain.as_bytes(), URL_SAFE, false), bare);
        }
        assert_eq!(base64(&[0xfb, 0xff], URL_SAFE, false), "-_8");
    }

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
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let unbase64 = |text: &str| -> Vec<u8> {
            let mut bits = (0u32, 0);
            let mut out = Vec::new();
            for c in text.bytes() {
                bits = (bits.0 << 6 | URL_SAFE.iter().position(|a| *a == c).unwrap() as u32, bits.1 + 6);
                if bits.1 >= 8 {
                    out.push((bits.0 >> (bits.1 - 8)) as u8);
                    bits.1 -= 8;
                }
            }
            out
        };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, issuer.key.public_key().as_ref())
            .verify(signed.as_bytes(), &unbase64(signature))
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&unbase64(signed.split_once('.').unwrap().1)).unwrap();
        assert_eq!(claims["exp"], 4600);
        assert_eq!(claims["sub"], "system:serviceaccount:istio-system:ztunnel");
        assert_eq!(claims["kubernetes.io"]["pod"]["uid"], "u");
        assert!(issuer.public_pem().unwrap().starts_with("-----BEGIN PUBLIC KEY-----\nMFkw"));
    }
}
