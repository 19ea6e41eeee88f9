//! What can be asked on localhost: what we know, what we say, what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use mesh_model::resource::Kind;
use mesh_runtime::http_server::{Response, Router, response};
use mesh_xds::published::Published;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::status::Status;

/// `/debug/cluster`, `/debug/published`, `/debug/errors` and `/debug/status`, all JSON.
pub(crate) fn routes(
    cluster: watch::Receiver<Option<Arc<Cluster>>>,
    published: watch::Receiver<Published>,
    status: watch::Receiver<Arc<Status>>,
) -> Router {
    let errors = status.clone();
    Router::new()
        .route(
            Method::GET,
            "/debug/cluster",
            "How many objects of each kind, and which pods on which node",
            move |_| {
                std::future::ready(json_response(&cluster.borrow().as_deref().map_or(Value::Null, cluster_summary)))
            },
        )
        .route(Method::GET, "/debug/published", "Names and versions of what proxies are told", move |_| {
            std::future::ready(json_response(&published_summary(&published.borrow())))
        })
        .route(Method::GET, "/debug/errors", "Objects that were rejected, and why", move |_| {
            std::future::ready(json_response(&json!(errors.borrow().rejected)))
        })
        .route(Method::GET, "/debug/status", "What was rejected, accepted and skipped", move |_| {
            std::future::ready(json_response(&json!(**status.borrow())))
        })
}

fn cluster_summary(cluster: &Cluster) -> Value {
    let counts: BTreeMap<_, _> = cluster.counts().into_iter().map(|(kind, n)| (kind.as_str(), n)).collect();
    let mut nodes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, pod) in cluster.pods() {
        nodes.entry(&pod.node).or_default().push(key.to_string());
    }
    json!({"objects": counts, "podsByNode": nodes})
}

fn published_summary(published: &Published) -> Value {
    let of = |kind| {
        let snapshot = published.of(kind)?;
        Some(snapshot.entries().iter().map(|(name, entry)| (name.to_string(), entry.version.to_string())).collect())
    };
    let kinds: BTreeMap<&str, Option<BTreeMap<String, String>>> =
        Kind::ALL.into_iter().map(|kind| (kind.type_url(), of(kind))).collect();
    json!(kinds)
}

fn json_response(value: &Value) -> Response {
    response(StatusCode::OK, "application/json", serde_json::to_vec_pretty(value).unwrap_or_default())
}
