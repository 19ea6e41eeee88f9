//! The Gateway API's conformance suite for meshes, as it is published, on a real cluster: `e2e/conformance/README.md`.
//!
//! Seen red: without the label on the namespace (MeshHTTPRouteQueryParamMatching), and while a proxy that drained waited for callers
//! that were gone (the waypoint's namespace outlived the suite's patience).
use crate::kubernetes::{NAMESPACE, install};
use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::command;
use e2e::harness::{Suite, skip};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Names the folder that `e2e/conformance/build` has filled.
const FOLDER: &str = "AMBIT_TEST_CONFORMANCE";
/// It takes some minutes; its own waits end long before.
const SUITE: Duration = Duration::from_secs(40 * 60);

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("conformance::gateway_api_for_meshes", whole);
}

fn whole() -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from).filter(|folder| folder.join("suite").is_file())
    else {
        return Err(skip(&format!("{FOLDER} names no folder with the suite (e2e/conformance/build)")));
    };
    let folder = folder.canonicalize().with_context(|| format!("{FOLDER}: {}", folder.display()))?;
    let cluster = Cluster::start()?;
    cluster.import_ambit()?;
    cluster.import(&folder.join("echo.tar"))?;
    passes(&cluster, &folder).map_err(|e| e.context(cluster.report()))
}

/// The report is `report.yaml` in the folder, what the suite says `suite.log`.
fn passes(cluster: &Cluster, folder: &Path) -> Result<()> {
    let crds = folder.join("crds");
    cluster.kubectl(&["apply", "--server-side", "-f", crds.to_str().context("a path that is no text")?])?.good()?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?.good()?;
    install(cluster)?;
    let log = folder.join("suite.log");
    let mut suite = Command::new(folder.join("suite"));
    suite.args(["-test.v", "-test.timeout=0", concat!("-version=", env!("CARGO_PKG_VERSION"))]);
    suite.arg(format!("-report-output={}", folder.join("report.yaml").display()));
    suite.env("KUBECONFIG", cluster.kubeconfig()).current_dir(folder).stdin(Stdio::null());
    let file = File::create(&log)?;
    let mut running = suite.stdout(file.try_clone()?).stderr(file).spawn().context("the suite cannot be started")?;
    let code = command::wait(&mut running, SUITE)?;
    ensure!(code == 0, "the suite says, in {}:\n{}", log.display(), failures(&std::fs::read_to_string(&log)?));
    Ok(())
}

/// What failed, by the lines that say so.
fn failures(said: &str) -> String {
    let mut failures = String::new();
    for line in said.lines().filter(|line| line.trim_start().starts_with("--- FAIL") || line.contains("Error:")) {
        let _ = writeln!(failures, "{line}");
    }
    failures
}
