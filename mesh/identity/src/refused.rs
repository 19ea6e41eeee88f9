//! Why a peer is refused whose certificate may well be genuine.

use std::fmt;
use std::sync::Arc;

use mesh_model::identity::SpiffeId;
use rustls::{CertificateError, OtherError};

use crate::certificate::NoIdentity;
use crate::shown::TooMuch;

/// Why a peer was refused, other than for a certificate that is not genuine.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// It shows more than a chain has. Nothing of it was looked at, genuine or not.
    #[error("the peer shows {0}")]
    TooMuch(TooMuch),
    /// It names nobody, or several.
    #[error("the peer's certificate {0}")]
    Nobody(NoIdentity),
    /// A client of another trust domain.
    #[error("the peer is {presented}, which is not of our trust domain {ours}")]
    TrustDomain {
        /// Who it says it is.
        presented: SpiffeId,
        /// The trust domain of our own certificate.
        ours: Arc<str>,
    },
    /// A server that is none of those expected.
    #[error("expected {}, but the peer is {presented}", list(expected))]
    Identity {
        /// Who may answer.
        expected: Vec<SpiffeId>,
        /// Who answered.
        presented: SpiffeId,
    },
}

fn list(ids: &[SpiffeId]) -> String {
    match ids {
        [] => "nobody".into(),
        ids => ids.iter().map(SpiffeId::to_string).collect::<Vec<_>>().join(" or "),
    }
}

/// As it is displayed: rustls prints the reasons of refused certificates by their `Debug`.
impl fmt::Debug for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PeerRefused> for rustls::Error {
    fn from(refused: PeerRefused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

impl PeerRefused {
    /// Finds it in the error of a handshake, if that is why the handshake failed.
    pub fn find(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}
