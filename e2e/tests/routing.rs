//! The ways to route of `examples/routing`, each as its file says.
//!
//! Seen red without retries, with the mirror's copies for the old version, the chat's route for another path, and another group.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("routing::the_examples_do_what_they_say", examples);
}

/// A message to the chat and back, and what the upgrade was answered with.
const CHAT: &str = r#"
import os, socket
key = "dGhlIHNhbXBsZSBub25jZQ=="
with socket.create_connection(("chat", 80), 10) as chat:
    chat.sendall(f"GET /room HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    stream = chat.makefile("rb")
    print(stream.readline().decode().strip())
    while line := stream.readline().strip():
        print(line.decode())
    mask, text = os.urandom(4), b"hello there"
    chat.sendall(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
    head = stream.read(2)
    print(stream.read(head[1]).decode())
"#;

fn examples() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/routing");
    let read = |file: &Path| std::fs::read_to_string(file).with_context(|| format!("{}", file.display()));
    let mesh = Mesh::up(&read(&folder.join("shop.yaml"))?)?;
    for file in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let file = file?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name != "shop.yaml" {
            mesh.apply(&name, &read(&file)?)?;
        }
    }
    mesh.pod_ready("shop/chat", true)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    let ask = |arguments: &[&str]| {
        let output = mesh.exec("shop/client", &[&["curl", "-sS", "-m", "10"], arguments].concat())?;
        ensure!(output.code == 0, "{arguments:?}: {}", output.stderr);
        Ok(output.stdout)
    };
    let many = |url: &'static str, times: usize| ask(&vec![url; times]);
    let count = |answers: &str, of: &str| answers.lines().filter(|line| *line == of).count();
    until("routes are followed", || {
        let answers = many("http://blue-green/", 10)?;
        ensure!(count(&answers, "v1") == 10, "{answers}");
        Ok(())
    })?;

    let answers = many("http://canary/", 200)?;
    let (old, new) = (count(&answers, "v1"), count(&answers, "v2"));
    ensure!(old + new == 200 && (15..=75).contains(&new), "canary: {old} of v1, {new} of v2");

    let canary = |value: &str| ask(&["-H", &format!("x-canary: {value}"), "http://header-canary/"]);
    ensure!((canary("always")?, canary("never")?) == ("v2\n".into(), "v1\n".into()), "header-canary");

    for (cookie, version, group) in
        [("theme=dark; group=b", "v2", "b"), ("group=b; x=1", "v2", "b"), ("group=bb", "v1", "a"), ("", "v1", "a")]
    {
        let answer = ask(&["-i", "-H", &format!("cookie: {cookie}"), "http://a-b/"])?;
        let says = format!("x-group: {group}");
        ensure!(answer.ends_with(&format!("{version}\n")) && answer.contains(&says), "a-b, {cookie:?}: {answer}");
    }

    mesh.edit("blue-green.yaml", "{name: v1, port: 80}", "{name: v2, port: 80}")?;
    until("blue-green: switched", || {
        let answers = many("http://blue-green/", 10)?;
        ensure!(count(&answers, "v2") == 10, "{answers}");
        Ok(())
    })?;

    let status = |url: &str| ask(&["-o", "/dev/null", "-w", "%{http_code}", url]);
    let straight: Vec<_> = (0..6).map(|_| status("http://v1/flaky")).collect::<Result<_>>()?;
    ensure!(straight.iter().any(|said| said == "503"), "v1 never fails: {straight:?}");
    let retried: Vec<_> = (0..12).map(|_| status("http://retry/flaky")).collect::<Result<_>>()?;
    ensure!(retried.iter().all(|said| said == "200"), "retry: {retried:?}");

    ensure!(status("http://timeout/slow")? == "504", "timeout");
    mesh.log_line("shop/waypoint-1", &["timeout.shop", "response_code=504"])?;

    ensure!(ask(&["http://mirror/copied"])? == "v1\n", "mirror: the old version answers");
    for pod in ["shop/web-v1", "shop/web-v2"] {
        mesh.log_line(pod, &["/copied 200"])?;
    }

    let output = mesh.exec("shop/client", &["python3", "-c", CHAT])?;
    let lines: Vec<&str> = output.stdout.lines().collect();
    let (first, last) = (lines.first().copied(), lines.last().copied());
    ensure!(
        (first, last) == (Some("HTTP/1.1 101 Switching Protocols"), Some("hello there"))
            && lines.iter().any(|line| line.eq_ignore_ascii_case("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        "websocket: {} {}",
        output.stdout,
        output.stderr
    );
    Ok(())
}
