//! Admin pages of ztunnel's own, beside those that every program has.

use std::future::ready;

use http::{HeaderValue, Method, StatusCode, header};
use mesh_runtime::http_server::{Response, Router, response};

/// What is said where Istio's ztunnel has a profiler. One that stops every thread at a signal and unwinds there, in the
/// process that holds the node's connections and keys, is not worth it where the system has a better one outside.
const NO_PROFILER: &str = "ztunnel has no profiler of its own; the node has. CPU, 10 s:\n\
    \n    perf record -F 99 -g -p PID -- sleep 10 && perf script\n\
    \nRelease builds carry the names and lines that it needs. Memory: process_resident_memory_bytes in the metrics, \
    and heaptrack -p PID.\n";

/// Where metrics are, and what to use for profiles. `metrics` is the port of the metrics.
pub(crate) fn routes(metrics: u16) -> Router {
    let mut routes = Router::new();
    for path in ["/metrics", "/stats/prometheus"] {
        let elsewhere = move |_| ready(moved(metrics, path));
        routes = routes.route(Method::GET, path, "Metrics, on a port of their own", elsewhere);
    }
    for path in ["/debug/pprof/profile", "/debug/pprof/heap", "/debug/pprof/heap/profiling"] {
        let none = |_| ready(response(StatusCode::NOT_IMPLEMENTED, "text/plain; charset=utf-8", NO_PROFILER));
        routes = routes.route(Method::GET, path, "Not here: says what to profile with", none);
    }
    routes
}

fn moved(port: u16, path: &str) -> Response {
    let at = format!("http://localhost:{port}{path}");
    let mut page = response(StatusCode::TEMPORARY_REDIRECT, "text/plain; charset=utf-8", format!("{at}\n"));
    if let Ok(at) = HeaderValue::from_str(&at) {
        page.headers_mut().insert(header::LOCATION, at);
    }
    page
}
