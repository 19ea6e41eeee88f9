//! Which handler answers which path.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use super::Body;

/// A request with its whole body.
pub type Request = http::Request<Bytes>;
/// A response.
pub type Response = http::Response<Body>;

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Guard = fn(&Request) -> Result<(), &'static str>;

/// Paths and what answers them.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
    index: Option<String>,
    guard: Option<Guard>,
}

struct Route {
    method: Method,
    path: &'static str,
    help: &'static str,
    handler: Box<dyn Fn(Request) -> Answer + Send + Sync>,
}

impl Router {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route. `help` is what the index says about it. GET routes answer HEAD too.
    pub fn route<F>(
        mut self,
        method: Method,
        path: &'static str,
        help: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let handler = Box::new(move |request| -> Answer { Box::pin(handler(request)) });
        self.routes.push(Route { method, path, help, handler });
        self
    }

    /// Adds the routes of `other`.
    pub fn merge(mut self, other: Router) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Answers `/` with a page that lists the routes.
    pub(crate) fn with_index(mut self, title: &str) -> Self {
        self.index = Some(title.to_owned());
        self
    }

    /// Refuses, with 403 and the reason, what `guard` does not let pass.
    pub(crate) fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    pub(super) async fn answer(&self, request: Request) -> Response {
        if let Some(Err(reason)) = self.guard.map(|guard| guard(&request)) {
            return response(StatusCode::FORBIDDEN, TEXT, format!("refused: {reason}\n"));
        }
        let path = request.uri().path();
        let wanted = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let mut allowed: Vec<&str> = Vec::new();
        for route in self.routes.iter().filter(|route| route.path == path) {
            if route.method == *wanted {
                return (route.handler)(request).await;
            }
            allowed.push(route.method.as_str());
        }
        if path == "/" && self.index.is_some() {
            if *wanted == Method::GET {
                return response(StatusCode::OK, "text/html; charset=utf-8", self.page());
            }
            allowed.push("GET");
        }
        if allowed.is_empty() {
            return response(StatusCode::NOT_FOUND, TEXT, format!("there is nothing here; try {}\n", self.paths()));
        }
        let allow = allowed.join(", ");
        let text = format!("{} is not allowed here, only {allow}\n", request.method());
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
        if let Ok(allow) = HeaderValue::from_str(&allow) {
            refused.headers_mut().insert(header::ALLOW, allow);
        }
        refused
    }

    fn paths(&self) -> String {
        self.routes.iter().map(|route| route.path).collect::<Vec<_>>().join(", ")
    }

    fn page(&self) -> String {
        let title = self.index.as_deref().unwrap_or_default();
        let mut page = format!("<!doctype html><title>{title}</title><h1>{title}</h1><table>\n");
        for Route { method, path, help, .. } in &self.routes {
            page.push_str(&match *method {
                Method::GET => format!("<tr><td>{method}<td><a href=\"{path}\">{path}</a><td>{help}\n"),
                _ => format!("<tr><td>{method}<td>{path}<td>{help}\n"),
            });
        }
        page + "</table>\n"
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.iter().map(|route| format!("{} {}", route.method, route.path))).finish()
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// A response.
pub fn response(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = http::Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The pairs of a query string, percent-decoded; a key without `=` has an empty value.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key), percent_decode(value))
    })
}

/// `%41` as `A` and `+` as a space; what is not an escape stays as it is.
fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let cases: [(&str, &[(&str, &str)]); 6] = [
            ("", &[]),
            ("reset", &[("reset", "")]),
            ("level=debug", &[("level", "debug")]),
            ("level=mesh_hbone%3Adebug%2Cinfo&reset=", &[("level", "mesh_hbone:debug,info"), ("reset", "")]),
            ("level=a=b&&x", &[("level", "a=b"), ("x", "")]),
            ("a+b=%&c=%4&d=%zz%41", &[("a b", "%"), ("c", "%4"), ("d", "%zzA")]),
        ];
        for (query, expected) in cases {
            let pairs: Vec<_> = query_pairs(query).collect();
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(pairs, expected, "{query:?}");
        }
    }
}
