//! Traffic does not need the control plane: killed and started again, nobody notices; and then it is heard again.
//!
//! Seen red when ztunnel ended with its stream from the control plane, and when it did not connect again.
use anyhow::{Context as _, Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};
use rustix::process::Signal;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("control_plane::istiod_lite_killed_and_restarted_without_a_failed_request", killed);
    suite.trial("control_plane::a_ztunnel_that_has_no_tables_says_so_in_the_status", without_tables);
}

fn killed() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").peer().yaml(),
        service("shop", "server", "server", 80, 8080),
    ]))?;
    unnoticed(&mesh).map_err(|e| e.context(mesh.report()))
}

fn unnoticed(mesh: &Mesh) -> Result<()> {
    mesh.get_at_last("shop/client", "http://server/")?;
    let new = mesh.traffic("shop/client", "server:80", &["--at-least", "200"])?;
    let kept = mesh.traffic(
        "shop/client",
        &format!("{}:9100", mesh.ip("shop/server", false)?),
        &["--kept", "--at-least", "200"],
    )?;
    for round in 1..=3 {
        mesh.restart("istiod-lite", Signal::KILL)?;
        // What is new reaches both ztunnels, from the new process.
        let name = format!("late-{round}");
        mesh.apply(&format!("{name}.yaml"), &Pod::new("shop", &name, "node1").http(8080, &name).yaml())?;
        mesh.pod_ready(&format!("shop/{name}"), true)?;
        mesh.get_at_last(&format!("shop/{name}"), "http://server/")?;
        let ip = mesh.ip(&format!("shop/{name}"), false)?;
        mesh.get_at_last("shop/server", &format!("http://{ip}:8080/"))?;
        mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", &format!("ns/shop/sa/{name}")])?;
    }
    new.finish()?.flawless(200)?;
    kept.finish()?.flawless(200)
}

fn without_tables() -> Result<()> {
    let mesh = Mesh::up(&all(&[namespace("shop", true), Pod::new("shop", "client", "node1").yaml()]))?;
    pending_tables(&mesh).map_err(|e| e.context(mesh.report()))
}

/// What the page on trouble says of it: not ready, pending `tables`.
fn pending_tables(mesh: &Mesh) -> Result<()> {
    mesh.signal("istiod-lite", Signal::STOP)?;
    mesh.signal("ztunnel-node1", Signal::KILL)?;
    until("status says what the new ztunnel waits for", || {
        let not_ready = mesh.program("ztunnel-node1")?.not_ready.context("it says nothing")?;
        ensure!(not_ready.contains("tables"), "{not_ready}");
        Ok(())
    })?;
    mesh.signal("istiod-lite", Signal::CONT)?;
    until("it is ready, and has nothing to say", || {
        let ztunnel = mesh.program("ztunnel-node1")?;
        ensure!(ztunnel.ready && ztunnel.not_ready.is_none(), "{ztunnel:?}");
        Ok(())
    })
}
