//! Addresses that come when a connection needs them (`XDS_ON_DEMAND`), and go when nobody has used them for a while; never
//! while a connection does.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until_within;
use e2e::yaml::{Pod, all, namespace};
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("on_demand::addresses_come_when_needed_and_go_when_unused", come_and_go);
}

const QUESTION: &str = "a-secret-question";

fn come_and_go() -> Result<()> {
    let settings = ["XDS_ON_DEMAND=true", "ISTIO_META_DNS_CAPTURE=false", "XDS_ON_DEMAND_UNUSED_RELEASE_TIMEOUT=15s"]
        .map(|setting| format!("ztunnel:{setting}"));
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let mesh = Mesh::up_with(
        &all(&[
            namespace("shop", true),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("shop", "kept", "node2").peer().yaml(),
            Pod::new("shop", "once", "node2").http(8080, "here").yaml(),
            Pod::new("shop", "never", "node2").http(8080, "here").yaml(),
        ]),
        &arguments,
    )?;
    used(&mesh).map_err(|e| e.context(mesh.report()))
}

fn used(mesh: &Mesh) -> Result<()> {
    let once = format!("http://{}:8080/{QUESTION}", mesh.ip("shop/once", false)?);
    let capture = mesh.capture(&[QUESTION])?;
    let kept = mesh.traffic(
        "shop/client",
        &format!("{}:9100", mesh.ip("shop/kept", false)?),
        &["--kept", "--at-least", "50"],
    )?;
    for round in ["the first time", "when it was let go of"] {
        // Whoever is asked for is awaited: the very first connection is in the mesh.
        mesh.get("shop/client", &once).context(round)?;
        ensure!(held(mesh)?.is_superset(&names(&["client", "kept", "once"])), "{round}: {:?}", held(mesh)?);
        until_within(Duration::from_secs(60), "what nobody uses is let go of", || {
            let held = held(mesh)?;
            ensure!(held == names(&["client", "kept"]), "{round}: {held:?}");
            Ok(())
        })?;
    }
    let seen = capture.finish()?;
    ensure!(seen.count(QUESTION) == 0 && seen.hbone > 0, "{seen:?}");
    kept.finish()?.flawless(50)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The pods of the namespace that the client's ztunnel holds.
fn held(mesh: &Mesh) -> Result<BTreeSet<String>> {
    let dump = mesh.config_dump("node1")?;
    let workloads = dump["workloads"].as_array().context("no workloads in the state")?;
    let ours = workloads.iter().filter(|workload| workload["namespace"] == "shop");
    Ok(ours.filter_map(|workload| Some(workload["name"].as_str()?.to_owned())).collect())
}
