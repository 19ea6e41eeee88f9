//! What a program serves on localhost: dump of its state, log level, quit.
//!
//! | Path | Method | Does |
//! |---|---|---|
//! | `/` | GET | lists the routes |
//! | `/config_dump` | GET | the program's state as JSON |
//! | `/logging` | POST | `?level=<level or scope:level,…>` adds to the log filter, `?reset` returns to the start-up one, neither shows it |
//! | `/quitquitquit` | POST | drain and exit |
//!
//! Whoever can reach it owns the process, so it is served on loopback only, and only to requests that say so: a `Host` or an `Origin` of
//! elsewhere means a browser was tricked into asking.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::Authority;
use http::{Method, StatusCode, Uri, header};

use crate::drain;
use crate::http_server::{self, Body, Listeners, Request, Response, Router, query_pairs, response};
use crate::log::LogControl;
use crate::shutdown::{Reason, Shutdown};

/// The admin routes every program has. `config_dump` gives its state; add its other routes with [`Router::merge`].
pub fn routes<F>(log: LogControl, shutdown: Shutdown, config_dump: impl Fn() -> F + Send + Sync + 'static) -> Router
where
    F: Future<Output = serde_json::Value> + Send + 'static,
{
    let config_dump = Arc::new(config_dump);
    Router::new()
        .route(Method::GET, "/config_dump", "The state of this process as JSON", move |_| {
            let state = config_dump();
            async move { dump(state.await).await }
        })
        .route(
            Method::POST,
            "/logging",
            "Show or change the log level: ?level=scope:level,... or ?reset",
            move |request| std::future::ready(logging(&log, request.uri().query().unwrap_or_default())),
        )
        .route(Method::POST, "/quitquitquit", "Drain and exit", move |_| {
            shutdown.request(Reason::Quit);
            std::future::ready(text(StatusCode::OK, "shutdown now\n"))
        })
}

/// Admin routes were about to be served to the network.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A listener is not on loopback.
    #[error("the admin server must listen on loopback only, not on {addrs}: whoever reaches it can stop this process")]
    NotLoopback {
        /// Where it would have listened.
        addrs: String,
    },
    /// A socket could not be used.
    #[error("the admin server cannot use its socket: {0}")]
    Socket(#[from] io::Error),
}

/// Serves admin routes, with an index at `/`, until `drain` is forced. Runs on the current runtime; spawn it.
///
/// # Errors
/// [`AdminError::NotLoopback`] before anything is served; [`AdminError::Socket`] if a socket cannot be used.
pub async fn serve(name: &str, listeners: Listeners, routes: Router, drain: drain::Watch) -> Result<(), AdminError> {
    if !listeners.are_loopback() {
        let addrs: Vec<String> = listeners.addrs().iter().map(ToString::to_string).collect();
        return Err(AdminError::NotLoopback { addrs: addrs.join(", ") });
    }
    Ok(http_server::serve(listeners, routes.with_index(name).with_guard(from_here), drain).await?)
}

/// Large meshes have dumps of many megabytes; writing them out must not hold up the runtime.
async fn dump(state: serde_json::Value) -> Response {
    match tokio::task::spawn_blocking(move || serde_json::to_vec_pretty(&state)).await {
        Ok(Ok(json)) => response(StatusCode::OK, "application/json", json),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the state could not be written as JSON\n"),
    }
}

fn logging(log: &LogControl, query: &str) -> Response {
    let (mut level, mut reset) = (None, false);
    for (key, value) in query_pairs(query) {
        match key.as_str() {
            "level" => level = Some(value),
            "reset" => reset = true,
            _ => return text(StatusCode::BAD_REQUEST, USAGE),
        }
    }
    if reset {
        log.reset();
    }
    if let Some(Err(error)) = level.map(|level| log.add(&level)) {
        return text(StatusCode::BAD_REQUEST, format!("{error}\n{USAGE}"));
    }
    text(StatusCode::OK, format!("current log level is {}\n", log.current()))
}

const USAGE: &str = "usage: POST /logging                    shows the log level\n       \
    POST /logging?level=<level>      for everything not named otherwise: trace, debug, info, warn, error, off\n       \
    POST /logging?level=<scope>:<level>,<scope>:<level>\n       \
    POST /logging?reset              back to the level at start-up\n";

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    response(status, "text/plain; charset=utf-8", body)
}

/// Whether the request was meant for this machine by someone on it. `Host` catches DNS rebinding, `Origin` a form on a foreign page.
fn from_here(request: &Request) -> Result<(), &'static str> {
    let value = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let host_here = |host: &str| host.parse::<Authority>().is_ok_and(|authority| is_local(authority.host()));
    let origin_here = |origin: &str| origin.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_local));
    if !value(header::HOST).is_none_or(host_here) {
        return Err("the admin server answers only to localhost; the Host header names another machine");
    }
    if !value(header::ORIGIN).is_none_or(origin_here) {
        return Err("the admin server answers only to localhost; the Origin header names another site");
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn only_requests_from_here() {
        let cases = [
            (None, None, true),
            (Some("localhost:15000"), None, true),
            (Some("LOCALHOST"), None, true),
            (Some("127.0.0.1:15000"), None, true),
            (Some("[::1]:15000"), None, true),
            (Some("localhost:15000"), Some("http://localhost:15000"), true),
            (Some("evil.example:15000"), None, false),
            (Some("localhost.evil.example"), None, false),
            (Some("10.0.0.1:15000"), None, false),
            (Some(""), None, false),
            (Some("localhost:15000"), Some("https://evil.example"), false),
            (Some("localhost:15000"), Some("null"), false),
        ];
        for (host, origin, allowed) in cases {
            let mut request = Request::new(Bytes::new());
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    request.headers_mut().insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(from_here(&request).is_ok(), allowed, "Host {host:?} Origin {origin:?}");
        }
    }

    #[test]
    fn the_log_level_over_http() {
        let (_layer, log) = crate::log::detached("info");
        let cases = [
            ("", 200, "current log level is info\n"),
            ("level=debug", 200, "current log level is debug\n"),
            ("level=mesh_hbone:trace,access=off", 200, "current log level is debug,mesh_hbone=trace,access=off\n"),
            ("level=loud", 400, "log filter \"loud\" is not usable"),
            ("lvl=info", 400, "usage: POST /logging"),
            ("", 200, "current log level is debug,mesh_hbone=trace,access=off\n"),
            ("reset", 200, "current log level is info\n"),
            ("reset&level=x%3Awarn", 200, "current log level is info,x=warn\n"),
        ];
        for (query, status, body) in cases {
            let answer = logging(&log, query);
            let said = String::from_utf8_lossy(answer.body().whole().unwrap());
            assert_eq!(answer.status(), status, "{query:?}: {said}");
            assert!(said.starts_with(body), "{query:?}: {said}");
        }
    }
}
