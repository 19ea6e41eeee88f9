//! A waypoint lets each caller ask so often and no more: the example, by real clients of two identities.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("rate_limits::one_caller_is_limited_and_another_is_not", example);
}

fn yaml() -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rate-limit/rate-limit.yaml");
    std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))
}

/// Status, what the answer says of limits, and its body.
fn ask(mesh: &Mesh, who: &str, path: &str) -> Result<(String, String, String)> {
    let url = format!("http://web{path}");
    let format = "\n%{http_code}|%header{x-envoy-ratelimited} %header{retry-after}";
    let output = mesh.exec(&format!("shop/{who}"), &["curl", "-sS", "-m", "10", "-w", format, &url])?;
    let (body, rest) = output.stdout.rsplit_once('\n').unwrap_or_default();
    let (status, told) = rest.split_once('|').unwrap_or_default();
    ensure!(status != "000" && !status.is_empty(), "no answer: {}", output.stderr);
    Ok((status.to_owned(), told.trim().to_owned(), body.trim_end().to_owned()))
}

fn statuses(mesh: &Mesh, who: &str, path: &str, count: usize) -> Result<Vec<String>> {
    (0..count).map(|_| ask(mesh, who, path).map(|(status, ..)| status)).collect()
}

fn example() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let mesh = Mesh::up(&yaml()?)?;
    let status = mesh.status()?;
    ensure!(status.rejected.is_empty(), "{:?}", status.rejected);
    // Nothing is counted yet: until the waypoint serves, nobody is answered by it.
    until("the waypoint serves", || {
        let (status, _, body) = ask(&mesh, "calm", "/")?;
        ensure!(status == "200" && body == "hello", "{status} {body}");
        mesh.logged("shop/waypoint-1", &["response_code=200"]).map(drop)
    })?;
    until("one identity is over its limit", || {
        let seen = statuses(&mesh, "busy", "/", 5)?;
        ensure!(seen.iter().any(|status| status == "429"), "{seen:?}");
        // Where much else is done the next is let in again by then: everything is asked of one answer.
        let (status, told, body) = ask(&mesh, "busy", "/")?;
        ensure!(status == "429" && body == "RATE_LIMITED", "{status} {body}");
        let wait: Option<u64> = told.strip_prefix("true ").and_then(|wait| wait.parse().ok());
        ensure!(wait.is_some_and(|wait| (1..=10).contains(&wait)), "x-envoy-ratelimited and retry-after: {told:?}");
        Ok(())
    })?;
    let line = [
        "response_code=429",
        "reason=\"RATE_LIMITED\"",
        "policy=\"shop/fair\"",
        "each-caller of TrafficPolicy shop/fair",
    ];
    mesh.log_line("shop/waypoint-1", &line)?;
    let (status, ..) = ask(&mesh, "calm", "/")?;
    ensure!(status == "200", "the other identity is limited, too: {status}");
    // Whoever goes around the waypoint would not be counted, and is not let in.
    let direct = format!("http://{}:8080/", mesh.ip("shop/web", false)?);
    ensure!(mesh.get("shop/busy", &direct).is_err(), "it went around the waypoint to {direct}");
    mesh.refused_because("shop/busy", &direct, "ztunnel-node2", &["ambit_waypoint_only_web"])?;
    // Lifted while requests flow: the policy of the Service; that of the rule stays.
    mesh.edit("base.yaml", "requests: 6, per: 1m, burst: 3", "requests: 1000, per: 1s, burst: 1000")?;
    until("the limit is lifted", || {
        let seen = statuses(&mesh, "busy", "/", 5)?;
        ensure!(seen.iter().all(|status| status == "200"), "{seen:?}");
        Ok(())
    })?;
    until("the rule's own limit holds for all callers together", || {
        let (first, second) = (ask(&mesh, "calm", "/report")?.0, ask(&mesh, "busy", "/report")?.0);
        ensure!(second == "429", "{first} {second}");
        Ok(())
    })?;
    mesh.log_line("shop/waypoint-1", &["reports of TrafficPolicy shop/reports for HTTPRoute shop/web report"])?;
    // What cannot be followed is told by name, and the version before serves.
    mesh.edit("base.yaml", "key: {type: CallerIdentity}", "key: {type: CallerAddress}")?;
    until("the field is named", || {
        let rejected = format!("{:?}", mesh.status()?.rejected);
        ensure!(rejected.contains("key.type") && rejected.contains("CallerAddress"), "{rejected}");
        Ok(())
    })
}
