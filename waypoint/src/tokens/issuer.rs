//! Somebody who issues tokens, for tests. It signs with the cryptography library itself, not with what verifies here.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key of each kind.
pub(crate) struct Issuer {
    pub(crate) rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

/// In base64url.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    /// With keys of its own.
    pub(crate) fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// Its public keys, each named as its kind; `rsa` says that it is for RS256.
    pub(crate) fn keys(&self) -> Vec<Value> {
        let rsa = self.rsa.public_key();
        let [modulus, exponent] = [rsa.modulus(), rsa.exponent()];
        let modulus = encode(modulus.big_endian_without_leading_zero());
        let exponent = encode(exponent.big_endian_without_leading_zero());
        let [x, y] = [1..33, 33..65].map(|part| encode(&self.ec.public_key().as_ref()[part]));
        vec![
            json!({"kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": modulus, "e": exponent}),
            json!({"kty": "EC", "kid": "ec", "crv": "P-256", "x": x, "y": y}),
            json!({"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": encode(self.ed.public_key())}),
        ]
    }

    /// The same as a JWKS.
    pub(crate) fn jwks(&self) -> String {
        json!({"keys": self.keys()}).to_string()
    }

    /// A token with this header, signed as its `alg` says.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let (random, bytes) = (SystemRandom::new(), signed.as_bytes());
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, bytes, &mut signature).unwrap();
            signature
        };
        let signature = match header["alg"].as_str().unwrap() {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.ec.sign(&random, bytes).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(bytes).as_ref().to_vec(),
            other => panic!("{other}"),
        };
        format!("{signed}.{}", encode(signature))
    }

    /// An ordinary one.
    pub(crate) fn good(&self, claims: &Value) -> String {
        self.token(&json!({"alg": "RS256", "kid": "rsa"}), claims)
    }
}

/// A token that is signed with a shared secret.
pub(crate) fn with_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}
