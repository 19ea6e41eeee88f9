//! What is logged of requests through a waypoint, and how they are counted, is as Telemetry says.
//!
//! Seen red: with the filter taken out of the example.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("telemetry::logs_are_filtered", logs);
}

/// The status of a request.
fn ask(mesh: &Mesh, url: &str) -> Result<String> {
    let output =
        mesh.exec("shop/client", &["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", url])?;
    ensure!(output.stderr.is_empty(), "{}", output.stderr);
    Ok(output.stdout)
}

/// The example does what its comments promise.
fn logs() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/telemetry/telemetry.yaml");
    let mesh = Mesh::up(&std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    let waypoint = "shop/waypoint-1";
    until("web answers", || {
        let status = ask(&mesh, "http://web/")?;
        ensure!(status == "200", "{status}");
        Ok(())
    })?;
    // One that is well has no line, one that fails has; it comes later, so the other would be there, too.
    ensure!(ask(&mesh, "http://web/first")? == "200");
    ensure!(ask(&mesh, "http://web/missing")? == "404");
    mesh.log_line(waypoint, &["request complete", "path=\"/missing\"", "response_code=404"])?;
    ensure!(!mesh.log(waypoint)?.contains("/first"), "{}", mesh.log(waypoint)?);
    // A service of its own has nothing logged.
    ensure!(ask(&mesh, "http://quiet/missing-quietly")? == "404");
    ensure!(ask(&mesh, "http://web/missing-loudly")? == "404");
    mesh.log_line(waypoint, &["path=\"/missing-loudly\""])?;
    ensure!(!mesh.log(waypoint)?.contains("/missing-quietly"), "{}", mesh.log(waypoint)?);
    // An edit, while requests flow: all are logged again.
    mesh.edit("base.yaml", "disabled: true", "disabled: false")?;
    let mut n = 0;
    until("what is well is logged, too", || {
        n += 1;
        let path = format!("/well-{n}");
        ask(&mesh, &format!("http://quiet{path}"))?;
        // Whatever was asked before this has its line by now, or none.
        ask(&mesh, &format!("http://web/missing-{n}"))?;
        mesh.log_line(waypoint, &[&format!("path=\"/missing-{n}\"")])?;
        ensure!(mesh.log(waypoint)?.contains(&format!("path=\"{path}\"")), "not yet");
        Ok(())
    })
}
