//! The life of a process, as its operator sees it: this test starts itself again as a small program, reads its stdout, and stops it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use mesh_runtime::access_log::{AccessLog, Entry, Event};
use mesh_runtime::config::Env;
use mesh_runtime::drain;
use mesh_runtime::log::{self, LogConfig};
use mesh_runtime::shutdown::Shutdown;

const CHILD: &str = "MESH_RUNTIME_TEST_CHILD";

/// The small program. As a test of its own it does nothing.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let config = LogConfig::from_env(&Env::process()).unwrap();
    let _control = log::init(&config).unwrap();
    let access = AccessLog::stdout(config.format).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (trigger, watch) = drain::new();
        access.record(&Entry { bytes_sent: Some(7), ..Entry::default() });
        access.record(&Entry { event: Event::Opened, ..Entry::default() });
        let connection = tokio::spawn(async move {
            let _token = watch.token();
            watch.started().await;
            tracing::info!(target: "child", "finishing");
        });
        let shutdown = Shutdown::new();
        let mut asked = std::pin::pin!(shutdown.wait());
        // The first poll installs the signal handlers; only then may the parent send its signal.
        std::future::poll_fn(|cx| {
            assert!(asked.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        assert!(access.flush(Duration::from_secs(10)));
        tracing::info!(target: "child", "started");
        let reason = asked.await.unwrap();
        let drained = trigger.drain(Duration::from_secs(10)).await;
        connection.await.unwrap();
        tracing::warn!(target: "child", %reason, left = drained.left, "stopped");
    });
}

#[test]
fn starts_is_observed_and_stops() {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .envs([(CHILD, "1"), ("RUST_LOG", "info"), ("LOG_FORMAT", "json")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = program.id().to_string();
    let mut seen = Vec::new();
    for line in BufReader::new(program.stdout.take().unwrap()).lines() {
        // The test harness writes lines of its own.
        let line = line.unwrap();
        let Some(Ok(mut line)) = line.find('{').map(|at| serde_json::from_str::<serde_json::Value>(&line[at..])) else {
            continue;
        };
        assert!(line["time"].take().is_string());
        if line["message"] == "started" {
            assert!(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().unwrap().success());
        }
        seen.push(line);
    }
    assert!(program.wait().unwrap().success());
    let line = |level: &str, scope: &str, message: &str| serde_json::json!({"time": null, "level": level, "scope": scope, "message": message});
    let with = |mut line: serde_json::Value, fields: &[(&str, serde_json::Value)]| {
        for (name, value) in fields {
            line[*name] = value.clone();
        }
        line
    };
    assert_eq!(
        seen,
        [
            with(line("info", "access", "connection complete"), &[("bytes_sent", 7.into())]),
            line("info", "child", "started"),
            line("info", "child", "finishing"),
            with(line("warn", "child", "stopped"), &[("reason", "SIGTERM".into()), ("left", 0.into())]),
        ]
    );
}
