//! Two replicas, of which one writes: whoever the API server's own log says has written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use istiod_lite::app::Running;
use serde_json::Value;

use super::api_server::ApiServer;
use super::{AUTHORIZATION_POLICIES, OBJECTS, SEEN, condition, control_plane_called, deny, policy, until_so};

const LEASE: &str = "istiod-lite-leader";

/// A replica in a runtime of its own, so that it can be killed: nothing of it runs on, and it says nothing to anybody.
struct Replica {
    running: Option<Running>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Replica {
    /// By its own account, under which the API server logs it.
    async fn start(api: &ApiServer, credentials: &Path, name: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (files, credentials) = (api.files.path().to_owned(), credentials.to_owned());
        let started = runtime.spawn(async move { control_plane_called(&files, &credentials, name).await });
        Self { running: Some(started.await.unwrap()), runtime: Some(runtime) }
    }

    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// As a kubelet ends it.
    async fn stop(mut self) {
        let running = self.running.take().unwrap();
        self.runtime.as_ref().unwrap().spawn(running.stop()).await.unwrap();
        self.kill();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The pod that leads, as the lease says; empty where nobody does.
fn leader(api: &ApiServer) -> Result<String, String> {
    let holder =
        api.try_kubectl(&["get", "lease", LEASE, "-n", "istio-system", "-o", "jsonpath={.spec.holderIdentity}"], "")?;
    Ok(holder.rsplit_once('_').map_or("", |(pod, _)| pod).to_owned())
}

/// What was written by whom, in order, but for the lease and the root's secret: (account, what).
fn writes(api: &ApiServer) -> Vec<(String, String)> {
    let log = fs::read_to_string(api.audit_log()).unwrap_or_default();
    let all = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // What was refused changed nothing: kinds that are not installed, for example.
    let all = all.filter(|event| event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300));
    let ours = all.filter_map(|event| {
        let account =
            event["user"]["username"].as_str()?.strip_prefix("system:serviceaccount:istio-system:")?.to_owned();
        let of = &event["objectRef"];
        let text = |key: &str| of[key].as_str().unwrap_or_default();
        let counts = !["leases", "secrets", "tokenreviews"].contains(&text("resource"));
        let what = format!("{} {}/{} {}", text("resource"), text("namespace"), text("name"), text("subresource"));
        counts.then_some((account, what.trim_end().to_owned()))
    });
    ours.collect()
}

fn map_in(api: &ApiServer, namespace: &str) -> Result<(), String> {
    api.try_kubectl(&["get", "configmap", "istio-ca-root-cert", "-n", namespace], "").map(drop)
}

fn wrong() -> String {
    policy("deny", "{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}")
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_writes_and_the_other_goes_on_when_it_is_killed() {
    let Some(api) = ApiServer::start() else { return };
    let Some(rights) = api.chart_rights() else { return };
    api.apply(OBJECTS);
    api.apply(&api.definition(AUTHORIZATION_POLICIES));
    api.apply(&rights);
    // The same rights for both.
    let accounts: [PathBuf; 2] = ["first", "second"].map(|name| {
        let made =
            format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: istio-system}}\n");
        api.apply(&made);
        for line in rights.replace("\n    name: istiod\n", &format!("\n    name: {name}\n")).split("\n---") {
            if line.contains("kind: ClusterRoleBinding") || line.contains("kind: RoleBinding") {
                api.apply(&line.replacen("\n  name: istiod", &format!("\n  name: {name}"), 1));
            }
        }
        api.account("istio-system", name)
    });

    let first = Replica::start(&api, &accounts[0], "first").await;
    let leads = |name: &'static str| {
        let api = &api;
        move || match leader(api) {
            Ok(now) if now == name => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    until_so("the first leads", leads("first")).await;
    let second = Replica::start(&api, &accounts[1], "second").await;
    api.apply(&deny("bank"));
    until_so("its status", || condition(&api, "True", "Accepted")).await;
    until_so("the root", || map_in(&api, "shop")).await;
    let by: BTreeSet<String> = writes(&api).into_iter().map(|(account, _)| account).collect();
    assert_eq!(by, BTreeSet::from(["first".to_owned()]), "{:?}", writes(&api));

    let written = |kind: &str| writes(&api).iter().any(|(_, what)| what.starts_with(kind));
    first.kill();
    let before = writes(&api);
    api.apply(&(wrong() + &namespace("later")));
    until_so("the second leads", leads("second")).await;
    until_so("the root in what came meanwhile", || map_in(&api, "later")).await;
    until_so("status of what changed meanwhile", || condition(&api, "False", "Invalid")).await;
    until_so("an event of it", || if written("events") { Ok(()) } else { Err(format!("{:?}", writes(&api))) }).await;
    let since = writes(&api).split_off(before.len());
    let by: BTreeSet<&str> = since.iter().map(|(account, _)| account.as_str()).collect();
    assert_eq!(by, BTreeSet::from(["second"]), "{since:?}");
    // What the first has written is not written again.
    let mut what: Vec<&str> = since.iter().map(|(_, what)| what.split('.').next().unwrap_or(what)).collect();
    what.sort_unstable();
    let expected =
        ["authorizationpolicies shop/deny status", "configmaps later/istio-ca-root-cert", "events shop/deny"];
    assert_eq!(what, expected, "{since:?}");

    // Who ends in order lets it go before it has ended: nobody waits for the lease to expire.
    let third = Replica::start(&api, &accounts[0], "third").await;
    second.stop().await;
    let now = leader(&api).unwrap();
    assert!(now.is_empty() || now == "third", "still {now}");
    tokio::time::timeout(SEEN, until_so("the third leads", leads("third"))).await.unwrap();
    drop(third);
}
