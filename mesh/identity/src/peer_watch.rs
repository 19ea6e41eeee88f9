//! Whether the peer of an open connection is revoked while it is there.

use std::sync::Arc;

use mesh_model::identity::SpiffeId;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use crate::revocation::Proof;
use crate::tls::Credentials;

/// Follows, for one connection, whether its peer is revoked while it is there.
#[derive(Debug)]
pub struct PeerWatch {
    credentials: Arc<Credentials>,
    /// `None` where nothing is checked.
    seen: Option<Proof>,
    changed: watch::Receiver<u64>,
}

impl PeerWatch {
    /// Before the handshake, so that no change of the lists is missed.
    pub fn new(credentials: Arc<Credentials>) -> Self {
        let revocations = credentials.revocations();
        let seen = revocations.is_on().then(Proof::default);
        Self { changed: revocations.changed(), seen, credentials }
    }

    /// What to accept the connection with.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        match &self.seen {
            Some(seen) => self.credentials.server_config_seeing(seen),
            None => self.credentials.server_config(),
        }
    }

    /// What to dial it with, as [`Credentials::client_config`].
    pub fn client_config(&self, expected: &[SpiffeId]) -> Arc<ClientConfig> {
        match &self.seen {
            Some(seen) => self.credentials.client_config_seeing(expected, seen),
            None => self.credentials.client_config(expected),
        }
    }

    /// Whether anything is checked at all: if not, there is nothing to wait for.
    pub fn is_on(&self) -> bool {
        self.seen.is_some()
    }

    /// Resolves when the peer is revoked. May be dropped and called again.
    pub async fn revoked(&mut self) {
        let Some(seen) = &self.seen else { return std::future::pending().await };
        while self.changed.changed().await.is_ok() {
            if seen.is_revoked(self.credentials.revocations()) {
                return;
            }
        }
        std::future::pending().await
    }
}
