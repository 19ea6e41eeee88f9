//! Requests through a waypoint are spans at a collector in the mesh, and the application is told which step of the trace it is.
//!
//! Seen red: with the Telemetry taken out of the example (no `traceparent` at the application).
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("traces::reach_their_collector", traces);
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What the application is told in a header of a request with another.
fn told(mesh: &Mesh, header: &str, name: &str) -> Result<String> {
    let output = mesh.exec("shop/client", &["curl", "-sS", "-m", "10", "-H", header, "http://web/"])?;
    let line = output.stdout.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.map(str::to_owned).with_context(|| format!("no {name}: {} {}", output.stdout, output.stderr))
}

/// The example does what its comments promise.
fn traces() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tracing/tracing.yaml");
    let mesh = Mesh::up(&std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    // A trace begins at the waypoint.
    let mut begun = String::new();
    until("the application is told of a trace", || {
        begun = told(&mesh, "x-user: ann", "traceparent")?;
        ensure!(begun.starts_with("00-") && begun.ends_with("-03"), "{begun}");
        Ok(())
    })?;
    let [trace, step] = [3..35, 36..52].map(|part| &begun[part]);
    let span = |words: &[&str]| mesh.log_line("telemetry/collector", words);
    let client = span(&[&format!("trace={trace} id={step} parent="), "CLIENT", "http.response.status_code=200"])?;
    let parent = client.split(" parent=").nth(1).and_then(|rest| rest.split(' ').next()).context("a parent")?;
    let words = [&*format!("trace={trace} id={parent} parent=- SERVER 'web.shop.svc.cluster.local:80/*'"), "user=ann"];
    let server = span(&words)?;
    ensure!(server.contains("istio.source_principal=spiffe://cluster.local/ns/shop/sa/default"), "{server}");
    ensure!(server.contains("environment=example"), "{server}");
    mesh.log_line("shop/waypoint-1", &["response_code=200", &format!("traceID=\"{trace}\"")])?;
    // One that began elsewhere goes on, in the way it came.
    let b3 = told(&mesh, &format!("b3: {TRACE}-{CALLER}-1"), "b3")?;
    let parts: Vec<&str> = b3.split('-').collect();
    ensure!(parts.len() == 4 && parts[0] == TRACE && parts[2] == "1", "{b3}");
    span(&[&format!("trace={TRACE} id={} parent={} CLIENT", parts[1], parts[3])])?;
    span(&[&format!("trace={TRACE} id={} parent={CALLER} SERVER", parts[3])])?;
    // What its caller does not sample is nobody's span, and the next hop hears of the caller.
    let unsampled = format!("00-{}-{CALLER}-00", "1".repeat(32));
    ensure!(told(&mesh, &format!("traceparent: {unsampled}"), "traceparent")? == unsampled, "it is handed on");
    // Once the span of a later request is there, one of that would be, too.
    let later = "2".repeat(32);
    told(&mesh, &format!("traceparent: 00-{later}-{CALLER}-01"), "traceparent")?;
    span(&[&format!("trace={later} "), "SERVER"])?;
    let log = mesh.log("telemetry/collector")?;
    ensure!(!log.contains(&"1".repeat(32)), "{log}");
    // An edit, while requests flow: spans are reported no more, and traces go on.
    mesh.edit("base.yaml", "randomSamplingPercentage: 100", "disableSpanReporting: true")?;
    until("no span is made", || {
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let same = told(&mesh, &format!("traceparent: {parent}"), "traceparent")?;
        ensure!(same == parent, "{same}");
        Ok(())
    })
}
