//! Which API server, and how we prove who we are.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Where credentials for an API server are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Those of the service account of the pod that we run in. The token is read again when the kubelet renews it.
    InCluster,
    /// Files in the format of `kubectl`, as `KUBECONFIG` lists them: what is in several counts as the first has it.
    Kubeconfig(Vec<PathBuf>),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be used.
    #[error("kubeconfig {files}: {problem}")]
    Kubeconfig {
        /// The files.
        files: String,
        /// What is wrong.
        problem: String,
    },
    /// We run in no pod, or in one without a service account's token.
    #[error("not in a pod with a service account ({0}): name a kubeconfig by KUBECONFIG, or mount the token")]
    InCluster(String),
    /// Credentials were found and cannot be used.
    #[error("no client can be made of these credentials: {0}")]
    Client(String),
}

impl Access {
    /// From the setting `KUBECONFIG`, files separated by colons; without it, in-cluster.
    pub fn from_setting(kubeconfig: Option<&str>) -> Self {
        let files: Vec<PathBuf> = kubeconfig
            .into_iter()
            .flat_map(|list| list.split(':'))
            .filter(|f| !f.is_empty())
            .map(PathBuf::from)
            .collect();
        if files.is_empty() { Self::InCluster } else { Self::Kubeconfig(files) }
    }

    /// A client. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// When there are no credentials, or none that can be used.
    pub async fn client(&self) -> Result<Client, AccessError> {
        self.client_in(None).await
    }

    /// [`Self::client`], by a context of the files; without one, by that which they name as the current one.
    ///
    /// # Errors
    /// When there are no credentials, or none that can be used.
    pub async fn client_in(&self, context: Option<&str>) -> Result<Client, AccessError> {
        let mut config = match self {
            Self::InCluster => Config::incluster().map_err(|e| AccessError::InCluster(e.to_string()))?,
            Self::Kubeconfig(files) => {
                let failed = |problem: String| AccessError::Kubeconfig {
                    files: files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(":"),
                    problem,
                };
                let mut whole = Kubeconfig::default();
                for file in files {
                    let one = Kubeconfig::read_from(file).map_err(|e| failed(e.to_string()))?;
                    whole = whole.merge(one).map_err(|e| failed(e.to_string()))?;
                }
                let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(whole, &options).await;
                config.map_err(|e| failed(e.to_string()))?
            }
        };
        // Whoever asks knows what to do about a refusal, and says so: nothing is repeated behind his back.
        config.default_retry = false;
        Client::try_from(config).map_err(|e| AccessError::Client(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_and_its_meaning() {
        for (setting, expected) in [
            (None, Access::InCluster),
            (Some(""), Access::InCluster),
            (Some("/a"), Access::Kubeconfig(vec!["/a".into()])),
            (Some("/a::b"), Access::Kubeconfig(vec!["/a".into(), "b".into()])),
        ] {
            assert_eq!(Access::from_setting(setting), expected, "{setting:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let error = |error: AccessError| error.to_string();
        let missing = Access::Kubeconfig(vec![file.clone()]).client().await.map(drop).map_err(error).unwrap_err();
        assert!(missing.contains(&*file.to_string_lossy()), "{missing}");
        std::fs::write(&file, "clusters: [").unwrap();
        let broken = Access::Kubeconfig(vec![file.clone()]).client().await.map(drop).map_err(error).unwrap_err();
        assert!(broken.contains(&*file.to_string_lossy()), "{broken}");
    }
}
