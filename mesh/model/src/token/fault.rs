//! Why a token is not taken.

/// Why a token is not taken. The texts are what Envoy answers, where it has one: people look for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It has not three parts.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// It is longer than any that is read.
    #[error("Jwt is too long")]
    Long,
    /// The request has more of them than are looked at.
    #[error("Request has too many Jwts")]
    Many,
    /// Its header is no JSON object in base64url, or says a thing twice.
    #[error("Jwt header is an invalid JSON")]
    Header,
    /// It names no algorithm that is taken; `none` is none.
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    /// It has extensions that must be understood (`crit`), and none is.
    #[error("Jwt header [crit] is not supported")]
    Critical,
    /// Its payload is no JSON object in base64url, says a thing twice, or has a claim of the wrong type.
    #[error("Jwt payload is an invalid JSON")]
    Payload,
    /// Its signature is no base64url.
    #[error("Jwt signature is an invalid Base64url encoded")]
    Encoding,
    /// No rule that reads tokens where it was takes those of its issuer.
    #[error("Jwt issuer is not configured")]
    Issuer,
    /// It has ended.
    #[error("Jwt is expired")]
    Expired,
    /// It has not begun.
    #[error("Jwt not yet valid")]
    NotYet,
    /// It is for somebody else.
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    /// The keys of its issuer are not known here.
    #[error("Jwks remote fetch is failed")]
    NoKeys,
    /// None of the issuer's keys has its `kid` and algorithm.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    /// It was not signed by the key that it names.
    #[error("Jwt verification fails")]
    Signature,
}

impl TokenFault {
    /// What the caller is answered, as by Envoy: 403 for a token that is for others, else 401.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::Audience => http::StatusCode::FORBIDDEN,
            _ => http::StatusCode::UNAUTHORIZED,
        }
    }
}
