//! What comes from the control plane: certificates, the lists of those that are revoked, and tables.

use std::path::Path;
use std::sync::Arc;

use http::uri::InvalidUri;
use mesh_control::ca_client::CaClient;
use mesh_control::channel::{self, ChannelConfig, ChannelError, ControlChannel, ServerRoots, Token};
use mesh_identity::revocation::{RevocationError, Revocations};
use mesh_identity::store::{Store, StoreOptions};
use mesh_model::resource::Kind;
use mesh_runtime::config::{Env, FileOrInline};
use mesh_runtime::metrics::XdsMetrics;
use mesh_runtime::readiness::Readiness;
use mesh_xds::client;
use mesh_xds::demand::Demands;
use mesh_xds::follow::Writer;
use mesh_xds::node::NodeInfo;

/// One end of the control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// `https://host:port`, or `http://` without TLS.
    pub address: String,
    /// Whom to trust.
    pub roots: ServerRoots,
    /// The name its certificate must have, where it is not the address's host.
    pub hostname: Option<String>,
    /// Extra metadata of each call.
    pub headers: Vec<(String, String)>,
}

const DEFAULT_CONTROL_PLANE: &str = "https://istiod.istio-system.svc:15012";
/// Outside Kubernetes, which tells each container where its API server is.
const DEFAULT_CONTROL_PLANE_OUTSIDE: &str = "https://localhost:15012";
const DEFAULT_ROOT: &str = "./var/run/secrets/istio/root-cert.pem";
const DEFAULT_TOKEN: &str = "./var/run/secrets/tokens/istio-token";

/// Why the control plane cannot be asked, whether it answers or not.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address is none.
    #[error("address {address:?}: {error}")]
    Address {
        /// What was set.
        address: String,
        /// What is wrong with it.
        error: InvalidUri,
    },
    /// It cannot be connected to.
    #[error("{setting}: {error}")]
    Channel {
        /// Which address.
        setting: &'static str,
        /// What is wrong with it.
        error: ChannelError,
    },
}

impl ControlPlane {
    /// `XDS_…` or `CA_…`, by `which`.
    pub fn from_env(env: &Env, which: &str) -> Self {
        let header_prefix = format!("{which}_HEADER_");
        let default = match env.non_empty("KUBERNETES_SERVICE_HOST") {
            Some(_) => DEFAULT_CONTROL_PLANE,
            None => DEFAULT_CONTROL_PLANE_OUTSIDE,
        };
        let headers = env.with_prefix(&header_prefix);
        Self {
            address: env.non_empty(&format!("{which}_ADDRESS")).unwrap_or(default).to_owned(),
            roots: ServerRoots::parse(env.non_empty(&format!("{which}_ROOT_CA")).unwrap_or(DEFAULT_ROOT)),
            hostname: env.non_empty(&format!("ALT_{which}_HOSTNAME")).map(Into::into),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// The channel to it; connected when it is used. `setting` names the address in errors.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn channel(&self, setting: &'static str, token: &Token, cluster: &str) -> Result<ControlChannel, ControlError> {
        let address = &self.address;
        let config = ChannelConfig {
            address: address.parse().map_err(|error| ControlError::Address { address: address.clone(), error })?,
            roots: self.roots.clone(),
            server_name: self.hostname.clone(),
            token: token.clone(),
            cluster_id: cluster.to_owned(),
            headers: self.headers.clone(),
        };
        channel::connect(&config).map_err(|error| ControlError::Channel { setting, error })
    }
}

/// `AUTH_TOKEN`: how the proxy proves itself to the control plane.
pub fn token(env: &Env) -> Token {
    match env.file_or_inline("AUTH_TOKEN") {
        Some(FileOrInline::Inline(token)) => Token::Literal(token),
        Some(FileOrInline::File(path)) => Token::File(path),
        // A projected token is there before the process is; where there is none, the CA knows us otherwise.
        None if Path::new(DEFAULT_TOKEN).exists() => Token::File(DEFAULT_TOKEN.into()),
        None => Token::None,
    }
}

/// The certificates of the identities that are served here, from the CA.
pub fn certificates(ca: CaClient, options: StoreOptions) -> Store {
    Store::new(&tokio::runtime::Handle::current(), Arc::new(ca), options)
}

/// Has the control plane write the tables from now on. `xds` is where it is, and who asks for which `kinds`; where there is
/// none, the tables are complete as they are.
pub fn follow_tables(
    xds: Option<(ControlChannel, NodeInfo)>,
    kinds: &'static [Kind],
    mut writer: Writer,
    demands: Option<Demands>,
    metrics: XdsMetrics,
) {
    match xds {
        Some((channel, node)) => {
            tokio::spawn(client::run(channel, node.to_node(), kinds, writer, demands, Arc::new(metrics)));
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
}

/// The revocation lists of `file`, read as they change. Not ready until they were good once: until then nobody is let in.
pub fn revocations(file: Option<&Path>, readiness: &Readiness) -> Revocations {
    let Some(file) = file else { return Revocations::default() };
    let revocations = Revocations::of_file(file);
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
    revocations
}
