//! What was asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::kubernetes::access::Cluster;

/// What a mesh on a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// One control plane.
    Default,
    /// Little of everything, for a laptop.
    Minimal,
    /// Three control planes, spread over nodes.
    Ha,
}

impl Profile {
    /// The charts' word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Minimal => "minimal",
            Self::Ha => "ha",
        }
    }
}

/// Which mesh on which cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Namespace of the mesh's own pods.
    #[arg(short, long, default_value = "istio-system")]
    pub(crate) namespace: String,
    /// The revision of the control plane: everything of it ends in -REVISION.
    /// Besides it nothing is installed then; what is there goes on.
    #[arg(short, long, verbatim_doc_comment)]
    pub(crate) revision: Option<String>,
    /// Return when it is done, not when it is begun; at most SECONDS.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
    pub(crate) wait: Option<u64>,
}

impl Place {
    /// The name of Helm's release.
    pub(crate) fn release(&self) -> String {
        match &self.revision {
            Some(revision) => format!("ambit-{revision}"),
            None => "ambit".to_owned(),
        }
    }
}

/// What to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct What {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How much of it.
    #[arg(long, value_enum)]
    pub(crate) profile: Option<Profile>,
    /// A value of the charts, such as ztunnel.logLevel=debug.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Files with values of the charts.
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    pub(crate) values: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Print the objects that would be made; no cluster is asked.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write the charts into this folder, and say how Helm installs them.
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    pub(crate) charts: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Print what would be there then; the cluster is asked.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write the charts into this folder, and say how Helm upgrades to them.
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    pub(crate) charts: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Also what is kept otherwise: Istio's kinds that ambit installed, with
    /// all objects of them, and the mesh's root certificate.
    #[arg(long, verbatim_doc_comment, conflicts_with = "revision")]
    pub(crate) purge: bool,
    /// With --purge: do not ask.
    #[arg(short, long, requires = "purge")]
    pub(crate) yes: bool,
}
