//! The Helm charts: every profile renders, what is no value of theirs is refused, pods have no more rights than they say, and the
//! programs know every setting that the charts give them.
//!
//! Seen red with `readOnlyRootFilesystem: false` in ztunnel's chart; with a setting `CNI_NETWORK_DIR` in the node agent's; with
//! `additionalProperties` left out of two schemas; with `failurePolicy: Fail` in the webhook's template, and with its RBAC for any name;
//! with a query that lacks a parenthesis; without `helm.sh/resource-policy` on the kinds.
use anyhow::{Context, Result, ensure};
use e2e::command::{self, LIMIT};
use e2e::harness::{Suite, skip};
use mesh_runtime::config::Env;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CHARTS: [&str; 5] = ["crds", "ztunnel", "node-agent", "istiod-lite", "ambit"];
const PROFILES: [&str; 3] = ["default", "minimal", "ha"];
/// The oldest Kubernetes that the charts are for, and one of today.
const KUBERNETES: [&str; 2] = ["1.30.0", "1.36.1"];

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("charts::are_sound", sound);
    suite.trial("charts::refuse_what_is_no_value", refuse);
    suite.trial("charts::pods_are_hardened_in_every_profile", hardened);
    suite.trial("charts::the_programs_know_their_settings", settings);
    suite.trial("charts::what_is_off_and_can_be_turned_on", switches);
    suite.trial("charts::waypoints_alone_leave_istiod_what_is_its_own", waypoints_only);
    suite.trial("charts::the_webhook_can_keep_nobody_out", webhook);
    suite.trial("charts::dashboards_are_found_and_can_be_read", dashboards);
    suite.trial("charts::alerts_fire_when_they_should", alerts);
}

/// A program of the cluster kit, or of this machine.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("AMBIT_TEST_CLUSTER").map(|folder| Path::new(&folder).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = folder.into_iter().chain(std::env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(name)).filter(|program| program.is_file()))
}

/// Runs helm, on one of the charts if one is named.
pub(crate) fn helm(verb: &[&str], chart: &str, more: &[&str], limit: Duration) -> Result<command::Output> {
    let helm = program("helm");
    let helm =
        helm.ok_or_else(|| skip("`helm` is neither in AMBIT_TEST_CLUSTER nor on this machine (e2e/cluster/build)"))?;
    let folder = (!chart.is_empty()).then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm").join(chart));
    command::run(Command::new(helm).args(verb).args(folder).args(more), limit)
}

/// The objects that the umbrella makes with these values.
fn render(values: &[&str]) -> Result<Vec<Value>> {
    let set = values.iter().flat_map(|value| ["--set", value]);
    let more: Vec<&str> = ["-n", "istio-system", "--kube-version", KUBERNETES[1]].into_iter().chain(set).collect();
    let text = helm(&["template", "mesh"], "ambit", &more, LIMIT)?.good()?;
    let documents = text.split("\n---\n").filter(|document| document.lines().any(|line| line.starts_with("kind:")));
    documents.map(|document| serde_saphyr::from_str(document).with_context(|| document.to_owned())).collect()
}

/// The pods of the objects, with the name of what makes them.
fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let with_pods = objects.iter().filter(|object| object["spec"]["template"].is_object());
    with_pods
        .map(|object| (object["metadata"]["name"].as_str().unwrap_or_default(), &object["spec"]["template"]))
        .collect()
}

fn sound() -> Result<()> {
    for chart in CHARTS {
        let out = helm(&["lint"], chart, &["--strict", "--kube-version", KUBERNETES[1]], LIMIT)?;
        ensure!(out.code == 0, "{chart}: {}{}", out.stdout, out.stderr);
        for version in KUBERNETES {
            helm(&["template", "mesh"], chart, &["--kube-version", version], LIMIT)?.good()?;
        }
    }
    let old = helm(&["template", "mesh"], "ambit", &["--kube-version", "1.29.0"], LIMIT)?.bad()?;
    ensure!(old.contains("kubeVersion"), "{old}");
    Ok(())
}

fn refuse() -> Result<()> {
    for (chart, value, named) in [
        ("ambit", "global.profile=huge", "profile"),
        ("ambit", "ztunnel.resorces.cpu=1", "resorces"),
        ("ambit", "istiod=1", "istiod"),
        ("ztunnel", "terminationGracePeriodSeconds=soon", "terminationGracePeriodSeconds"),
        ("ztunnel", "imagePullPolicy=Sometimes", "imagePullPolicy"),
        ("node-agent", "cniConfDir=etc/cni", "cniConfDir"),
        ("node-agent", "cniConfFileName=../x.conflist", "cniConfFileName"),
        ("node-agent", "ambient.enabled=true", "enabled"),
        ("istiod-lite", "revision=Blue", "revision"),
        ("istiod-lite", "replicaCount=-1", "replicaCount"),
        ("istiod-lite", "validation.failurePolicy=Maybe", "failurePolicy"),
        ("ambit", "global.configValidation=1", "configValidation"),
    ] {
        let error =
            helm(&["template", "mesh"], chart, &["--kube-version", KUBERNETES[1], "--set", value], LIMIT)?.bad();
        let error = error.with_context(|| format!("{chart} took {value}"))?;
        ensure!(error.contains(named), "{chart} {value}: {error}");
    }
    Ok(())
}

fn hardened() -> Result<()> {
    for profile in PROFILES {
        let objects = render(&[&format!("global.profile={profile}")])?;
        let pods = pods(&objects);
        ensure!(pods.len() == 3, "{profile}: {} pods", pods.len());
        for (name, pod) in pods {
            let spec = &pod["spec"];
            let what = format!("{profile}: {name}: {spec}");
            ensure!(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{what}");
            ensure!(spec["hostPID"].is_null() && spec["hostIPC"].is_null() && spec["hostNetwork"].is_null(), "{what}");
            ensure!(
                spec["priorityClassName"].is_string() && pod["metadata"]["labels"]["istio.io/dataplane-mode"] == "none",
                "{what}"
            );
            for container in spec["containers"].as_array().context("containers")? {
                let security = &container["securityContext"];
                ensure!(security["readOnlyRootFilesystem"] == true && security["privileged"] != true, "{what}");
                ensure!(security["capabilities"]["drop"] == serde_json::json!(["ALL"]), "{what}");
                ensure!(container["resources"]["requests"]["memory"].is_string(), "{what}");
                ensure!(container["readinessProbe"].is_object(), "{what}");
            }
        }
        // Nobody may do everything, and only users' roles name kinds by a star.
        for object in objects.iter().filter(|object| object["rules"].is_array() && object["kind"] != "NetworkPolicy") {
            for rule in object["rules"].as_array().context("rules")? {
                ensure!(
                    !rule["verbs"].to_string().contains('*') && !rule["apiGroups"].to_string().contains('*'),
                    "{object}"
                );
            }
        }
    }
    Ok(())
}

fn settings() -> Result<()> {
    let whole = render(&["ztunnel.network=n1", "node-agent.cniConfFileName=10-a.conflist"])?;
    let waypoints = render(&["istiod-lite.waypointsOnly=true", "istiod-lite.waypointCaAddress=https://ca:15012"])?;
    for (name, pod) in pods(&whole).into_iter().chain(pods(&waypoints)) {
        let env = pod["spec"]["containers"][0]["env"].as_array().context("env")?;
        // What the pod is told when it runs is told by any text here.
        let filled = |entry: &Value| match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => "10.0.0.1".to_owned(),
            Some(_) => "a".to_owned(),
            None => entry["value"].as_str().unwrap_or("1").to_owned(),
        };
        let env: Env =
            env.iter().map(|entry| (entry["name"].as_str().unwrap_or_default().to_owned(), filled(entry))).collect();
        let known = match name {
            "ztunnel" => ztunnel::config::check(&env).map(drop),
            "istio-cni-node" => node_agent::config::check(&env).map(drop),
            "istiod" | "istiod-lite" => istiod_lite::config::Config::check(&env).map(drop),
            other => anyhow::bail!("which program is {other}?"),
        };
        known.with_context(|| format!("the chart of {name}"))?;
    }
    Ok(())
}

/// Beside upstream's istiod: nothing has a name or a label that Istio's charts use, and nothing may be written that is istiod's.
fn waypoints_only() -> Result<()> {
    let objects = render(&["istiod-lite.waypointsOnly=true", "node-agent.enabled=false", "ztunnel.enabled=false"])?;
    for object in &objects {
        let text = object.to_string();
        ensure!(object["kind"] != "ValidatingWebhookConfiguration", "{text}");
        ensure!(object["metadata"]["name"] != "istiod" && !text.contains(r#""app":"istiod""#), "{text}");
        ensure!(!text.contains("istio-ca-secret") && !text.contains("cacerts"), "{text}");
        for rule in object["rules"].as_array().into_iter().flatten() {
            let resources = rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let foreign = ["services/status", "authorizationpolicies/status", "serviceentries/status"];
            ensure!(resources.clone().all(|one| !foreign.contains(&one)), "{rule}");
            let maps = resources.clone().any(|one| one == "configmaps");
            ensure!(!maps || !rule["verbs"].to_string().contains("create"), "{rule}");
        }
    }
    let refused = render(&["istiod-lite.waypointsOnly=true", "istiod-lite.meshConfig.extensionProviders[0].name=a"]);
    let refused = refused.err().context("another chart's ConfigMap is made")?;
    ensure!(format!("{refused:#}").contains("waypointsOnly"), "{refused:#}");
    Ok(())
}

/// The webhook begins as one that lets everything in, is about Istio's kinds and ours, of its own revision alone, and istiod may change that one
/// configuration and no other.
fn webhook() -> Result<()> {
    const NAME: &str = "ValidatingWebhookConfiguration";
    for (values, name, service, selected) in [
        (vec![], "istio-validator-istio-system", "istiod", vec!["In [default]", "DoesNotExist null"]),
        (
            vec!["istiod-lite.revision=blue", r"istiod-lite.env.REVISION_TAGS=prod\, blue\,test"],
            "istio-validator-blue-istio-system",
            "istiod-blue",
            vec!["In [blue prod test]"],
        ),
    ] {
        let objects = render(&values)?;
        let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
        let one = of(NAME).next().context("no configuration")?;
        ensure!(one["metadata"]["name"] == name && of(NAME).count() == 1, "{one}");
        let webhooks = one["webhooks"].as_array().context("webhooks")?;
        for webhook in webhooks {
            let (config, what) = (&webhook["clientConfig"], webhook.to_string());
            ensure!(webhook["failurePolicy"] == "Ignore" && webhook["sideEffects"] == "None", "{what}");
            ensure!(webhook["timeoutSeconds"].as_u64().is_some_and(|seconds| seconds <= 5), "{what}");
            ensure!(config["caBundle"].is_null() && config["service"]["name"] == service, "{what}");
            let own = webhook["namespaceSelector"]["matchExpressions"][0].to_string();
            ensure!(own.contains("NotIn") && own.contains("kube-system"), "{what}");
            for rule in webhook["rules"].as_array().context("rules")? {
                let groups = rule["apiGroups"].as_array().context("groups")?;
                ensure!(
                    groups.iter().all(|g| g.as_str().is_some_and(|g| g.ends_with(".istio.io") || g == "ambit.dev")),
                    "{what}"
                );
                ensure!(rule["operations"] == serde_json::json!(["CREATE", "UPDATE"]), "{what}");
            }
        }
        let selects = |webhook: &Value| {
            let expression = &webhook["objectSelector"]["matchExpressions"][0];
            let values = expression["values"].to_string().replace(['"'], "").replace(',', " ");
            format!("{} {values}", expression["operator"].as_str().unwrap_or_default())
        };
        let all: Vec<String> = webhooks.iter().map(selects).collect();
        ensure!(all == selected, "{all:?}");
        // Where it leads, and who may change it.
        let port = |object: &&Value| object["metadata"]["name"] == service;
        let port = of("Service").find(port).context("no Service")?["spec"]["ports"].to_string();
        ensure!(port.contains(r#""port":443,"targetPort":"https-webhooks""#), "{port}");
        let rules: Vec<&Value> = of("ClusterRole").filter_map(|role| role["rules"].as_array()).flatten().collect();
        let rule = rules.iter().filter(|rule| rule.to_string().contains("webhook")).collect::<Vec<_>>();
        ensure!(rule.len() == 1 && rule[0]["resourceNames"] == serde_json::json!([name]), "{rule:?}");
    }
    let off = render(&["global.configValidation=false"])?;
    let left = off.iter().filter(|object| {
        let text = object.to_string();
        object["kind"] == NAME || text.contains("validatingwebhook") || text.contains("VALIDATION_WEBHOOK")
    });
    ensure!(left.count() == 0, "something is left of it");
    Ok(())
}

/// One ConfigMap for each, with the label that Grafana's sidecar looks for; and Prometheus' own tool can read each query.
fn dashboards() -> Result<()> {
    let objects = render(&["istiod-lite.dashboards.enabled=true", "istiod-lite.dashboards.labels.team=mesh"])?;
    let maps = objects.iter().filter(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1");
    let mut uids = Vec::new();
    for map in maps {
        ensure!(map["kind"] == "ConfigMap" && map["metadata"]["labels"]["team"] == "mesh", "{map}");
        for text in map["data"].as_object().context("no data")?.values() {
            let board: Value = serde_json::from_str(text.as_str().context("no text")?)?;
            uids.push(board["uid"].as_str().context("a dashboard without uid")?.to_owned());
        }
    }
    uids.sort();
    ensure!(uids == ["ambit-control-plane", "ambit-mesh", "ambit-waypoint", "ambit-ztunnel"], "{uids:?}");
    ensure!(!render(&[])?.iter().any(|object| object.to_string().contains("grafana")), "on without being asked for");

    let promtool = program("promtool");
    let promtool = promtool.ok_or_else(|| skip("`promtool` is not on this machine (Debian's package prometheus)"))?;
    let queries = crate::dashboards::queries()?;
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, (_, query))| serde_json::json!({"record": format!("query:{number}"), "expr": query}))
        .collect();
    // JSON is YAML.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::json!({"groups": [{"name": "queries", "rules": rules}]}).to_string())?;
    let out = command::run(Command::new(&promtool).args(["check", "rules"]).arg(file.path()), LIMIT)?;
    ensure!(out.code == 0, "promtool check rules: {}{}", out.stdout, out.stderr);
    Ok(())
}

/// By Prometheus' own tool: the rules are well formed, and each fires on what it is about and on nothing else.
fn alerts() -> Result<()> {
    let promtool = program("promtool");
    let promtool = promtool.ok_or_else(|| skip("`promtool` is not on this machine (Debian's package prometheus)"))?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (verb, file) in [("check", "../helm/istiod-lite/files/alerts.yaml"), ("test", "tests/alerts.yaml")] {
        let out = command::run(Command::new(&promtool).args([verb, "rules"]).arg(here.join(file)), LIMIT)?;
        ensure!(out.code == 0, "promtool {verb} rules {file}: {}{}", out.stdout, out.stderr);
    }
    Ok(())
}

fn switches() -> Result<()> {
    let count = |objects: &[Value], kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
    let plain = render(&[])?;
    ensure!((count(&plain, "NetworkPolicy"), count(&plain, "PodMonitor")) == (0, 0), "on without being asked for");
    ensure!(
        count(&plain, "CustomResourceDefinition") > 0 && count(&plain, "PodDisruptionBudget") == 1,
        "something is missing"
    );
    let kept = plain.iter().filter(|object| object["kind"] == "CustomResourceDefinition");
    for kind in kept {
        ensure!(kind["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", "{}", kind["metadata"]);
        ensure!(!kind["metadata"]["name"].to_string().contains("gateway.networking"), "{}", kind["metadata"]);
    }
    ensure!(count(&plain, "PrometheusRule") == 0, "on without being asked for");
    let monitors = ["ztunnel", "node-agent", "istiod-lite"].map(|chart| format!("{chart}.podMonitor.enabled=true"));
    let mut values: Vec<&str> = monitors.iter().map(String::as_str).collect();
    let rule = "istiod-lite.prometheusRule.enabled=true";
    values.extend(["global.networkPolicy.enabled=true", "crds.enabled=false", rule]);
    let all = render(&values)?;
    ensure!((count(&all, "NetworkPolicy"), count(&all, "PodMonitor")) == (3, 4), "they are not all made");
    let rule = all.iter().find(|object| object["kind"] == "PrometheusRule").context("no PrometheusRule")?;
    ensure!(rule["spec"]["groups"][0]["rules"].as_array().is_some_and(|rules| rules.len() > 5), "{rule}");
    // What scrapes by annotations finds the port, too.
    for (name, pod) in pods(&all) {
        let port: Option<u64> =
            pod["metadata"]["annotations"]["prometheus.io/port"].as_str().and_then(|p| p.parse().ok());
        let ports = pod["spec"]["containers"][0]["ports"].as_array().context("ports")?;
        ensure!(ports.iter().any(|has| has["containerPort"].as_u64() == port && port.is_some()), "{name}: {pod}");
    }
    ensure!(count(&all, "CustomResourceDefinition") == 0, "crds.enabled=false");
    ensure!(count(&plain, "ConfigMap") == 0, "a mesh configuration that nobody has asked for");
    let provider = "istiod-lite.meshConfig.extensionProviders[0]";
    let values = [("name", "ask"), ("envoyExtAuthzGrpc.service", "ask.shop.svc"), ("envoyExtAuthzGrpc.port", "9000")];
    let values = values.map(|(name, value)| format!("{provider}.{name}={value}"));
    let values: Vec<&str> = values.iter().map(String::as_str).chain(["istiod-lite.revision=canary"]).collect();
    let asked = render(&values)?;
    let config = asked.iter().find(|object| object["kind"] == "ConfigMap").context("no ConfigMap")?;
    let istiod_lite::resources::Object::ConfigMap(read) =
        istiod_lite::resources::Object::from_value(istiod_lite::resources::Kind::ConfigMap, config)?
    else {
        anyhow::bail!("{config}");
    };
    let read = istiod_lite::resources::MeshConfig::of(&read);
    ensure!(config["metadata"]["name"] == "istio-canary" && read.unread.is_empty(), "{config} {read:?}");
    ensure!(read.extension_providers.contains_key("ask"), "{config}");
    let ha = render(&["global.profile=ha"])?;
    let replicas = |objects: &[Value]| {
        objects.iter().find(|object| object["kind"] == "Deployment").map(|d| d["spec"]["replicas"].clone())
    };
    ensure!(replicas(&ha) == Some(3.into()) && replicas(&plain) == Some(1.into()), "replicas");
    Ok(())
}
