//! Whoever signs certificates, as the store sees them.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use mesh_model::identity::SpiffeId;

/// Whoever signs: the control plane's CA, or one in the same process.
pub trait Authority: Send + Sync + 'static {
    /// Signs a CSR (PEM) for an identity, asking for a lifetime. The answer is PEM: leaf, intermediates, and as the
    /// last element the root bundle.
    fn sign<'a>(&'a self, id: &'a SpiffeId, csr_pem: &'a str, lifetime: Duration) -> Signing<'a>;
}

/// The future of an answer of an [`Authority`].
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, AuthorityError>> + Send + 'a>>;

/// Why an authority did not sign: what it said, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AuthorityError(pub String);
