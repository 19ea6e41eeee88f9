//! Which cluster, and how it is asked.
use anyhow::{Context, Result};
use clap::Args;
use mesh_kube::{Access, Client};
use std::path::PathBuf;

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Cluster {
    /// File with credentials for the cluster; else KUBECONFIG, else
    /// ~/.kube/config, else the pod's own.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of it; else the current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

impl Cluster {
    /// Something of it was said.
    pub(crate) fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// As kubectl does it: what was said, else the setting, else the file in the home, else the pod around.
    fn access(&self) -> Access {
        let setting = std::env::var("KUBECONFIG").ok().filter(|files| !files.is_empty());
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let home = home.filter(|file| file.exists());
        match (&self.kubeconfig, setting, home) {
            (Some(file), ..) => Access::Kubeconfig(vec![file.clone()]),
            (None, Some(setting), _) => Access::from_setting(Some(&setting)),
            (None, None, Some(home)) => Access::Kubeconfig(vec![home]),
            (None, None, None) => Access::InCluster,
        }
    }

    /// A client; nothing is asked yet.
    pub(crate) async fn client(&self) -> Result<Client> {
        let client = self.access().client_in(self.context.as_deref()).await;
        client.context("no cluster can be asked (--kubeconfig FILE, or KUBECONFIG)")
    }
}

/// Does what asks a cluster.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?.block_on(work)
}
