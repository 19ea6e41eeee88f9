//! What comes from the control plane, or from a file instead of it.

use std::fs::File;
use std::io::Cursor;

use anyhow::{Context, Result};
use mesh_control::ca_client::CaClient;
use mesh_identity::store::{Store, StoreOptions};
use mesh_identity::tls::TlsOptions;
use mesh_model::resource::{Kind, Resource};
use mesh_proxy::control;
use mesh_runtime::config::FileOrInline;
use mesh_runtime::metrics::XdsMetrics;
use mesh_runtime::readiness::Readiness;
use mesh_xds::demand::Demands;
use mesh_xds::follow::Writer;

use crate::config::{Config, Mode};
use crate::local_xds::{self, Local};

/// Most refused entries of local tables that are logged one by one.
const MAX_LOGGED: usize = 10;

/// The certificates of the identities that are served here, from the CA.
pub(super) fn certificates(config: &Config, readiness: &Readiness) -> Result<Store> {
    let ca = CaClient::new(config.ca.channel("CA_ADDRESS", &config.token, &config.cluster)?, None);
    let ca = match config.mode {
        Mode::Shared => ca,
        Mode::Dedicated(_) => ca.for_itself(),
    };
    let revocations = control::revocations(config.crl.as_deref(), readiness);
    let options = StoreOptions {
        lifetime: config.certificate_lifetime,
        tls: TlsOptions { tls12: config.tls12, post_quantum: config.post_quantum, revocations },
        ..StoreOptions::default()
    };
    Ok(control::certificates(ca, options))
}

/// Has the control plane write the tables from now on; where there is none, the local ones have said everything.
pub(super) fn follow_tables(
    config: &Config,
    writer: Writer,
    demands: Option<Demands>,
    metrics: XdsMetrics,
) -> Result<()> {
    let xds = match &config.xds {
        Some(xds) => Some((xds.channel("XDS_ADDRESS", &config.token, &config.cluster)?, config.node_info())),
        None => None,
    };
    control::follow_tables(xds, &Kind::ISTIO, writer, demands, metrics);
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
