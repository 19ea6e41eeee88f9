//! What fetching the keys of an issuer has come to: known of a cluster like what its objects say.

use std::sync::Arc;

/// What fetching the keys of an issuer has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The keys that were fetched last: a JWKS (RFC 7517).
    pub keys: Option<Arc<str>>,
    /// Why the last fetch did not succeed; those before it may have.
    pub trouble: Option<Arc<str>>,
}
