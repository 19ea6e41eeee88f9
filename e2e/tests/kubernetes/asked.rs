//! `ambit status` and `ambit waypoint` on the cluster: what they say is so, and what is wrong is said with its reason.
use super::{NAMESPACE, STEP};
use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::command::{self, Output};
use e2e::until::until_within;
use serde_json::Value;
use std::path::Path;

/// Whoever has an account and no rights.
const STRANGER: &str = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: stranger, namespace: shop}}";
const WRONG: &str = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: wrong, namespace: shop}, \
                     spec: {rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}}";

/// Runs `ambit` as somebody with this kubeconfig.
fn ambit(kubeconfig: &Path, args: &[&str]) -> Result<Output> {
    let mut command = command::ambit();
    command.args(args).arg("--kubeconfig").arg(kubeconfig);
    command::run(&mut command, STEP * 2)
}

fn status(cluster: &Cluster, more: &[&str]) -> Result<(i32, Value)> {
    let said = ambit(cluster.kubeconfig(), &[&["status", "-o", "json"], more].concat())?;
    let value = serde_json::from_str(&said.stdout).with_context(|| format!("{}{}", said.stdout, said.stderr))?;
    Ok((said.code, value))
}

/// The replica that leads.
fn leader(status: &Value) -> Result<String> {
    let all = status["controlPlanes"].as_array().context("no control planes")?;
    let leaders: Vec<_> =
        all.iter().filter(|one| one["leader"] == true).filter_map(|one| one["name"].as_str()).collect();
    ensure!(all.len() == 2 && leaders.len() == 1, "{all:?}");
    Ok(leaders[0].to_owned())
}

/// A mesh with two control planes that is well; then one whose leader goes, and with a policy that is wrong.
pub(super) fn about_the_mesh(cluster: &Cluster) -> Result<()> {
    let (code, well) = status(cluster, &["--wait", "100"])?;
    ensure!(code == 0 && well["problems"] == serde_json::json!([]), "{well:#}");
    let first = leader(&well)?;
    let pod = |name: &str, key: &str| {
        let all = well["pods"].as_array().into_iter().flatten();
        all.into_iter().find(|pod| pod["namespace"] == "shop" && pod["name"] == name).map(|pod| pod[key].clone())
    };
    for name in ["web", "client", "new"] {
        ensure!(pod(name, "mesh") == Some("yes".into()), "{name}: {:?}", pod(name, "reason"));
    }
    let nodes = well["nodes"].as_array().context("no nodes")?;
    let (agents, in_mesh) =
        (nodes.iter().map(|n| n["agent"].clone()), nodes.iter().filter_map(|n| n["podsIn"].as_u64()));
    ensure!(agents.collect::<Vec<_>>() == ["ready", "ready"] && in_mesh.sum::<u64>() == 3, "{nodes:?}");
    ensure!(well["roots"][0]["days"].as_i64().is_some_and(|days| days > 3600), "{:?}", well["roots"]);
    let mut policies = well["policies"].as_array().into_iter().flatten();
    let strict = policies.find(|policy| policy["kind"] == "PeerAuthentication").context("no PeerAuthentication")?;
    ensure!(strict["accepted"] == "yes", "{strict:#}");
    let table = ambit(cluster.kubeconfig(), &["status"])?.good()?;
    ensure!(table.starts_with("the mesh of this cluster is well\n") && table.contains("shop/web "), "{table}");

    // The other one writes when the leader has gone, here that a policy is wrong.
    cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", &first, "--wait=false"])?.good()?;
    // Past the webhook, as what came in before there was one.
    let spared =
        r#"[{"op": "add", "path": "/webhooks/1/namespaceSelector/matchExpressions/0/values/-", "value": "shop"}]"#;
    let webhook = ["validatingwebhookconfiguration", "istio-validator-istio-system"];
    cluster.kubectl(&["patch", webhook[0], webhook[1], "--type=json", "-p", spared])?.good()?;
    until_within(STEP, "the webhook is not asked", || cluster.apply(WRONG))?;
    until_within(STEP, "what is wrong is said", || {
        let (code, now) = status(cluster, &[])?;
        let wrong = now["problems"].to_string();
        ensure!(
            code == 3 && wrong.contains("AuthorizationPolicy shop/wrong: Invalid: ") && wrong.contains("ipBlocks"),
            "{now:#}"
        );
        ensure!(leader(&now)? != first, "{first} has gone and leads");
        Ok(())
    })?;
    cluster.kubectl(&["-n", "shop", "delete", "authorizationpolicy", "wrong"])?.good()?;
    let (code, well) = status(cluster, &["--wait", "100"])?;
    ensure!(code == 0, "{:#}", well["problems"]);

    // Who may see nothing hears which rights are missing, and not that all is well.
    cluster.apply(STRANGER)?;
    let token = cluster.kubectl(&["-n", "shop", "create", "token", "stranger"])?.good()?;
    let mut config: Value =
        serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "-o", "json"])?.good()?)?;
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    let file = cluster.files().join("stranger.json");
    std::fs::write(&file, config.to_string())?;
    let said = ambit(&file, &["status"])?;
    let told = said.stdout.contains("nothing is wrong in what you may see")
        && said.stdout.contains("list pods in all namespaces");
    ensure!(said.code == 1 && told, "{}: {}{}", said.code, said.stdout, said.stderr);
    let refused = ambit(&file, &["waypoint", "list", "-A"])?.bad()?;
    ensure!(refused.contains("you may not list gateways.gateway.networking.k8s.io"), "{refused}");
    Ok(())
}

/// Makes the waypoint `way` of the shop, by hand of a user.
pub(super) fn apply_waypoint(cluster: &Cluster) -> Result<()> {
    let config = cluster.kubeconfig();
    let apply = ["waypoint", "apply", "-n", "shop", "--name", "way"];
    let none = ambit(config, &["waypoint", "list", "-A"])?.good()?;
    ensure!(none.trim() == "no waypoints in this cluster", "{none}");
    let nowhere = ambit(config, &["waypoint", "apply", "-n", "nowhere"])?.bad()?;
    ensure!(nowhere.contains("there is no namespace nowhere"), "{nowhere}");
    let said = ambit(config, &[&apply[..], &["--enroll-namespace", "--wait", "--timeout", "150"]].concat())?.good()?;
    let expected =
        "waypoint shop/way applied\nnamespace shop labelled istio.io/use-waypoint=way\nwaypoint shop/way is ready\n";
    ensure!(said == expected, "{said}");
    // Another is not put in its place by accident.
    let other = ambit(config, &["waypoint", "apply", "-n", "shop", "--name", "other", "--enroll-namespace"])?.bad()?;
    ensure!(other.contains("namespace shop uses waypoint way"), "{other}");
    // Applied again, it is changed.
    ambit(config, &[&apply[..], &["--for", "all"]].concat())?.good()?;
    until_within(STEP, "it is shown with what is attached", || {
        let list = ambit(config, &["waypoint", "list", "-n", "shop", "-o", "json"])?.good()?;
        let list: Value = serde_json::from_str(&list)?;
        let way = &list[0];
        ensure!(way["waypointFor"] == "all" && way["programmed"] == true && way["namespaces"][0] == "shop", "{list:#}");
        ensure!(
            way["services"].to_string().contains("shop/web") && way["pods"] == serde_json::json!([1, 1]),
            "{list:#}"
        );
        Ok(())
    })?;
    ambit(config, &[&apply[..], &["--for", "service"]].concat())?.good()?;
    ambit(config, &["waypoint", "status", "-n", "shop", "way"])?.good().map(drop)
}

/// Takes it away.
pub(super) fn delete_waypoint(cluster: &Cluster) -> Result<()> {
    let missing = ambit(cluster.kubeconfig(), &["waypoint", "delete", "-n", "shop", "nobody"])?;
    ensure!(missing.code == 1 && missing.stdout.contains("there is no waypoint shop/nobody"), "{}", missing.stdout);
    let said = ambit(cluster.kubeconfig(), &["waypoint", "delete", "-n", "shop", "way"])?.good()?;
    ensure!(said.starts_with("waypoint shop/way deleted\nnote: shop") && said.contains("still name it"), "{said}");
    Ok(())
}
