//! A ztunnel that is asked to end lets its connections finish; when it is back, everything works again.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};
use rustix::process::Signal;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("ztunnel_restart::sigterm_lets_connections_finish_and_all_is_well_afterwards", terminated);
}

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
    for node in ["node1", "node2"] {
        let program = format!("ztunnel-{node}");
        mesh.get_at_last("shop/client", &url)?;
        let before = mesh.program(&program)?.restarts;
        // A transfer that is on its way when the signal comes, and long enough to be so.
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| {
                let command = ["ambit", "tool", "transfer", &format!("{ip}:9100"), "--down", "400000000"];
                mesh.exec_within(Duration::from_secs(60), "shop/client", &command)?.good()
            });
            until("bytes flow", || {
                let open = mesh.config_dump("node2")?["workloadState"].to_string();
                ensure!(open.contains(":9100"), "{open}");
                Ok(())
            })?;
            mesh.signal(&program, Signal::TERM)?;
            let finished = transfer.join().map_err(|_| anyhow::anyhow!("panicked"))?;
            finished.map_err(|e| e.context(format!("the transfer did not survive SIGTERM of {program}")))
        })?;
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
        let capture = mesh.capture(&["GET /wire"])?;
        mesh.get("shop/client", &format!("{url}wire"))?;
        let seen = capture.finish()?;
        ensure!(seen.count("GET /wire") == 0 && seen.hbone > 0, "{seen:?}");
    }
    Ok(())
}
