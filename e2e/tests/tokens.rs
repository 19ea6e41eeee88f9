//! A waypoint lets in who has a token that is valid, and tells the application who that is.
//!
//! Seen red: with the RequestAuthentication taken out of the example (403 for rosa).
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("tokens::say_who_may_ask", tokens);
    suite.trial("tokens::are_checked_with_keys_that_are_fetched_and_followed", fetched);
}

/// Status, body and `www-authenticate` of an answer to the client, who shows a token.
fn ask(mesh: &Mesh, token: Option<&str>, path: &str) -> Result<(String, String, String)> {
    let (url, token) = (format!("http://web{path}"), token.map(|token| format!("authorization: Bearer {token}")));
    let mut command =
        vec!["curl", "-sS", "-m", "10", "-H", "x-user: mallory", "-w", "\n%{http_code}|%header{www-authenticate}"];
    if let Some(token) = &token {
        command.extend(["-H", token]);
    }
    command.push(&url);
    let output = mesh.exec("shop/client", &command)?;
    let (body, rest) = output.stdout.rsplit_once('\n').unwrap_or_default();
    let (status, challenge) = rest.split_once('|').unwrap_or_default();
    ensure!(status != "000" && !status.is_empty(), "no answer: {}", output.stderr);
    Ok((status.to_owned(), body.trim_end().to_owned(), challenge.to_owned()))
}

/// The example says what its comments promise.
fn tokens() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tokens/tokens.yaml");
    let example = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let token = |name: &str| {
        let (_, rest) = example.split_once(&format!("name: {name}, value: ")).context("a token in the example")?;
        Ok::<_, anyhow::Error>(rest.split('}').next().unwrap_or_default().to_owned())
    };
    let (reader, editor) = (token("READER")?, token("EDITOR")?);
    let mesh = Mesh::up(&example)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    until("the waypoint lets rosa read", || {
        let (status, body, _) = ask(&mesh, Some(&reader), "/a")?;
        ensure!((&*status, &*body) == ("200", "/a for rosa"), "{status} {body}");
        Ok(())
    })?;
    // The middle of a token says who it is of: another payload under the same signature.
    let parts: Vec<&str> = reader.split('.').chain(editor.split('.')).collect();
    let forged = format!("{}.{}.{}", parts[0], parts[4], parts[2]);
    for (what, token, path, expected) in [
        ("without a token", None, "/a", ("403", "RBAC: access denied")),
        ("a reader who edits", Some(&reader), "/edit", ("403", "RBAC: access denied")),
        ("an editor", Some(&editor), "/edit", ("200", "/edit for erik")),
        ("a forged token", Some(&forged), "/edit", ("401", "Jwt verification fails")),
        (
            "no token at all",
            Some(&"x".to_owned()),
            "/a",
            ("401", "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ),
    ] {
        let (status, body, challenge) = ask(&mesh, token.map(String::as_str), path)?;
        ensure!((&*status, &*body) == expected, "{what}: {status} {body}");
        ensure!(challenge.contains("error=\"invalid_token\"") == (status == "401"), "{what}: {challenge}");
    }
    mesh.log_line("shop/waypoint-1", &["response_code=401", "reason=\"TOKEN_INVALID\"", "Jwt verification fails"])?;
    mesh.log_line("shop/waypoint-1", &["response_code=200", "path=\"/edit\"", "audit=\"shop/edits\""])?;
    // Another audience, while requests flow: the same token is for somebody else now.
    mesh.edit("base.yaml", "audiences: [shop]", "audiences: [bank]")?;
    until("the edited audience is asked for", || {
        let (status, body, _) = ask(&mesh, Some(&reader), "/a")?;
        ensure!((&*status, &*body) == ("403", "Audiences in Jwt are not allowed"), "{status} {body}");
        Ok(())
    })?;
    // Around the waypoint nobody is told who asks.
    let direct = format!("http://{}:8080/", mesh.ip("shop/web", false)?);
    ensure!(mesh.get("shop/client", &direct).is_err(), "it went around the waypoint to {direct}");
    mesh.refused_because("shop/client", &direct, "ztunnel-node2", &["ambit_waypoint_only_web"])
}

/// On a node's own network, where the control plane reaches it: what it is told by PUT it says to everybody, until then 503.
const ISSUER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Pod
metadata: {name: issuer, namespace: outside}
spec:
  nodeName: node2
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
    - name: issuer
      command: [python3, -u, -c]
      args:
        - |
          import http.server
          said = [503, b""]
          class Issuer(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  self.send_response(said[0])
                  self.send_header("Content-Length", str(len(said[1])))
                  self.end_headers()
                  self.wfile.write(said[1])
              def do_PUT(self):
                  said[1] = self.rfile.read(int(self.headers["Content-Length"]))
                  said[0] = 200 if said[1] else 503
                  self.send_response(204)
                  self.end_headers()
          http.server.ThreadingHTTPServer(("0.0.0.0", 8090), Issuer).serve_forever()
      readinessProbe: {tcpSocket: {port: 8090}}
"#;
/// Where it is.
const KEYS: &str = "http://172.30.0.12:8090/keys";

/// The example with `jwksUri`: refused until the keys are there, then let in, then followed as the issuer changes them; and an issuer
/// that is away changes nothing.
fn fetched() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tokens/tokens.yaml");
    let example = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let (before, rest) = example.split_once("      jwks: |\n").context("jwks in the example")?;
    let (keys, after) = rest.split_once('\n').context("keys in the example")?;
    let yaml = format!("{before}      jwksUri: {KEYS}\n{after}\n---{ISSUER}");
    let (_, token) = example.split_once("name: READER, value: ").context("a token in the example")?;
    let reader = token.split('}').next().unwrap_or_default().to_owned();
    let refresh = ["--set", "istiod-lite:PILOT_JWT_PUB_KEY_REFRESH_INTERVAL=1s"];
    let mesh = Mesh::up_with(&yaml, &refresh)?;
    let says = |keys: &str| {
        let put = ["curl", "-sS", "-f", "-m", "10", "-X", "PUT", "--data-binary", keys, KEYS];
        let output = mesh.exec("outside/issuer", &put)?;
        ensure!(output.stderr.is_empty(), "{}", output.stderr);
        Ok(())
    };
    let answered = |what: &str, expected: (&str, &str)| {
        until(what, || {
            let (status, body, _) = ask(&mesh, Some(&reader), "/a")?;
            ensure!((&*status, &*body) == expected, "{status} {body}");
            Ok(())
        })
    };
    let told = |reason: &str, words: &str| {
        until(&format!("status says {reason}: {words}"), || {
            let all = mesh.status()?.policies;
            let told = all.iter().find(|told| told.kind == "RequestAuthentication");
            match told {
                Some(told) => ensure!(told.reason == reason && told.message.contains(words), "{told:?}"),
                None => ensure!(reason == "Accepted", "nothing is said"),
            }
            Ok(())
        })
    };
    let unavailable = format!("{KEYS} answers 503");
    answered("a token is refused without keys", ("401", "Jwks remote fetch is failed"))?;
    // The issuer may not have been there when the first was refused.
    until("the waypoint's log says why", || {
        ask(&mesh, Some(&reader), "/a")?;
        let (log, words) = (mesh.log("shop/waypoint-1")?, ["RequestAuthentication shop/tokens", &unavailable]);
        let last = log.lines().rev().find(|line| line.contains("TOKEN_INVALID")).context("no line")?;
        ensure!(words.iter().all(|word| last.contains(word)), "{last}");
        Ok(())
    })?;
    told("JwksNotFetched", &unavailable)?;
    says(keys)?;
    answered("the keys were fetched", ("200", "/a for rosa"))?;
    told("Accepted", "")?;
    says(r#"{"keys": [{"kty": "EC", "kid": "2027", "crv": "P-256", "x": "AA", "y": "AA"}]}"#)?;
    answered("the key is taken away", ("401", "Jwks doesn't have key to match kid or alg from Jwt"))?;
    says(keys)?;
    answered("the key is back", ("200", "/a for rosa"))?;
    // The issuer goes away; what it said last holds.
    says("")?;
    mesh.log_line("istiod-lite", &["keys could not be fetched again", &unavailable])?;
    answered("the last good keys hold", ("200", "/a for rosa"))
}
