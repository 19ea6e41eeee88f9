//! What follows when caller and endpoint have agreed on another protocol (`101`): bytes are carried, nothing is looked at.

use bytes::Bytes;
use mesh_hbone::duplex::Duplex;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::sync::oneshot;

use super::held::Held;
use super::report::Report;
use crate::sniff::Peeked;
use crate::upstream::UpgradedStream;

/// Both ends have agreed.
pub(crate) struct Upgrade {
    /// Where the endpoint's stream comes.
    pub(crate) endpoint: oneshot::Receiver<UpgradedStream>,
    /// Tells of the end.
    pub(crate) report: Report,
    /// What is counted as long as it is carried.
    pub(super) held: Held,
}

impl Upgrade {
    /// Carries bytes until both ends have ended. `read` was read of the caller already.
    pub(crate) async fn carry(self, caller: Peeked<Duplex>, read: Bytes) {
        let Self { endpoint, report, held: _held } = self;
        let Ok((endpoint, first)) = endpoint.await else { return };
        let mut caller = Peeked::after(read.into(), caller);
        let mut endpoint = Peeked::after(first.into(), endpoint);
        match copy_bidirectional(&mut caller, &mut endpoint).await {
            Ok((forth, back)) => report.carried(forth, back),
            Err(error) => report.broken(&error),
        }
    }
}

/// Ends a caller's stream well: what was written is read before the end.
pub(crate) async fn end(mut stream: Peeked<Duplex>) {
    // An error means that it is broken, and so has ended.
    let _ = stream.shutdown().await;
}
