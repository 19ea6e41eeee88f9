//! A waypoint asks somebody else about what a CUSTOM policy matches: the example's authorizer, and Istio's own sample, over gRPC and
//! HTTP. `AMBIT_TEST_EXTAUTHZ` names that program (istio.io/istio, `go build ./samples/extauthz/cmd/extauthz`).
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program, skip};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("external_authorization::an_authorizer_of_ones_own_decides", example);
    suite.trial("external_authorization::istio_s_sample_decides_over_grpc_and_http", sample);
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

/// Istio's own authorizer in the place of the example's.
fn sample() -> Result<()> {
    need_program("curl")?;
    let program = std::env::var("AMBIT_TEST_EXTAUTHZ").ok().filter(|program| Path::new(program).is_file());
    let program = program.ok_or_else(|| {
        skip("AMBIT_TEST_EXTAUTHZ names no program: in istio.io/istio, go build ./samples/extauthz/cmd/extauthz")
    })?;
    let example = yaml()?;
    let documents = example
        .split("\n---\n")
        .filter(|document| !document.contains("metadata: {name: ext-authz, namespace: shop, labels"));
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: ext-authz, namespace: shop, labels: {{app: ext-authz}}}}\nspec:\n  \
         nodeName: node1\n  containers:\n    - name: ext-authz\n      command: [{program:?}]\n      \
         readinessProbe: {{tcpSocket: {{port: 9000}}}}\n"
    );
    let mesh = Mesh::up(&documents.chain([&*pod]).collect::<Vec<_>>().join("\n---\n"))?;
    until("it is asked over HTTP", || expect(&mesh, "/admin", &ALLOWED, ("200", "", "/admin for mallory")))?;
    let denied = "denied by ext_authz for not found header `x-ext-authz: allow` in the request";
    expect(&mesh, "/admin", &[], ("403", "denied", denied))?;
    expect(&mesh, "/", &[], ("200", "", "/ for mallory"))?;
    // And over gRPC: Envoy's Check, of which it allows whatever service account `a` asks, too.
    let http = &example[example.find("      envoyExtAuthzHttp:").context("a provider in the example")?..];
    let http = &http[..http.find("---").context("its end")?];
    let grpc = "      envoyExtAuthzGrpc: {service: ext-authz.shop.svc.cluster.local, port: 9000}\n";
    mesh.edit("base.yaml", http, grpc)?;
    until("it is asked over gRPC", || {
        expect(&mesh, "/admin", &ALLOWED, ("200", "", ""))?;
        let asked = mesh.log_line("shop/ext-authz", &["[gRPCv3][allowed]", "/sa/default"]);
        asked.map(drop)
    })?;
    expect(&mesh, "/admin", &[], ("403", "denied", denied))?;
    expect(&mesh, "/", &[], ("200", "", "/ for mallory"))
}
