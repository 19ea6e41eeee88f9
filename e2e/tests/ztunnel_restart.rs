//! A ztunnel that is asked to end lets its connections finish; when it is back, everything works again.
//!
//! Seen red when ztunnel exited at once on SIGTERM.
use anyhow::{Context as _, Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};
use rustix::process::Signal;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("ztunnel_restart::sigterm_lets_connections_finish_and_all_is_well_afterwards", terminated);
}

const QUESTION: &str = "a-secret-question";

fn terminated() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").peer().yaml(),
    ]))?;
    graceful(&mesh).map_err(|e| e.context(mesh.report()))
}

fn graceful(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/server", false)?;
    let url = format!("http://{ip}:8080/");
    for (node, other) in [("node1", "node2"), ("node2", "node1")] {
        let program = format!("ztunnel-{node}");
        mesh.get_at_last("shop/client", &url)?;
        let before = mesh.program(&program)?.restarts;
        let open = mesh.traffic("shop/client", &format!("{ip}:9100"), &["--kept"])?;
        let carried = || Ok::<_, anyhow::Error>(mesh.metrics(other)?.sum("istio_tcp_received_bytes_total", &[]));

        mesh.signal(&program, Signal::TERM)?;
        mesh.log_line(&program, &["draining"])?;
        // What is open goes on, as the other node's ztunnel counts it.
        let then = carried()?;
        until("bytes flow while ztunnel drains", || {
            let now = carried()?;
            ensure!(now > then + 100.0, "{now} bytes, {then} when it began to drain");
            Ok(())
        })?;
        open.finish()?.flawless(5).with_context(|| format!("{program} was asked to end"))?;
        // Nothing is open any more: it waits no longer, and ends well.
        mesh.log_line(&program, &["every connection finished"])?;
        until(&format!("{program} was started again"), || {
            let now = mesh.program(&program)?;
            ensure!(now.restarts > before && now.pid.is_some(), "{now:?}");
            ensure!(
                now.last_end.as_deref().is_some_and(|end| end.contains("code 0")),
                "it ended with {:?}",
                now.last_end
            );
            Ok(())
        })?;

        mesh.get_at_last("shop/client", &url)?;
        // And not in the clear: a ztunnel that is not there must not mean that nobody takes care.
        let capture = mesh.capture(&[QUESTION])?;
        mesh.get("shop/client", &format!("{url}{QUESTION}"))?;
        let seen = capture.finish()?;
        ensure!(seen.count(QUESTION) == 0 && seen.hbone > 0, "{seen:?}");
    }
    Ok(())
}
