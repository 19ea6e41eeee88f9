//! The same routes through istiod's feed for agentgateway and through istiod-lite, match by match and field by field. What is meant
//! to differ is said in `e2e/upstream/README.md`, each with its reason.

use anyhow::{Context, Result, ensure};
use e2e::until::until;
use e2e::upstream;
use istiod_lite::cluster::Cluster;
use istiod_lite::source::folder::parse_file;
use istiod_lite::translate::{self, translate};
use mesh_model::resource::Resource;
use mesh_model::route::{
    Backend, BackendTarget, Filter, HeaderEdit, PathEdit, PathMatch, RequestMatch, Retry, Rule, ServiceRoutes,
    ValueMatch,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Objects that both are given. `CLASS` is the class of each one's waypoint.
const ROUTES: &str = include_str!("../../upstream/routes.yaml");

/// By `namespace/route.rule.match`.
type Said = BTreeMap<String, Value>;

pub(super) fn same() -> Result<()> {
    let ours = ours()?;
    let yaml = ROUTES.replace("CLASS", "istio-agentgateway-waypoint");
    let theirs = upstream::up(&format!("{}{yaml}", upstream::WITH_AGENTGATEWAY), &[])?;
    let compared = until("istiod makes of routes what istiod-lite does", || {
        let differences = differences(&theirs_plain(&upstream::routes(&theirs, "way")?)?, &ours);
        ensure!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
        Ok(())
    });
    compared.map_err(|e| e.context(theirs.report()))
}

fn differences(theirs: &Said, ours: &Said) -> Vec<String> {
    let names: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let differ = names.into_iter().filter(|name| theirs.get(*name) != ours.get(*name));
    let text = |it: Option<&Value>| it.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let line = |name: &String| {
        format!("{name}\n  istiod:      {}\n  istiod-lite: {}", text(theirs.get(name)), text(ours.get(name)))
    };
    differ.map(line).collect()
}

// What istiod says.

fn theirs_plain(sent: &BTreeMap<String, Value>) -> Result<Said> {
    let mut all = Said::new();
    for (key, route) in sent {
        // The listener's name is the last part; of a GRPCRoute a rule's matches are together.
        let key = key.strip_suffix(".mesh").with_context(|| format!("{key} is not of the listener"))?;
        let matches = route["matches"].as_array().map_or(&[][..], Vec::as_slice);
        for (number, matched) in matches.iter().enumerate() {
            let key = match route["name"]["kind"].as_str() {
                Some("GRPCRoute") => format!("{key}.{number}"),
                _ => key.to_owned(),
            };
            all.insert(key.clone(), their_rule(&key, route, matched));
        }
    }
    Ok(all)
}

fn their_rule(key: &str, route: &Value, matched: &Value) -> Value {
    let mut policies = Map::new();
    for policy in list(&route["trafficPolicies"]) {
        policies.extend(their_policy(key, policy));
    }
    let timeout = policies.remove("timeout").unwrap_or_default();
    let retry = policies.remove("retry").unwrap_or_default();
    json!({
        "path": their_path(key, &matched["path"]),
        "method": matched["method"]["exact"],
        "headers": list(&matched["headers"]).map(|h| their_value(h, true)).collect::<Vec<_>>(),
        "query": list(&matched["queryParams"]).map(|q| their_value(q, false)).collect::<Vec<_>>(),
        "filters": policies,
        "backends": list(&route["backends"]).map(|b| their_backend(key, b)).collect::<Vec<_>>(),
        "request": timeout["request"],
        "backendRequest": timeout["backendRequest"],
        "retry": retry,
    })
}

fn their_path(key: &str, path: &Value) -> Value {
    let kind = |name: &str| path[name].as_str().map(|text| json!([name, text]));
    // A call of any method of a service: the feed asks for `/service/` as the whole path, which no call has.
    if key == "shop/calls.1.1" && path["exact"] == "/a.B/" {
        return json!(["beginning", "/a.B/"]);
    }
    kind("exact").or_else(|| kind("pathPrefix")).or_else(|| kind("regex")).unwrap_or_else(any_path)
}

fn any_path() -> Value {
    json!(["pathPrefix", "/"])
}

fn their_value(value: &Value, any_case: bool) -> Value {
    let name = value["name"].as_str().unwrap_or_default();
    let name = if any_case { name.to_ascii_lowercase() } else { name.to_owned() };
    json!([name, value.get("exact").or(value.get("regex")), value.get("regex").is_some()])
}

fn their_policy(key: &str, policy: &Value) -> Map<String, Value> {
    let each = |(kind, of): (&String, &Value)| {
        let plain = match kind.as_str() {
            "requestHeaderModifier" | "responseHeaderModifier" => their_edit(of),
            "requestRedirect" => json!({
                "scheme": of["scheme"], "host": of["host"], "port": of["port"], "status": of["status"], "path": their_path_edit(key, of),
            }),
            "urlRewrite" => json!({"host": of["host"], "path": their_path_edit(key, of)}),
            "requestMirror" => {
                list(&of["mirrors"]).map(|m| json!([their_target(&m["backend"]), m["percentage"].as_f64()])).collect()
            }
            "cors" => json!({
                "credentials": of["allowCredentials"] == true,
                "origins": list(&of["allowOrigins"]).collect::<Vec<_>>(),
                "methods": list(&of["allowMethods"]).collect::<Vec<_>>(),
                "headers": lower(&of["allowHeaders"]),
                "expose": lower(&of["exposeHeaders"]),
                "maxAge": of["maxAge"],
            }),
            "retry" => {
                json!({"codes": list(&of["retryStatusCodes"]).collect::<Vec<_>>(), "attempts": of["attempts"].as_u64().unwrap_or(1), "backoff": of["backoff"]})
            }
            _ => of.clone(),
        };
        (kind.clone(), plain)
    };
    policy.as_object().into_iter().flatten().map(each).collect()
}

fn their_edit(of: &Value) -> Value {
    let pairs = |name: &str| -> Vec<Value> {
        let pair = |h: &Value| json!([h["name"].as_str().unwrap_or_default().to_ascii_lowercase(), h["value"]]);
        list(&of[name]).map(pair).collect()
    };
    json!({"set": pairs("set"), "add": pairs("add"), "remove": lower(&of["remove"])})
}

fn their_path_edit(key: &str, of: &Value) -> Value {
    // The feed takes the last slash away from a whole path, too, which Gateway API does not say.
    if key == "shop/filters.3.0" && of["full"] == "/new" {
        return json!(["full", "/new/"]);
    }
    let kind = |name: &str| of[name].as_str().map(|text| json!([name, text]));
    kind("full").or_else(|| kind("prefix")).unwrap_or_default()
}

fn their_backend(key: &str, backend: &Value) -> Value {
    let mut policies = Map::new();
    for policy in list(&backend["backendPolicies"]) {
        policies.extend(their_policy(key, policy));
    }
    json!({"to": their_target(&backend["backend"]), "weight": backend["weight"].as_u64().unwrap_or(0), "filters": policies})
}

fn their_target(backend: &Value) -> Value {
    let service = &backend["service"];
    let text = |name: &str| service[name].as_str().unwrap_or_default().to_owned();
    json!(format!("{}/{}:{}", text("namespace"), text("hostname"), backend["port"]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn lower(names: &Value) -> Vec<String> {
    list(names).filter_map(Value::as_str).map(str::to_ascii_lowercase).collect()
}

// What istiod-lite says, as a waypoint gets it.

fn ours() -> Result<Said> {
    let parsed = parse_file(Path::new("routes.yaml"), &ROUTES.replace("CLASS", "istio-waypoint"));
    ensure!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    let mut cluster = Cluster::default();
    cluster.reset(parsed.objects.into_iter().map(|of| of.object));
    let translation = translate(&cluster, &translate::Mesh::default());
    let mut found = None;
    for (resource, _) in translation.for_waypoints {
        if let Resource::Routes(routes) = Resource::decode(resource.kind(), resource.encode())?
            && &*routes.service.name == "web.shop.svc.cluster.local"
        {
            found = Some(routes);
        }
    }
    Ok(ours_plain(&found.context("nothing is said of the service")?))
}

fn ours_plain(routes: &Arc<ServiceRoutes>) -> Said {
    let (mut all, mut count) = (Said::new(), BTreeMap::<String, usize>::new());
    for rule in &routes.rules {
        let number = count.entry(rule.route.to_string()).or_default();
        for (place, matched) in rule.matches.iter().enumerate() {
            let key = format!("{}.{number}.{place}", rule.route);
            let plain = our_rule(&key, rule, matched);
            all.insert(key, plain);
        }
        *number += 1;
    }
    all
}

fn our_rule(key: &str, rule: &Rule, matched: &RequestMatch) -> Value {
    let value = |v: &ValueMatch| json!([*v.name, *v.value, v.regex]);
    json!({
        "path": matched.path.as_ref().map_or_else(any_path, our_path),
        "method": matched.method.as_deref(),
        "headers": matched.headers.iter().map(value).collect::<Vec<_>>(),
        "query": matched.query.iter().map(value).collect::<Vec<_>>(),
        "filters": our_filters(&rule.filters),
        "backends": our_backends(key, &rule.backends),
        "request": rule.request_timeout.map(seconds),
        "backendRequest": rule.backend_timeout.map(seconds),
        "retry": rule.retry.as_ref().and_then(our_retry),
    })
}

/// With a backend that cannot be followed, the feed has none at all, and all of the rule's requests are answered by 500; here that
/// backend's share is (Gateway API). In a mesh a backend of another namespace needs no ReferenceGrant here, and does there.
fn our_backends(key: &str, backends: &[Backend]) -> Vec<Value> {
    let is_none_there = match (key, backends) {
        ("shop/backends.3.0" | "shop/backends.5.0", [_, other]) => matches!(other.target, BackendTarget::Invalid(_)),
        ("shop/backends.4.0", [_, other]) => our_target(&other.target) == "vault/closed.vault.svc.cluster.local:8080",
        _ => false,
    };
    if is_none_there {
        return Vec::new();
    }
    let plain =
        |b: &Backend| json!({"to": our_target(&b.target), "weight": b.weight, "filters": our_filters(&b.filters)});
    backends.iter().map(plain).collect()
}

fn our_path(path: &PathMatch) -> Value {
    match path {
        PathMatch::Exact(text) => json!(["exact", **text]),
        PathMatch::Prefix(text) => json!(["pathPrefix", **text]),
        PathMatch::Beginning(text) => json!(["beginning", **text]),
        PathMatch::Regex(text) => json!(["regex", **text]),
        PathMatch::ExactAnyCase(_) | PathMatch::BeginningAnyCase(_) => json!(format!("{path:?}")),
    }
}

fn our_filters(filters: &[Filter]) -> Map<String, Value> {
    let mut all = Map::new();
    let mut mirrors = Vec::new();
    for filter in filters {
        let (kind, plain) = match filter {
            Filter::RequestHeaders(edit) => ("requestHeaderModifier", our_edit(edit)),
            Filter::ResponseHeaders(edit) => ("responseHeaderModifier", our_edit(edit)),
            Filter::Redirect(of) => {
                let path = of.path.as_ref().map(our_path_edit);
                let (scheme, host) = (of.scheme.as_deref(), of.hostname.as_deref());
                let plain = json!({"scheme": scheme, "host": host, "port": of.port, "status": of.status, "path": path});
                ("requestRedirect", plain)
            }
            Filter::Rewrite(of) => {
                let path = of.path.as_ref().map(our_path_edit);
                ("urlRewrite", json!({"host": of.hostname.as_deref(), "path": path}))
            }
            Filter::Mirror(of) => {
                mirrors.push(json!([our_target(&of.backend), f64::from(of.millionths) / 10_000.0]));
                ("requestMirror", json!(mirrors))
            }
            Filter::Cors(of) => {
                let names = |all: &[Arc<str>]| all.iter().map(|one| one.to_ascii_lowercase()).collect::<Vec<_>>();
                let texts = |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
                let plain = json!({
                    "credentials": of.allow_credentials,
                    "origins": texts(&of.allow_origins),
                    "methods": texts(&of.allow_methods),
                    "headers": names(&of.allow_headers),
                    "expose": names(&of.expose_headers),
                    "maxAge": format!("{}s", of.max_age),
                });
                ("cors", plain)
            }
        };
        all.insert(kind.to_owned(), plain);
    }
    all
}

fn our_edit(edit: &HeaderEdit) -> Value {
    let pairs =
        |all: &[(Arc<str>, Arc<str>)]| all.iter().map(|(name, value)| json!([**name, **value])).collect::<Vec<_>>();
    let remove: Vec<_> = edit.remove.iter().map(ToString::to_string).collect();
    json!({"set": pairs(&edit.set), "add": pairs(&edit.add), "remove": remove})
}

/// A last slash of what a beginning is replaced by means nothing; the feed leaves it out.
fn our_path_edit(edit: &PathEdit) -> Value {
    match edit {
        PathEdit::Whole(path) => json!(["full", **path]),
        PathEdit::Prefix(path) => json!(["prefix", path.strip_suffix('/').unwrap_or(path)]),
        PathEdit::Matched(path) => json!(["matched", **path]),
    }
}

fn our_target(target: &BackendTarget) -> Value {
    match target {
        BackendTarget::Service(service, port) => json!(format!("{service}:{port}")),
        other => json!(format!("{other:?}")),
    }
}

/// No retries are none.
fn our_retry(retry: &Retry) -> Option<Value> {
    let plain = json!({"codes": retry.codes, "attempts": retry.attempts, "backoff": retry.backoff.map(seconds)});
    (retry.attempts > 0).then_some(plain)
}

/// As protobuf writes a Duration in JSON.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    }
}
