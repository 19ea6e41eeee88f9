//! What a control plane stands on before it says anything: a key to sign with, and something that proves who calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use mesh_kube::Client;
use tokio::sync::watch;

use crate::ca::material::{CA_CERT, Material};
use crate::ca::proof::Proof;
use crate::ca::review::Reviews;
use crate::ca::secret::{MESH_ROOT, SERVING_ROOT, kept_in_secret};
use crate::ca::token::Tokens;
use crate::config::Config;
use crate::mode::Part;

/// Where Istio's charts mount the Secret `cacerts`.
const MOUNTED_CA: &str = "/etc/cacerts";

pub(super) struct Foundation {
    pub(super) material: watch::Sender<Arc<Material>>,
    pub(super) proof: Arc<Proof>,
    /// Nothing that we could have said is in force: a root that is made now was never trusted by anybody.
    pub(super) first_start: bool,
    /// Where the CA is plugged in, if it is.
    pub(super) plugged: Option<PathBuf>,
    /// Of the cluster, if it is one.
    pub(super) client: Option<Client>,
}

/// On a machine: files.
pub(super) fn of_machine(config: &Config) -> anyhow::Result<Foundation> {
    let first_start = config.plugged_ca.is_none() && !Material::is_kept_in(&config.state);
    let material = match &config.plugged_ca {
        Some(directory) => {
            let material = Material::plugged_in(directory).context("PLUGGED_CA")?;
            material.publish_roots(&config.state).context("STATE_DIR")?;
            material
        }
        None => Material::kept_in(&config.state, &config.mesh.trust_domain).context("STATE_DIR")?,
    };
    let keys = config.token_keys.clone().context("TOKEN_PUBLIC_KEY is not set")?;
    Ok(Foundation {
        material: watch::Sender::new(Arc::new(material)),
        proof: Arc::new(proof(config, keys)?),
        first_start,
        plugged: config.plugged_ca.clone(),
        client: None,
    })
}

/// On a cluster: a Secret that is mounted or kept by the API server, and the API server's word.
pub(super) async fn of_cluster(config: &Config, client: Client) -> anyhow::Result<Foundation> {
    // What istiod signs with is not ours, even where we could read it.
    let signs = config.mesh.mode.does(Part::Certificates);
    let mounted = Path::new(MOUNTED_CA);
    let plugged = config.plugged_ca.as_deref().or_else(|| mounted.join(CA_CERT).exists().then_some(mounted));
    let plugged = plugged.filter(|_| signs);
    let (material, first_start) = match plugged {
        Some(directory) => {
            tracing::info!(directory = %directory.display(), "signing with the certificate that is plugged in");
            (Material::plugged_in(directory).context("PLUGGED_CA")?, false)
        }
        None => {
            let secret = if signs { MESH_ROOT } else { SERVING_ROOT };
            kept_in_secret(&client, (&config.own_namespace, secret), &config.mesh.trust_domain).await?
        }
    };
    let proof = match &config.token_keys {
        Some(keys) => proof(config, keys.clone())?,
        None => Proof::Reviews(Reviews::new(client.clone(), config.token_audiences.clone())),
    };
    Ok(Foundation {
        material: watch::Sender::new(Arc::new(material)),
        proof: Arc::new(proof),
        first_start,
        plugged: plugged.map(Path::to_owned),
        client: Some(client),
    })
}

fn proof(config: &Config, keys: PathBuf) -> anyhow::Result<Proof> {
    let tokens = Tokens::new(keys, config.token_audiences.clone(), config.token_issuer.clone());
    Ok(Proof::Keys(tokens.context("TOKEN_PUBLIC_KEY")?))
}
