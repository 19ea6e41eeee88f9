//! Lines as they come out, and the filter changed under them.

use std::io::Write;

use tracing::subscriber::with_default;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn emit() {
    let span = tracing::info_span!("inbound", peer = "10.0.0.1", n = 2);
    let _entered = span.enter();
    tracing::info!(target: "hbone", bytes = 7u64, name = "a\"b\nc", shown = %"x\ty", ok = true, "hello\n{}", "world");
}

#[test]
fn plain_lines() {
    let sink = Sink::default();
    with_default(tracing_subscriber::registry().with(format::layer(format::Plain, sink.clone())), emit);
    let line = sink.take();
    let columns: Vec<&str> = line.split('\t').collect();
    assert_eq!(columns[0].len(), "2026-11-21T08:25:40.123456Z".len());
    assert_eq!(
        columns[1..],
        [
            "info",
            "hbone:inbound{peer=\"10.0.0.1\" n=2}",
            "hello\\nworld",
            "bytes=7 name=\"a\\\"b\\nc\" shown=x\\ty ok=true\n"
        ]
    );
}

#[test]
fn json_lines() {
    let sink = Sink::default();
    with_default(tracing_subscriber::registry().with(format::layer(format::Json, sink.clone())), emit);
    let line = sink.take();
    assert_eq!(line.matches('\n').count(), 1);
    let mut value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(value["time"].take().is_string());
    assert_eq!(
        value,
        serde_json::json!({
            "time": null, "level": "info", "scope": "hbone", "spans": ["inbound{peer=\"10.0.0.1\" n=2}"],
            "message": "hello\nworld", "bytes": 7, "name": "a\"b\nc", "shown": "x\ty", "ok": true,
        })
    );
}

/// A field that is called as one of a line's own keys loses neither.
#[test]
fn no_line_has_a_key_twice() {
    let emit = || {
        let (message, level) = ("refused", 3u64);
        tracing::warn!(message, level, time = ?7, scope = %"s", spans = "none", "no stream");
    };
    let sink = Sink::default();
    with_default(tracing_subscriber::registry().with(format::layer(format::Plain, sink.clone())), emit);
    let line = sink.take();
    let fields = "field.message=\"refused\" field.level=3 field.time=7 field.scope=s field.spans=\"none\"";
    assert!(line.ends_with(&format!("\tno stream\t{fields}\n")), "{line}");
    let sink = Sink::default();
    with_default(tracing_subscriber::registry().with(format::layer(format::Json, sink.clone())), emit);
    let line = sink.take();
    for key in ["time", "level", "scope", "message"] {
        assert_eq!(line.matches(&format!("\"{key}\":")).count(), 1, "{key} in {line}");
    }
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&value["message"], &value["field.message"]), (&"no stream".into(), &"refused".into()));
    assert_eq!((&value["level"], &value["field.level"]), (&"warn".into(), &3.into()));
}

#[test]
fn the_filter_changes_while_running() {
    let sink = Sink::default();
    let (filter, control) = controlled("warn").unwrap();
    let subscriber = tracing_subscriber::registry().with(filter).with(format::layer(format::Plain, sink.clone()));
    let log = || {
        tracing::info!(target: "hbone::pool", "one");
        tracing::debug!(target: "xds", "two");
        sink.take().matches('\n').count()
    };
    with_default(subscriber, || {
        assert_eq!(log(), 0);
        control.add("hbone:info").unwrap();
        assert_eq!((control.current().as_str(), log()), ("warn,hbone=info", 1));
        control.add("debug").unwrap();
        assert_eq!((control.current().as_str(), log()), ("debug,hbone=info", 2));
        assert!(control.add("hbone=loud").is_err());
        assert_eq!(control.current(), "debug,hbone=info");
        control.reset();
        assert_eq!((control.current().as_str(), log()), ("warn", 0));
    });
}

#[test]
fn settings() {
    let read = |vars: &[(&str, &str)]| LogConfig::from_env(&vars.iter().copied().collect());
    assert_eq!(read(&[]).unwrap(), LogConfig { filter: "info".into(), format: LogFormat::Plain });
    assert_eq!(
        read(&[("RUST_LOG", "warn,access:info"), ("LOG_FORMAT", "json")]).unwrap(),
        LogConfig { filter: "warn,access=info".into(), format: LogFormat::Json }
    );
    assert!(read(&[("RUST_LOG", "loud")]).unwrap_err().to_string().contains("RUST_LOG"));
    assert!(read(&[("LOG_FORMAT", "xml")]).unwrap_err().to_string().contains("LOG_FORMAT"));
}
