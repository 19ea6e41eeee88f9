//! Which tokens a service takes, and what becomes of them: a `jwtRule` of a RequestAuthentication, ready to be followed.

use std::sync::Arc;

use crate::address::NamespacedName;

/// One issuer's tokens. All texts are as the user wrote them; header names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// The RequestAuthentication that it is of.
    pub authentication: NamespacedName,
    /// The claim `iss`, exactly.
    pub issuer: Arc<str>,
    /// One of them must be in `aud`; none: any audience.
    pub audiences: Vec<Arc<str>>,
    /// The issuer's public keys: a JWKS (RFC 7517). Else why they are not known: no token of the issuer is valid then.
    pub keys: Result<Arc<str>, Arc<str>>,
    /// Headers that hold a token.
    pub headers: Vec<TokenHeader>,
    /// Parameters of the query that hold one.
    pub params: Vec<Arc<str>>,
    /// Cookies that hold one.
    pub cookies: Vec<Arc<str>>,
    /// The application gets the token, too.
    pub forward: bool,
    /// The header in which it gets the payload, in base64url.
    pub payload_header: Option<Arc<str>>,
    /// Headers in which it gets claims.
    pub claim_headers: Vec<ClaimHeader>,
    /// Claims that are lists, whose items spaces part.
    pub space_delimited: Vec<Arc<str>>,
}

/// A header that holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHeader {
    /// Lower case.
    pub name: Arc<str>,
    /// What stands before the token, whatever its case; a header without it holds none.
    pub prefix: Arc<str>,
}

/// A header in which the application gets a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Lower case.
    pub header: Arc<str>,
    /// Where the claim is: its name, or those of the objects around it and then its own.
    pub claim: Vec<Arc<str>>,
}
