//! Who is calling, on a cluster: the API server reviews the token, and knows whether the account and the pod that it is bound
//! to are still there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::dangerous::insecure_decode_claims;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use mesh_kube::{Client, Resource, write};
use mesh_model::address::NamespacedName;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::token::{Caller, TokenError};

/// How long the API server's word counts. A pod that is gone is known from the watch, at once.
const KEPT: Duration = Duration::from_secs(60);
/// Most words kept: some 300 bytes each.
const MOST_KEPT: usize = 16 << 10;
/// Most questions at one time: strangers must not make us a burden to the API server.
const AT_ONCE: usize = 16;
/// How long a caller waits for an answer, the others before it included.
const PATIENCE: Duration = Duration::from_secs(10);

const REVIEWS: Resource = Resource { group: "authentication.k8s.io", versions: &["v1"], plural: "tokenreviews" };
/// Where the API server says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Has tokens reviewed, and remembers for a while.
pub struct Reviews {
    client: Client,
    audiences: Vec<String>,
    /// By hash: a token in memory could be stolen from there.
    kept: Mutex<HashMap<[u8; 32], (Caller, Instant)>>,
    slots: Semaphore,
}

/// What a token says of itself. Nobody has checked it.
#[derive(Deserialize)]
struct Claims {
    aud: Audiences,
    exp: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Reviews {
    /// `audiences`: one of them must be the token's.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self { client, audiences, kept: Mutex::default(), slots: Semaphore::new(AT_ONCE) }
    }

    /// The caller that a token proves.
    ///
    /// # Errors
    /// Says why not; [`TokenError::Unavailable`] if the API server could not be asked.
    pub async fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let expires = worth_asking(token, &self.audiences, SystemTime::now())?;
        let hash = hash(token);
        if let Some(caller) = self.remembered(&hash) {
            return Ok(caller);
        }
        let reviewed = tokio::time::timeout(PATIENCE, self.ask(token)).await;
        let status = reviewed.map_err(|_| TokenError::Unavailable(format!("no review within {PATIENCE:?}")))??;
        let caller = caller(status, &self.audiences, expires)?;
        self.remember(hash, &caller);
        Ok(caller)
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, TokenError> {
        let unavailable = |why: String| TokenError::Unavailable(why);
        let _slot = self.slots.acquire().await.map_err(|e| unavailable(e.to_string()))?;
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(self.audiences.clone()) };
        let review = serde_json::to_value(TokenReview { spec, ..TokenReview::default() });
        let review = review.map_err(|e| unavailable(e.to_string()))?;
        let reviewed: Result<TokenReview, _> = write::create(&self.client, REVIEWS, "", &review).await;
        let reviewed = reviewed.map_err(|error| unavailable(format!("TokenReview: {error}")))?;
        Ok(reviewed.status.unwrap_or_default())
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Caller> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(hash).filter(|(_, since)| since.elapsed() < KEPT).map(|(caller, _)| caller.clone())
    }

    fn remember(&self, hash: [u8; 32], caller: &Caller) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (_, since)| since.elapsed() < KEPT);
        }
        if kept.len() < MOST_KEPT {
            kept.insert(hash, (caller.clone(), Instant::now()));
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Until when a token claims to be good. What it says of itself is enough to refuse it, and not enough to believe it.
fn worth_asking(token: &str, audiences: &[String], now: SystemTime) -> Result<SystemTime, TokenError> {
    let claims: Claims = insecure_decode_claims(token).map_err(TokenError::Invalid)?;
    let meant = match &claims.aud {
        Audiences::One(one) => audiences.contains(one),
        Audiences::Many(many) => many.iter().any(|one| audiences.contains(one)),
    };
    if !meant {
        return Err(TokenError::Review("it is for another audience".to_owned()));
    }
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(TokenError::Expiry)?;
    if expires <= now {
        return Err(TokenError::Review("it has expired".to_owned()));
    }
    Ok(expires)
}

/// What the API server's word comes to.
fn caller(status: TokenReviewStatus, audiences: &[String], expires: SystemTime) -> Result<Caller, TokenError> {
    let refused = |why: &str| TokenError::Review(why.to_owned());
    if status.authenticated != Some(true) {
        return Err(refused(status.error.as_deref().unwrap_or("the API server does not know it")));
    }
    // One that does not know of audiences says none, and then it was not asked about ours.
    if !status.audiences.iter().flatten().any(|one| audiences.contains(one)) {
        return Err(refused("the API server does not say that it is for us"));
    }
    let UserInfo { username, uid, extra, .. } = status.user.unwrap_or_default();
    let subject = username.unwrap_or_default();
    let account = subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, name)) = account else {
        return Err(TokenError::Review(format!("{subject:?} is no service account")));
    };
    let extra = extra.unwrap_or_default();
    let said = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
    Ok(Caller {
        account: NamespacedName::new(namespace, name),
        account_uid: uid.unwrap_or_default(),
        pod: said(POD_NAME).zip(said(POD_UID)),
        expires,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_the_api_server_says_and_what_it_comes_to() {
        let ours = vec!["istio-ca".to_owned()];
        let of = |status: Value| {
            caller(serde_json::from_value(status).unwrap(), &ours, SystemTime::UNIX_EPOCH).map_err(|e| e.to_string())
        };
        let user = |name: &str, extra: Value| {
            let user = json!({"username": name, "uid": "u1", "groups": ["g"], "extra": extra});
            json!({"authenticated": true, "audiences": ["istio-ca"], "user": user})
        };
        let name = "system:serviceaccount:shop:web";
        let bound = json!({POD_NAME: ["web-1"], POD_UID: ["p1"], "authentication.kubernetes.io/node-name": ["n1"]});
        let expected = Caller {
            account: NamespacedName::new("shop", "web"),
            account_uid: "u1".to_owned(),
            pod: Some(("web-1".to_owned(), "p1".to_owned())),
            expires: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(of(user(name, bound.clone())), Ok(expected.clone()));
        let unbound = Caller { pod: None, ..expected };
        assert_eq!(of(user(name, json!({}))), Ok(unbound));
        let mut other = user(name, bound.clone());
        other["audiences"] = json!(["https://kubernetes.default.svc"]);
        let mut none = other.clone();
        none["audiences"] = Value::Null;
        for (status, why) in [
            (json!({}), "the API server does not know it"),
            (json!({"authenticated": false, "error": "expired"}), "expired"),
            (other, "does not say that it is for us"),
            (none, "does not say that it is for us"),
            (user("system:node:n1", bound.clone()), "is no service account"),
            (user("", bound), "is no service account"),
        ] {
            let error = of(status).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_token_that_gives_itself_away_is_not_asked_about() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let issuer = mesh_testkit::control_plane::TokenIssuer::new();
        let token = issuer.token(("shop", "web"), ("web", "u"), 60);
        let ask = |token: &str, audience: &str, now| {
            worth_asking(token, &[audience.to_owned()], now).map(drop).map_err(|e| e.to_string())
        };
        assert_eq!(ask(&token, "istio-ca", now), Ok(()));
        assert!(ask(&token, "vault", now).unwrap_err().contains("another audience"));
        let late = SystemTime::now() + Duration::from_secs(3600);
        assert!(ask(&token, "istio-ca", late).unwrap_err().contains("expired"));
        for no_token in ["", "a", "a.b", "a.b.c"] {
            assert!(ask(no_token, "istio-ca", now).is_err(), "{no_token}");
        }
    }
}
