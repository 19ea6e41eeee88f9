//! A waypoint asks somebody else about what a CUSTOM policy matches: the example's authorizer. `partners` has Istio's own.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("external_authorization::an_authorizer_of_ones_own_decides", example);
}

fn yaml() -> Result<String> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/external-authorization/external-authorization.yaml");
    std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))
}

/// Status, what the authorizer says of itself, and the body of an answer to the client.
fn ask(mesh: &Mesh, path: &str, with: &[&str]) -> Result<(String, String, String)> {
    let url = format!("http://web{path}");
    let format = "\n%{http_code}|%header{x-ext-authz-check-result}";
    let mut command = vec!["curl", "-sS", "-m", "10", "-H", "x-user: mallory", "-w", format];
    command.extend(with);
    command.push(&url);
    let output = mesh.exec("shop/client", &command)?;
    let (body, rest) = output.stdout.rsplit_once('\n').unwrap_or_default();
    let (status, result) = rest.split_once('|').unwrap_or_default();
    ensure!(status != "000" && !status.is_empty(), "no answer: {}", output.stderr);
    Ok((status.to_owned(), result.to_owned(), body.trim_end().to_owned()))
}

fn expect(mesh: &Mesh, path: &str, with: &[&str], expected: (&str, &str, &str)) -> Result<()> {
    let (status, result, body) = ask(mesh, path, with)?;
    let body = if expected.2.is_empty() { "" } else { &*body };
    ensure!((&*status, &*result, body) == expected, "{path} {with:?}: {status} {result:?} {body}");
    Ok(())
}

const ALLOWED: [&str; 2] = ["-H", "x-ext-authz: allow"];

/// The example says what its comments promise.
fn example() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let mesh = Mesh::up(&yaml()?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    until("the waypoint lets pass whom the authorizer does", || {
        expect(&mesh, "/admin", &ALLOWED, ("200", "", "/admin for rosa"))
    })?;
    expect(&mesh, "/", &[], ("200", "", "/ for mallory"))?;
    expect(&mesh, "/admin", &[], ("403", "denied", "denied by ext_authz"))?;
    mesh.log_line(
        "shop/waypoint-1",
        &["response_code=403", "reason=\"AUTHORIZER_DENIED\"", "provider sample-ext-authz"],
    )?;
    let delete = ["-X", "DELETE", "-H", "x-ext-authz: allow"];
    expect(&mesh, "/admin", &delete, ("403", "", "RBAC: access denied"))?;
    mesh.log_line("shop/waypoint-1", &["method=\"DELETE\"", "policy=\"shop/nobody-deletes\""])?;
    // Around the waypoint nobody is asked, and so nobody is let in.
    let direct = format!("http://{}:8080/admin", mesh.ip("shop/web", false)?);
    ensure!(mesh.get("shop/client", &direct).is_err(), "it went around the waypoint to {direct}");
    // The provider under another name, while requests flow: who cannot be asked has not said yes.
    mesh.edit("base.yaml", "- name: sample-ext-authz", "- name: renamed")?;
    until("a provider that is unknown lets nobody pass", || {
        expect(&mesh, "/admin", &ALLOWED, ("403", "", "RBAC: access denied"))
    })?;
    mesh.log_line(
        "shop/waypoint-1",
        &["extension provider \\\"sample-ext-authz\\\" is not in the mesh configuration"],
    )?;
    expect(&mesh, "/", &[], ("200", "", "/ for mallory"))?;
    mesh.edit("base.yaml", "- name: renamed", "- name: sample-ext-authz")?;
    until("it is known again", || expect(&mesh, "/admin", &ALLOWED, ("200", "", "/admin for rosa")))
}
