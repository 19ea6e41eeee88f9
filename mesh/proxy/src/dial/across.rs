//! Tunnels to other networks (double HBONE): an outer one to the gateway, on a connection that is shared; in it an
//! inner one, which is this connection's own. Were it shared, all of a client's connections would end at one endpoint.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use mesh_hbone::Settings;
use mesh_hbone::client::{Client, OpenError, Opened};
use mesh_hbone::duplex::Duplex;
use mesh_hbone::pool::{Key, Pool};
use mesh_identity::peer_watch::PeerWatch;
use mesh_identity::tls::Credentials;
use mesh_model::identity::SpiffeId;

/// Why a tunnel to another network could not be opened.
#[derive(Clone, Debug)]
pub struct AcrossError {
    gateway: SocketAddr,
    /// True if it failed behind the gateway, which had let us through.
    behind: bool,
    /// What failed.
    pub error: OpenError,
}

impl fmt::Display for AcrossError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gateway, error, .. } = self;
        match self.behind {
            false => write!(f, "network gateway {gateway}: {error}"),
            true => write!(f, "behind network gateway {gateway}: {error}"),
        }
    }
}

impl Error for AcrossError {}

/// Both CONNECTs of a connection. They ask for the same; the inner one names our network besides.
pub struct Requests {
    /// To the gateway.
    pub outer: Request<()>,
    /// To whoever is behind it.
    pub inner: Request<()>,
}

/// Opens an outer tunnel on a connection of `key`, made with `connect` if need be, and an inner one within it, whose peer
/// proves one of `expected`. Returns the inner one, and who answered.
///
/// # Errors
/// Says at which of the two it failed, and why.
pub async fn open<F>(
    pool: &Pool,
    key: &Key,
    expected: &[SpiffeId],
    requests: Requests,
    credentials: Arc<Credentials>,
    settings: &Settings,
    connect: impl Fn() -> F,
) -> Result<(Opened, Option<SpiffeId>), AcrossError>
where
    F: Future<Output = Result<Client, OpenError>>,
{
    let failed = |behind| move |error| AcrossError { gateway: key.peer, behind, error };
    let (outer, _gateway) = pool.open(key, requests.outer, connect).await.map_err(failed(false))?;
    let watch = PeerWatch::new(credentials);
    let inner = Client::handshake_watched(Duplex::new(outer.tunnel), watch, expected, settings).await;
    let mut inner = inner.map_err(failed(true))?;
    let peer = inner.peer().cloned();
    let opened = inner.open(&requests.inner).await.map_err(failed(true))?;
    Ok((opened, peer))
}

#[cfg(test)]
mod tests;
