//! The validating webhook: every replica answers, as every replica serves proxies.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use mesh_runtime::drain;
use tokio::sync::watch;

use crate::admission::Settings;
use crate::admission::metrics::AdmissionMetrics;
use crate::admission::serve::{self, Reviews};
use crate::cluster::Cluster;
use crate::serve::{ServerCertificate, listen};
use crate::translate::Mesh;

/// Serves it. Gives where.
pub(super) async fn webhook(
    settings: &Settings,
    (mesh, cluster): (&Mesh, watch::Receiver<Option<Arc<Cluster>>>),
    certificate: &Arc<ServerCertificate>,
    metrics: AdmissionMetrics,
    drain: drain::Watch,
) -> anyhow::Result<SocketAddr> {
    let listener = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, settings.port))).context("WEBHOOK_PORT")?;
    let address = listener.local_addr()?;
    let (tls, reviews) = (certificate.tls(b"http/1.1")?, Reviews::new(mesh.clone(), cluster, metrics));
    tokio::spawn(serve::serve(listener, tls, reviews.routes(), drain));
    tracing::info!(%address, configuration = settings.configuration, "serving the validating webhook");
    Ok(address)
}
