//! Admin, metrics and readiness over real sockets, spoken to as a client speaks that need not be polite.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::admin::{self, AdminError};
use mesh_runtime::config::Env;
use mesh_runtime::drain;
use mesh_runtime::http_server::{self, Listeners, Router, response};
use mesh_runtime::log::{self, LogConfig, LogControl};
use mesh_runtime::metrics::{Metrics, Reporter, TrafficMetrics};
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::{Reason, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Logs are set up once per process; every test of this file shares them.
fn log_control() -> LogControl {
    static LOG: std::sync::OnceLock<LogControl> = std::sync::OnceLock::new();
    let config = || LogConfig::from_env(&Env::from_iter([("RUST_LOG", "warn")])).unwrap();
    LOG.get_or_init(|| log::init(&config()).unwrap()).clone()
}

/// Sends `request` as it is; gives the status and everything after the status line.
async fn raw(addr: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may answer and close before it has read everything; what it said counts.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let rest = answer.split_once("\r\n").map_or(String::new(), |(_, rest)| rest.to_owned());
    (status, rest)
}

async fn ask(addr: SocketAddr, method: &str, target: &str, headers: &str) -> (u16, String) {
    raw(addr, format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").as_bytes())
        .await
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn admin_routes() {
    let shutdown = Shutdown::new();
    let state = || async { serde_json::json!({"workloads": [{"name": "a"}]}) };
    let extra = Router::new().route(http::Method::GET, "/debug/pods", "Pods", |_| async {
        response(http::StatusCode::OK, "text/plain", "none\n")
    });
    let routes = admin::routes(log_control(), shutdown.clone(), state).merge(extra);
    let listeners = Listeners::loopback(0).unwrap();
    let addrs = listeners.addrs();
    let (_trigger, watch) = drain::new();
    tokio::spawn(async move { admin::serve("ztunnel", listeners, routes, watch).await.unwrap() });

    for addr in addrs {
        let (status, answer) = ask(addr, "GET", "/config_dump", "").await;
        assert_eq!((status, answer.contains("content-type: application/json")), (200, true), "{answer}");
        let dump: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
        assert_eq!(dump, serde_json::json!({"workloads": [{"name": "a"}]}));

        let (status, answer) = ask(addr, "GET", "/", "").await;
        assert_eq!(status, 200);
        for listed in ["/config_dump", "/logging", "/quitquitquit", "/debug/pods"] {
            assert!(body(&answer).contains(listed), "{answer}");
        }
        assert_eq!(body(&ask(addr, "GET", "/debug/pods", "").await.1), "none\n");

        let (status, answer) = ask(addr, "HEAD", "/config_dump", "").await;
        assert_eq!((status, body(&answer)), (200, ""));

        let (status, answer) = ask(addr, "GET", "/logging", "").await;
        assert_eq!((status, answer.contains("allow: POST")), (405, true), "{answer}");
        let (status, answer) = ask(addr, "POST", "/logging?level=mesh_hbone:debug", "").await;
        assert_eq!((status, body(&answer)), (200, "current log level is warn,mesh_hbone=debug\n"));
        assert_eq!(body(&ask(addr, "POST", "/logging", "").await.1), "current log level is warn,mesh_hbone=debug\n");
        assert_eq!(body(&ask(addr, "POST", "/logging?reset", "").await.1), "current log level is warn\n");
        assert_eq!(ask(addr, "POST", "/logging?level=loud", "").await.0, 400);

        let (status, answer) = ask(addr, "GET", "/nowhere", "").await;
        assert_eq!((status, body(&answer).contains("/config_dump")), (404, true));
        let rebound = raw(addr, b"GET /config_dump HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
        assert_eq!(rebound.0, 403, "{}", rebound.1);
        assert_eq!(ask(addr, "POST", "/quitquitquit", "origin: https://evil.example\r\n").await.0, 403);
        assert_eq!(ask(addr, "GET", "/quitquitquit", "").await.0, 405);
        assert!(tokio::time::timeout(Duration::ZERO, shutdown.requested()).await.is_err(), "nobody quit yet");
    }
}

#[tokio::test]
async fn quit_asks_the_process_to_end() {
    let shutdown = Shutdown::new();
    let routes = admin::routes(log_control(), shutdown.clone(), || async { serde_json::Value::Null });
    let listeners = Listeners::loopback(0).unwrap();
    let addr = listeners.addrs()[0];
    let (_trigger, watch) = drain::new();
    tokio::spawn(admin::serve("ztunnel", listeners, routes, watch));
    assert_eq!(ask(addr, "POST", "/quitquitquit", "").await.0, 200);
    assert_eq!(shutdown.wait().await.unwrap(), Reason::Quit);
}

#[tokio::test]
async fn admin_refuses_the_network() {
    let (_trigger, watch) = drain::new();
    let routes = admin::routes(log_control(), Shutdown::new(), || async { serde_json::Value::Null });
    let refused = admin::serve("ztunnel", Listeners::wildcard(0).unwrap(), routes, watch).await;
    assert!(matches!(refused, Err(AdminError::NotLoopback { .. })));
}

#[tokio::test]
async fn metrics_in_both_formats() {
    let mut metrics = Metrics::new("ztunnel", "1.2.3");
    let traffic = TrafficMetrics::register(&mut metrics);
    let _socket = traffic.socket(Reporter::Source);
    let listeners = Listeners::wildcard(0).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], listeners.addrs()[0].port()));
    let (_trigger, watch) = drain::new();
    tokio::spawn(http_server::serve(listeners, Arc::new(metrics).routes(), watch));

    for path in ["/metrics", "/stats/prometheus"] {
        let (status, answer) = ask(addr, "GET", path, "").await;
        assert_eq!(status, 200);
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("istio_tcp_sockets_open{reporter=\"source\"} 1\n"), "{answer}");
        assert!(answer.contains("# TYPE istio_tcp_connections_opened_total counter\n"), "{answer}");
    }
    let (_, answer) = ask(addr, "GET", "/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains("# TYPE istio_tcp_connections_opened counter\n") && answer.contains("# EOF\n"), "{answer}");

    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Of HTTP/1.0, so that it comes without chunks.
    let request = b"GET /metrics HTTP/1.0\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept, accept-encoding"), "{head}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&answer[end + 4..]), &mut text).unwrap();
    assert!(text.contains("istio_tcp_sockets_open{reporter=\"source\"} 1\n"), "{text}");
}

#[tokio::test]
async fn readiness_names_what_it_waits_for() {
    let readiness = Readiness::new();
    let (xds, pods) = (readiness.register("xds"), readiness.register("pods"));
    let listeners = Listeners::wildcard(0).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], listeners.addrs()[0].port()));
    let (_trigger, watch) = drain::new();
    tokio::spawn(http_server::serve(listeners, readiness.routes(), watch));

    let now = || async move {
        let (status, answer) = ask(addr, "GET", "/healthz/ready", "").await;
        (status, body(&answer).to_owned())
    };
    pods.not_ready("node agent not connected");
    assert_eq!(now().await, (500, "not ready, pending: xds, pods (node agent not connected)\n".into()));
    xds.ready();
    pods.ready();
    assert_eq!(now().await, (200, "ready\n".into()));
    xds.not_ready("lost");
    assert_eq!(now().await, (500, "not ready, pending: xds (lost)\n".into()));
    assert_eq!(ask(addr, "POST", "/healthz/ready", "").await.0, 405);
}

#[tokio::test]
async fn everything_a_client_sends_is_bounded() {
    let echo = Router::new().route(http::Method::POST, "/", "", |request| async move {
        response(http::StatusCode::OK, "text/plain", request.into_body())
    });
    let listeners = Listeners::loopback(0).unwrap();
    let addr = listeners.addrs()[0];
    let (_trigger, watch) = drain::new();
    tokio::spawn(http_server::serve(listeners, echo, watch));

    let post = |length: usize| {
        let mut request =
            format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        request.resize(request.len() + length, b'x');
        request
    };
    let (status, answer) = raw(addr, &post(60_000)).await;
    assert_eq!((status, body(&answer).len()), (200, 60_000));
    assert_eq!(raw(addr, &post(70_000)).await.0, 413);

    let long = format!("POST / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert_eq!(raw(addr, long.as_bytes()).await.0, 431);
    let many = format!("POST / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_eq!(raw(addr, many.as_bytes()).await.0, 431);
    assert_eq!(raw(addr, b"\x16\x03\x01 not http\r\n\r\n").await.0, 400);

    // More clients than places: the last ones wait for a place, and get it.
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(addr).await.unwrap());
    }
    let request = post(1);
    let mut waiting = std::pin::pin!(raw(addr, &request));
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting.as_mut()).await.is_err(), "no place is free");
    idle.clear();
    assert_eq!(waiting.await.0, 200);
}

#[tokio::test]
async fn serves_while_draining_and_ends_when_forced() {
    let readiness = Readiness::new();
    let listeners = Listeners::loopback(0).unwrap();
    let addr = listeners.addrs()[0];
    let (trigger, watch) = drain::new();
    let serving = tokio::spawn(http_server::serve(listeners, readiness.routes(), watch.clone()));
    let token = watch.token();
    let draining = tokio::spawn(trigger.drain(Duration::from_secs(3600)));
    watch.started().await;
    assert_eq!(ask(addr, "GET", "/healthz/ready", "").await.0, 200);
    drop(token);
    assert_eq!(draining.await.unwrap().left, 0);
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err(), "the socket is closed");
}
