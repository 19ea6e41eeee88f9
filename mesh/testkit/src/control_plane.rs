//! What istiod-lite is set to in a test, and the tokens of those who call it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::json;

/// Settings, as names and values of the environment: objects from `folder`, state in `state`, tokens checked with the key
/// in `issuer`, and each port one of loopback that is free.
pub fn settings(folder: &Path, state: &Path, issuer: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let settings = [
        ("FOLDER", text(folder)),
        ("STATE_DIR", text(state)),
        ("TOKEN_PUBLIC_KEY", text(issuer)),
        ("LISTEN_ADDRESS", "127.0.0.1:0".to_owned()),
        ("HEALTH_PORT", "0".to_owned()),
        ("MONITORING_PORT", "0".to_owned()),
        ("DEBUG_PORT", "0".to_owned()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Issues tokens as an API server does.
pub struct TokenIssuer {
    key: KeyPair,
    encoding: EncodingKey,
}

impl Default for TokenIssuer {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenIssuer {
    /// With a key of its own.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let encoding = EncodingKey::from_ec_der(&key.serialize_der());
        Self { key, encoding }
    }

    /// What its tokens are checked with.
    pub fn public_key_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// For a service account (namespace and name) and a pod (name and uid), good for so many seconds.
    pub fn token(&self, account: (&str, &str), pod: (&str, &str), seconds: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let claims = json!({
            "iss": "testkit", "aud": ["istio-ca"], "sub": format!("system:serviceaccount:{}:{}", account.0, account.1),
            "exp": now + seconds, "iat": now,
            "kubernetes.io": {
                "namespace": account.0, "serviceaccount": {"name": account.1, "uid": "s"},
                "pod": {"name": pod.0, "uid": pod.1},
            },
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.encoding).expect("a token")
    }
}
