//! What comes from the control plane: tables, certificates, and the lists of those that are revoked.

use std::fs::File;
use std::io::Cursor;
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh_control::ca_client::CaClient;
use mesh_control::channel::{self, ChannelConfig};
use mesh_identity::revocation::{RevocationError, Revocations};
use mesh_identity::store::{Store, StoreOptions};
use mesh_identity::tls::TlsOptions;
use mesh_model::resource::Resource;
use mesh_runtime::config::FileOrInline;
use mesh_runtime::metrics::XdsMetrics;
use mesh_runtime::readiness::Readiness;
use mesh_xds::client;
use mesh_xds::demand::Demands;
use mesh_xds::follow::Writer;

use crate::config::{Config, ControlPlane, Mode};
use crate::local_xds::{self, Local};

/// Most refused entries of local tables that are logged one by one.
const MAX_LOGGED: usize = 10;

/// The certificates of the identities that are served here, from the CA.
pub(super) fn certificates(config: &Config, readiness: &Readiness) -> Result<Store> {
    let ca = channel::connect(&control_channel(config, &config.ca)?).context("CA_ADDRESS")?;
    let revocations = config.crl.as_deref().map(Revocations::of_file).unwrap_or_default();
    follow_revocations(&revocations, readiness);
    let options = StoreOptions {
        lifetime: config.certificate_lifetime,
        tls: TlsOptions { tls12: config.tls12, post_quantum: config.post_quantum, revocations },
        ..StoreOptions::default()
    };
    let ca = match config.mode {
        Mode::Shared => CaClient::new(ca, None),
        Mode::Dedicated(_) => CaClient::new(ca, None).for_itself(),
    };
    Ok(Store::new(&tokio::runtime::Handle::current(), Arc::new(ca), options))
}

/// Has the control plane write the tables from now on; where there is none, the local ones have said everything.
pub(super) fn follow_tables(
    config: &Config,
    mut writer: Writer,
    demands: Option<Demands>,
    metrics: XdsMetrics,
) -> Result<()> {
    match &config.xds {
        Some(xds) => {
            let channel = channel::connect(&control_channel(config, xds)?).context("XDS_ADDRESS")?;
            let node = config.node_info().to_node();
            tokio::spawn(client::run(channel, node, writer, demands, Arc::new(metrics)));
        }
        None => {
            writer.synced();
            // Without a writer the tables would end.
            tokio::spawn(async move {
                let _writer = writer;
                std::future::pending::<()>().await;
            });
        }
    }
    Ok(())
}

/// What `LOCAL_XDS_PATH` or `LOCAL_XDS` says; what means nothing is named in the log.
pub(super) fn local_tables(local: &FileOrInline) -> Result<Vec<Resource>> {
    let (read, place) = match local {
        FileOrInline::File(path) => {
            let place = format!("LOCAL_XDS_PATH={}", path.display());
            (local_xds::read(File::open(path).with_context(|| place.clone())?), place)
        }
        FileOrInline::Inline(text) => (local_xds::read(Cursor::new(text)), "LOCAL_XDS".to_owned()),
    };
    let Local { resources, refused } = read.with_context(|| place.clone())?;
    for refused in refused.iter().take(MAX_LOGGED) {
        tracing::warn!(place, entry = refused.entry, reason = refused.reason, "entry of the local tables refused");
    }
    tracing::info!(place, resources = resources.len(), refused = refused.len(), "local tables read");
    Ok(resources)
}

/// Reads the revocation lists as they change. Not ready until they were good once: until then nobody is let in.
fn follow_revocations(revocations: &Revocations, readiness: &Readiness) {
    if !revocations.is_on() {
        return;
    }
    let ready = readiness.register("revocation lists");
    let told = move |outcome: Result<(), RevocationError>| match outcome {
        Ok(()) => {
            tracing::info!("certificate revocation lists are in force");
            ready.ready();
        }
        Err(error) => {
            tracing::error!(%error, "CRL_PATH: what was last good stays in force; before there was any, nobody is let in");
            // Those that were good once go on protecting.
            ready.still_pending(error.to_string());
        }
    };
    tokio::spawn(revocations.clone().follow(told));
}

fn control_channel(config: &Config, to: &ControlPlane) -> Result<ChannelConfig> {
    Ok(ChannelConfig {
        address: to.address.parse().with_context(|| format!("address {:?}", to.address))?,
        roots: to.roots.clone(),
        server_name: to.hostname.clone(),
        token: config.token.clone(),
        cluster_id: config.cluster.clone(),
        headers: to.headers.clone(),
    })
}
