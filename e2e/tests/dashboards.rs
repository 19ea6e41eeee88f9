//! The dashboards of the charts ask for nothing that no program says: each metric is one that a mesh with traffic exports, and so is each label.
//!
//! Seen red with a metric and a label misspelt in a dashboard.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::observe::Metrics;
use e2e::until::until;
use istiod_lite::admission::metrics::AdmissionMetrics;
use istiod_lite::leader::LeaderMetrics;
use mesh_runtime::metrics::TextFormat;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("dashboards::ask_for_what_is_exported", exported);
}

/// What Prometheus adds to a pod's series.
const ADDED: [&str; 2] = ["pod", "namespace"];
/// What is exported once something happens that happens to nobody here: a watch of an API server that begins again, a request of gRPC.
const LATER: [(&str, &[&str]); 2] = [
    ("ambit_kubernetes_watch_restarts_total", &["resource", "reason"]),
    ("istio_requests_total", &["grpc_response_status"]),
];

/// The queries of all dashboards, with the title of their panel, and with values in the place of variables.
pub(crate) fn queries() -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/istiod-lite/files/dashboards");
    let mut all = Vec::new();
    for file in std::fs::read_dir(&folder)? {
        let board: Value = serde_json::from_str(&std::fs::read_to_string(file?.path())?)?;
        let board_title = board["title"].as_str().context("no title")?;
        let mut variables = vec![("$__rate_interval".to_owned(), "5m")];
        for variable in board["templating"]["list"].as_array().context("no variables")? {
            let name = variable["name"].as_str().context("a variable without name")?;
            variables.push((format!("${name}"), ".*"));
            // label_values(METRIC, LABEL)
            if let Some(query) = variable["definition"].as_str() {
                let inside = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
                let (metric, label) = inside.and_then(|inside| inside.split_once(", ")).context(query.to_owned())?;
                all.push((format!("{board_title}: ${name}"), format!("count by ({label}) ({metric})")));
            }
        }
        for panel in board["panels"].as_array().context("no panels")? {
            let title = format!("{board_title}: {}", panel["title"].as_str().context("a panel without title")?);
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut query = target["expr"].as_str().with_context(|| title.clone())?.to_owned();
                for (variable, value) in &variables {
                    query = query.replace(variable, value);
                }
                ensure!(!query.contains('$'), "{title}: a variable that is none: {query}");
                all.push((title.clone(), query));
            }
        }
    }
    ensure!(all.len() > 60, "{} queries", all.len());
    Ok(all)
}

/// The metrics that a query names, and the labels that it names at all.
fn named(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let (mut word, mut quoted, mut braces, mut list) = (String::new(), false, false, false);
    let mut before = String::new();
    for c in query.chars().chain([' ']) {
        if quoted {
            quoted = c != '"';
            continue;
        }
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let is_word = word.chars().next().is_some_and(|first| first.is_ascii_alphabetic());
        if is_word && (braces || list) {
            labels.insert(word.clone());
        } else if is_word && word.contains('_') && c != '(' {
            metrics.insert(word.clone());
        }
        if !word.is_empty() {
            before = std::mem::take(&mut word);
        }
        match c {
            '"' => quoted = true,
            '{' => braces = true,
            '}' => braces = false,
            '(' => list = ["by", "on"].contains(&before.as_str()),
            ')' => list = false,
            ' ' => continue,
            _ => {}
        }
        if c != ' ' && c != '(' {
            before.clear();
        }
    }
    (metrics, labels)
}

fn exported() -> Result<()> {
    let (metrics, labels) =
        named(r#"histogram_quantile(0.9, sum by (le, a_b) (rate(x_bucket{c="d_e", f!~"5.."}[5m]))) and on (pod) g_h"#);
    ensure!(metrics == ["g_h", "x_bucket"].map(str::to_owned).into(), "{metrics:?}");
    ensure!(labels == ["a_b", "c", "f", "le", "pod"].map(str::to_owned).into(), "{labels:?}");

    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/circuit-breaker/circuit-breaker.yaml");
    let mesh = Mesh::up(&std::fs::read_to_string(file)?)?;
    // Requests that are answered, ejections, and limits that are reached.
    until("the rule is followed, and the bad one ejected", || {
        mesh.exec("shop/client", &["curl", "-sS", "-m", "10", "http://web/"])?;
        ensure!(mesh.log("shop/waypoint-1")?.contains("endpoint ejected"), "nobody is");
        Ok(())
    })?;
    let at_once = "for i in 1 2 3 4 5; do curl -sS -m 20 -o /dev/null http://web/slow & done; wait";
    until("requests met, and were too many", || {
        mesh.exec("shop/client", &["sh", "-c", at_once])?;
        mesh.logged("shop/waypoint-1", &["UPSTREAM_OVERFLOW"])
    })?;
    // Where nobody listens.
    mesh.refused_at_last("shop/client", &format!("http://{}:9/", mesh.ip("shop/good", false)?))?;

    let queries = queries()?;
    until("all that dashboards ask for is exported", || {
        let wrong = unknown(&queries, &known(&mesh)?);
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// What is exported: metrics, and the labels of each.
fn known(mesh: &Mesh) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let later = LATER.iter().map(|(name, labels)| {
        ((*name).to_owned(), labels.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>())
    });
    let mut known: BTreeMap<String, BTreeSet<String>> = later.collect();
    for (pod, url) in [
        // ztunnels, a node agent, the waypoint and the control plane.
        ("kit/node1", "http://127.0.0.1:15020/metrics"),
        ("kit/node2", "http://127.0.0.1:15020/metrics"),
        ("kit/node1", "http://127.0.0.1:15014/metrics"),
        ("shop/waypoint-1", "http://127.0.0.1:15020/metrics"),
        ("kit/node1", "http://172.30.0.1:15014/metrics"),
    ] {
        let text = mesh.get(pod, url).with_context(|| format!("{pod} {url}"))?;
        add(&mut known, &text);
    }
    add(&mut known, &only_on_a_cluster()?);
    Ok(known)
}

/// The queries that ask for what nobody exports, in words.
fn unknown(queries: &[(String, String)], known: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (title, query) in queries {
        let (metrics, labels) = named(query);
        let mut has: BTreeSet<&str> = ADDED.into_iter().collect();
        let unknown: Vec<_> = metrics.iter().filter(|metric| !known.contains_key(*metric)).collect();
        has.extend(metrics.iter().filter_map(|metric| known.get(metric)).flatten().map(String::as_str));
        let missing: Vec<_> = labels.iter().filter(|label| !has.contains(label.as_str())).collect();
        if metrics.is_empty() || !unknown.is_empty() || !missing.is_empty() {
            wrong.push(format!("{title}: nobody exports {unknown:?}, or labels {missing:?}: {query}"));
        }
    }
    wrong
}

fn add(known: &mut BTreeMap<String, BTreeSet<String>>, text: &str) {
    for sample in Metrics::parse(text).samples {
        known.entry(sample.name).or_default().extend(sample.labels.into_keys());
    }
}

/// What istiod-lite counts on a cluster alone.
fn only_on_a_cluster() -> Result<String> {
    let mut metrics = mesh_runtime::metrics::Metrics::new("pilot", "0");
    LeaderMetrics::default().register(&mut metrics);
    AdmissionMetrics::default().register(&mut metrics);
    Ok(metrics.encode(TextFormat::Prometheus)?)
}
