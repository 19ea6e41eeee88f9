//! A ztunnel that is asked to end lets its connections finish; when it is back, everything works again. One that is
//! replaced is not missed: old and new overlap (contract 1.2, 3.6), no connection fails, and long ones live until the
//! deadline that the old one publishes (contract 5.7). One that is killed leaves nobody outside.
//!
//! Seen red when ztunnel exited at once on SIGTERM; when the old one was ended before the new one was ready (the ten
//! replacements); when the kernel was not told to let waiting connections move (who waits).
use anyhow::{Context as _, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, skip};
use e2e::process;
use e2e::traffic::Traffic;
use e2e::until::{PATIENCE, until};
use e2e::yaml::{Pod, all, namespace};
use rustix::process::Signal;
use std::collections::VecDeque;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("ztunnel_restart::sigterm_lets_connections_finish_and_all_is_well_afterwards", terminated);
    suite.trial("ztunnel_restart::ten_replacements_and_not_one_of_200_connections_a_second_fails", replaced);
    suite.trial("ztunnel_restart::who_waits_at_a_dying_ztunnel_is_served_by_its_successor", inherited);
    suite.trial("ztunnel_restart::a_killed_ztunnel_leaves_nobody_outside", killed);
}

const QUESTION: &str = "a-secret-question";

fn on_a_mesh(trial: fn(&Mesh) -> Result<()>) -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").peer().yaml(),
    ]))?;
    trial(&mesh).map_err(|e| e.context(mesh.report()))
}

fn terminated() -> Result<()> {
    on_a_mesh(graceful)
}

fn replaced() -> Result<()> {
    on_a_mesh(seamless)
}

fn inherited() -> Result<()> {
    if !std::path::Path::new("/proc/sys/net/ipv4/tcp_migrate_req").exists() {
        return Err(skip("the kernel has no tcp_migrate_req"));
    }
    on_a_mesh(queued)
}

fn killed() -> Result<()> {
    on_a_mesh(fail_closed)
}

/// Replacements of a ztunnel, on the client's and the server's node in turn.
const REPLACEMENTS: usize = 10;
/// Clients that open connections, and the milliseconds from one to the next of each: 200 a second together.
const CLIENTS: u64 = 8;
const EVERY: u64 = 40;

fn seamless(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/server", false)?;
    mesh.get_at_last("shop/client", &format!("http://{ip}:8080/"))?;
    let every = EVERY.to_string();
    let short = (0..CLIENTS)
        .map(|_| mesh.traffic("shop/client", &format!("{ip}:8080"), &["--every", &every]))
        .collect::<Result<Vec<_>>>()?;
    let mut draining = VecDeque::new();
    for number in 0..REPLACEMENTS {
        let node = ["node1", "node2"][number % 2];
        let long = mesh.traffic("shop/client", &format!("{ip}:9100"), &["--kept", "--to-failure", "--every", "50"])?;
        mesh.replace(&format!("ztunnel-{node}"))?;
        // The old one says until when, where its metrics always were.
        let deadline = until(&format!("the old ztunnel of {node} publishes its deadline"), || {
            let deadline = mesh.metrics(node)?.sum("ambit_drain_deadline_timestamp_seconds", &[]);
            ensure!(deadline > 0.0, "it serves as if nothing happened");
            Ok(deadline)
        })?;
        draining.push_back((node, long, deadline));
        if draining.len() > 1 {
            ended_at_its_deadline(mesh, draining.pop_front())?;
        }
    }
    ended_at_its_deadline(mesh, draining.pop_front())?;
    for traffic in short {
        let tally = traffic.finish()?;
        // A machine that is slow may ask less often; far less would mean nothing.
        tally.flawless(tally.took_ms / EVERY * 3 / 4)?;
    }
    Ok(())
}

/// A connection that was open when a ztunnel was replaced lives until the deadline, and not much longer.
fn ended_at_its_deadline(mesh: &Mesh, drained: Option<(&str, Traffic, f64)>) -> Result<()> {
    let (node, long, deadline) = drained.context("nothing was replaced")?;
    until(&format!("the old ztunnel of {node} has ended"), || {
        let program = mesh.program(&format!("ztunnel-{node}"))?;
        ensure!(program.draining.is_none(), "{program:?}");
        Ok(())
    })?;
    let tally = long.outlived(PATIENCE)?;
    let ended = tally.first_failure_ms.context("it never ended")? as f64 / 1000.0 - deadline;
    ensure!((-0.3..3.0).contains(&ended), "it ended {ended} s after the deadline: {tally:?}");
    Ok(())
}

/// The worst way to end: it stands still, so that connections pile up at its listeners, and is killed.
fn queued(mesh: &Mesh) -> Result<()> {
    let to = format!("{}:9100", mesh.ip("shop/server", false)?);
    let opened = || Ok::<_, anyhow::Error>(mesh.metrics("node2")?.sum("istio_tcp_connections_opened_total", &[]));
    mesh.get_at_last("shop/client", &format!("http://{}:8080/", mesh.ip("shop/server", false)?))?;
    let old = mesh.process("ztunnel-node1")?;
    process::signal(old.pid, Signal::STOP)?;
    mesh.replace("ztunnel-node1")?;
    let before = opened()?;
    std::thread::scope(|scope| {
        let command = ["ambit", "tool", "hold", &to, "--connections", "40"];
        let held = scope.spawn(move || mesh.exec("shop/client", &command)?.good());
        until("some find the new ztunnel, the others wait at the old one", || {
            ensure!(opened()? > before, "nobody does");
            Ok(())
        })?;
        process::signal(old.pid, Signal::KILL)?;
        held.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        Ok(())
    })
}

fn fail_closed(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/server", false)?;
    let url = format!("http://{ip}:8080/{QUESTION}");
    mesh.get_at_last("shop/client", &url)?;
    for node in ["node1", "node2"] {
        let program = format!("ztunnel-{node}");
        let before = mesh.program(&program)?.restarts;
        let capture = mesh.capture(&[QUESTION])?;
        mesh.signal(&program, Signal::KILL)?;
        // Asked all the time, from the moment it is gone until it serves again.
        until(&format!("{program} serves again"), || {
            mesh.get("shop/client", &url)?;
            ensure!(mesh.program(&program)?.restarts > before, "{program} was not started again");
            Ok(())
        })?;
        let seen = capture.finish()?;
        ensure!(seen.count(QUESTION) == 0 && seen.hbone > 0, "{seen:?}");
    }
    Ok(())
}

fn graceful(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/server", false)?;
    let url = format!("http://{ip}:8080/");
    for (node, other) in [("node1", "node2"), ("node2", "node1")] {
        let program = format!("ztunnel-{node}");
        mesh.get_at_last("shop/client", &url)?;
        let before = mesh.program(&program)?.restarts;
        let open = mesh.traffic("shop/client", &format!("{ip}:9100"), &["--kept", "--at-least", "5"])?;
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
