//! `ambit install`: what it makes is what Helm makes of the charts, wherever the program is; and where there is no Helm, it says what to do.
//! What it does to a cluster is in `kubernetes.rs`.
use crate::charts::{helm, program};
use anyhow::{Context, Result, ensure};
use e2e::command::{self, LIMIT, Output};
use e2e::harness::{Suite, skip};
use std::path::Path;
use std::process::Command;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("install::makes_what_the_charts_make", same);
    suite.trial("install::says_what_to_do_without_helm", without);
}

/// `ambit`, and Helm in its PATH.
pub(crate) fn ambit() -> Result<Command> {
    let helm = program("helm");
    let helm =
        helm.ok_or_else(|| skip("`helm` is neither in AMBIT_TEST_CLUSTER nor on this machine (e2e/cluster/build)"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = helm.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    let mut command = command::ambit();
    command.env("PATH", std::env::join_paths(folders)?);
    Ok(command)
}

fn same() -> Result<()> {
    for (asked, values) in [
        (&["--profile", "ha"][..], &["global.profile=ha"][..]),
        (&["--set", "ztunnel.logLevel=debug", "-n", "mesh"], &["ztunnel.logLevel=debug"]),
        (
            &["--revision", "blue"],
            &["crds.enabled=false", "node-agent.enabled=false", "ztunnel.enabled=false", "istiod-lite.revision=blue"],
        ),
    ] {
        let namespace = if asked.contains(&"mesh") { "mesh" } else { "istio-system" };
        let release = if asked.contains(&"blue") { "ambit-blue" } else { "ambit" };
        let set = values.iter().flat_map(|value| ["--set", value]);
        let more: Vec<&str> = ["-n", namespace, "--kube-version", "1.36.0"].into_iter().chain(set).collect();
        let expected = helm(&["template", release], "ambit", &more, LIMIT)?.good()?;
        let mut command = ambit()?;
        let made = command::run(command.args(["install", "--dry-run"]).args(asked), LIMIT)?.good()?;
        ensure!(made == expected && made.contains("kind: Deployment"), "{asked:?}:\n{made}\nand not\n{expected}");
    }
    // Helm's mistakes are its user's to see, and its exit code is ours.
    let mut command = ambit()?;
    let error =
        command::run(command.args(["install", "--dry-run", "--set", "ztunnel.resorces.cpu=1"]), LIMIT)?.bad()?;
    ensure!(error.contains("resorces"), "{error}");
    Ok(())
}

fn without() -> Result<()> {
    let run = |args: &[&str]| -> Result<Output> {
        let mut command = command::ambit();
        command::run(command.env("PATH", "/nowhere").args(args), LIMIT)
    };
    for (args, told) in [
        (
            &["install", "--profile", "ha"][..],
            "helm install ambit DIR/ambit --create-namespace --namespace istio-system --set global.profile=ha",
        ),
        (&["upgrade"], "helm upgrade ambit DIR/ambit --reset-then-reuse-values --namespace istio-system"),
        (&["uninstall"], "helm uninstall ambit --namespace istio-system"),
        (
            &["uninstall", "--purge", "--yes"],
            "helm uninstall ambit --namespace istio-system --wait --cascade foreground",
        ),
    ] {
        let error = run(args)?.bad()?;
        ensure!(error.contains("install Helm 3.14 or newer") && error.contains(told), "{args:?}: {error}");
        ensure!(error.contains("--charts DIR") == told.contains("DIR"), "{args:?}: {error}");
    }
    // The charts can be had for a Helm that is somewhere else.
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("charts");
    let charts = place.to_str().context("a path that is no text")?;
    let said = run(&["install", "--charts", charts])?;
    ensure!(said.code == 0 && said.stderr.contains(&format!("helm install ambit {charts}/ambit ")), "{said:?}");
    ensure!(place.join("ambit/charts/ztunnel/Chart.yaml").is_file(), "{said:?}");
    run(&["install", "--charts", charts])?.bad().map(drop)
}
