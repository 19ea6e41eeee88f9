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
    Ok(())
}
