//! What proves who is calling: a signature that we can check ourselves, or the word of an API server.

use super::review::Reviews;
use super::token::{self, Caller, TokenError, Tokens};

/// Either.
pub enum Proof {
    /// Keys in a file.
    Keys(Tokens),
    /// An API server.
    Reviews(Reviews),
}

impl Proof {
    /// The caller that an `authorization` header proves.
    ///
    /// # Errors
    /// Says why not; for our log, not for the caller.
    pub async fn verify(&self, authorization: Option<&str>) -> Result<Caller, TokenError> {
        match self {
            Self::Keys(tokens) => tokens.verify(authorization),
            Self::Reviews(reviews) => reviews.verify(token::bearer(authorization)?).await,
        }
    }
}
