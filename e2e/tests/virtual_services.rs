//! A waypoint follows Istio's VirtualService: subsets by weight and by header, faults on purpose, timeouts, rewrites.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("virtual_services::route_by_subset_and_fault", follows);
}

/// Status, seconds and body of an answer to the client.
fn curl(mesh: &Mesh, arguments: &[&str]) -> Result<(String, f64, String)> {
    let command = ["curl", "-sS", "-m", "10", "-w", "\n%{http_code} %{time_total}"];
    let command: Vec<&str> = command.into_iter().chain(arguments.iter().copied()).collect();
    let output = mesh.exec("shop/client", &command)?;
    let (body, rest) = output.stdout.rsplit_once('\n').unwrap_or_default();
    let (status, seconds) = rest.split_once(' ').with_context(|| output.stderr.clone())?;
    ensure!(status != "000", "no answer: {}", output.stderr);
    Ok((status.to_owned(), seconds.parse()?, body.trim_end().to_owned()))
}

/// How many of 150 requests each version answered.
fn versions(mesh: &Mesh) -> Result<(usize, usize)> {
    let urls = vec!["http://reviews/"; 150];
    let output = mesh.exec("shop/client", &[&["curl", "-sS", "-m", "10"], &urls[..]].concat())?;
    let count = |version: &str| output.stdout.lines().filter(|line| line.starts_with(version)).count();
    let (old, new) = (count("reviews-v1 "), count("reviews-v2 "));
    ensure!(old + new == 150, "{}", output.stdout);
    Ok((old, new))
}

fn follows() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/virtual-service/virtual-service.yaml");
    let mesh = Mesh::up(&std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    until("it is followed", || {
        let (status, _, body) = curl(&mesh, &["http://reviews/old/x?q=1"])?;
        ensure!((&*status, &*body) == ("200", "reviews-v1 /x?q=1"), "{status} {body}");
        Ok(())
    })?;
    // Refused on purpose, by whoever is asked for.
    let (status, _, body) = curl(&mesh, &["-H", "end-user: mallory", "http://reviews/"])?;
    ensure!((&*status, &*body) == ("503", "fault filter abort"), "{status} {body}");
    mesh.log_line("shop/waypoint-1", &["response_code=503", "FAULT_ABORTED", "shop/reviews refused"])?;
    // Late on purpose, and from the version that the header leads to.
    let (status, seconds, body) = curl(&mesh, &["-H", "end-user: jason", "http://reviews/"])?;
    ensure!((&*status, &*body) == ("200", "reviews-v2 /") && seconds >= 2.0, "{status} {body} after {seconds} s");
    mesh.log_line("shop/waypoint-1", &["response_code=200", "FAULT_DELAYED", "shop/reviews slow"])?;
    // Text, not elements: this is below /slow, too.
    let (status, seconds, _) = curl(&mesh, &["http://reviews/slower"])?;
    ensure!(status == "504" && (0.5..2.5).contains(&seconds), "{status} after {seconds} s");
    mesh.log_line("shop/waypoint-1", &["response_code=504", "REQUEST_TIMEOUT", "shop/reviews impatient"])?;
    let (old, new) = versions(&mesh)?;
    // By chance: none, or so many, happens less than once in a million runs.
    ensure!((1..=60).contains(&new), "{old} of v1 and {new} of v2, where about 15 of 150 were to be of v2");
    // An edit is followed, of the weights and of who is in a subset.
    mesh.edit("base.yaml", "subset: v1}, weight: 90}", "subset: v1}, weight: 0}")?;
    until("the edited weights are followed", || {
        let (old, _) = versions(&mesh)?;
        ensure!(old == 0, "{old} of v1");
        Ok(())
    })?;
    mesh.edit("base.yaml", "{name: v2, labels: {version: v2}}", "{name: v2, labels: {version: v1}}")?;
    until("the edited subset is followed", || {
        let (_, new) = versions(&mesh)?;
        ensure!(new == 0, "{new} of v2");
        Ok(())
    })
}
