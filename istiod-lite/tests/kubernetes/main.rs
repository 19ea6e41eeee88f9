//! The control plane on a real API server: what is applied there reaches proxies, and whatever happens to the API server, nothing
//! is lost. Needs the programs of a cluster: `AMBIT_TEST_CLUSTER`.

mod api_server;
mod kinds;
mod leader;
mod untaint;
mod waypoint;
mod webhook;

use std::fs;
use std::path::Path;
use std::time::Duration;

use api_server::ApiServer;
use istiod_lite::app::{Running, start};
use istiod_lite::ca::secret::{MESH_ROOT, kept_in_secret};
use istiod_lite::config::Config;
use mesh_control::ca_client::CaClient;
use mesh_control::channel::{ChannelConfig, ControlChannel, ServerRoots, Token, connect};
use mesh_identity::certificate::SigningRequest;
use mesh_identity::store::Authority;
use mesh_kube::Access;
use mesh_model::identity::SpiffeId;
use mesh_model::tables::Tables;
use mesh_runtime::config::Env;
use mesh_runtime::shutdown::Shutdown;
use mesh_xds::follow::{Reader, tables};
use mesh_xds::node::NodeInfo;
use serde_json::Value;

const AUTHORIZATION_POLICIES: &str = "authorizationpolicies.security.istio.io";
const PEER_AUTHENTICATIONS: &str = "peerauthentications.security.istio.io";
const SERVICE_ENTRIES: &str = "serviceentries.networking.istio.io";
const HTTP_ROUTES: &str = "httproutes.gateway.networking.k8s.io";
const GATEWAY_CLASSES: &str = "gatewayclasses.gateway.networking.k8s.io";
const WORKLOAD_ENTRIES: &str = "workloadentries.networking.istio.io";
/// How long a change may take to be seen, on a machine that is busy.
const SEEN: Duration = Duration::from_secs(60);

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-n1, namespace: istio-system}
spec: {nodeName: n1, serviceAccountName: ztunnel, containers: [{name: main, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\n\
         spec: {{nodeName: n1, serviceAccountName: web, containers: [{{name: main, image: x}}]}}\n---\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {spec}\n---\n"
    )
}

fn deny(namespaces: &str) -> String {
    policy("deny", &format!("{{action: DENY, rules: [{{from: [{{source: {{namespaces: [{namespaces}]}}}}]}}]}}"))
}

/// What a kubelet would say of a pod.
fn runs(api: &ApiServer, name: &str, ip: &str) {
    let status = format!(
        r#"{{"status": {{"phase": "Running", "podIP": "{ip}", "podIPs": [{{"ip": "{ip}"}}],
            "conditions": [{{"type": "Ready", "status": "True"}}]}}}}"#
    );
    api.kubectl(&["patch", "pod", name, "-n", "shop", "--subresource=status", "--type=merge", "-p", &status], "");
}

/// A token of an account, bound to a pod.
fn token(api: &ApiServer, audience: &str) -> Token {
    let pod = api.get("istio-system", "pod", "ztunnel-n1");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let token = api.kubectl(
        &[
            "create",
            "token",
            "ztunnel",
            "-n",
            "istio-system",
            &format!("--audience={audience}"),
            "--bound-object-kind=Pod",
            "--bound-object-name=ztunnel-n1",
            &format!("--bound-object-uid={uid}"),
        ],
        "",
    );
    Token::Literal(token.trim().to_owned())
}

/// The control plane, with the rights of its chart.
async fn control_plane(api: &ApiServer, credentials: &Path) -> Running {
    control_plane_called(api.files.path(), credentials, "istiod").await
}

/// One of several, by the name of its pod.
async fn control_plane_called(files: &Path, credentials: &Path, name: &str) -> Running {
    control_plane_with(files, credentials, name, &[]).await
}

/// [`control_plane_called`], with more settings.
async fn control_plane_with(files: &Path, credentials: &Path, name: &str, more: &[(&str, &str)]) -> Running {
    let at = |name: &str| files.join(name).display().to_string();
    let set = [
        ("POD_NAME", name.to_owned()),
        ("KUBECONFIG", credentials.display().to_string()),
        ("STATUS_FILE", at("status.json")),
        ("LISTEN_ADDRESS", "127.0.0.1:0".to_owned()),
        ("HEALTH_PORT", "0".to_owned()),
        ("MONITORING_PORT", "0".to_owned()),
        ("DEBUG_PORT", "0".to_owned()),
        ("WAYPOINT_IMAGE", "ambit:test".to_owned()),
    ];
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let env: Env = set.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect();
    let config = Config::from_env(&env, Vec::new()).unwrap();
    let running = start(config, None, Shutdown::new()).await.unwrap();
    tokio::time::timeout(SEEN, running.readiness.ready()).await.expect("the cluster was never read");
    running
}

fn channel(api: &ApiServer, running: &Running, token: Token) -> ControlChannel {
    connect(&ChannelConfig {
        address: format!("https://{}", running.address).parse().unwrap(),
        roots: ServerRoots::File(api.files.path().join("root-cert.pem")),
        server_name: Some("istiod.istio-system.svc".to_owned()),
        token,
        cluster_id: "Kubernetes".to_owned(),
        headers: Vec::new(),
    })
    .unwrap()
}

fn subscribe(channel: ControlChannel) -> Reader {
    let node = NodeInfo {
        kind: mesh_xds::node::ProxyType::Ztunnel,
        labels: Vec::new(),
        instance_ip: None,
        pod_name: "ztunnel-n1".to_owned(),
        pod_namespace: "istio-system".to_owned(),
        node_name: "n1".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        extra: Vec::new(),
    };
    let (writer, reader) = tables();
    tokio::spawn(mesh_xds::client::run(
        channel,
        node.to_node(),
        &mesh_model::resource::Kind::ISTIO,
        writer,
        None,
        std::sync::Arc::new(()),
    ));
    reader
}

async fn sign(channel: ControlChannel, id: &str) -> Result<(), String> {
    let id: SpiffeId = id.parse().unwrap();
    let asked = SigningRequest::new(&id).unwrap();
    let signed = CaClient::new(channel, None).sign(&id, asked.csr_pem(), Duration::from_secs(60)).await;
    asked.complete(&signed.map_err(|e| e.to_string())?).map(drop).map_err(|e| e.to_string())
}

/// Whether the policy's condition says this.
fn condition(api: &ApiServer, status: &str, reason: &str) -> Result<(), String> {
    let policy = api.get("shop", AUTHORIZATION_POLICIES, "deny");
    let condition = &policy["status"]["conditions"][0];
    let so = condition["type"] == "ZtunnelAccepted" && condition["status"] == status && condition["reason"] == reason;
    if so { Ok(()) } else { Err(policy["status"].to_string()) }
}

/// A service entry, and a workload entry that it selects.
fn entries(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: db, namespace: shop}}\n\
         spec: {{hosts: [db.example.com], resolution: STATIC, ports: [{{number: 80, name: http}}], workloadSelector: \
         {{labels: {{app: vm}}}}{spec}}}\n---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata: {{name: vm, namespace: shop}}\nspec: {{address: 192.0.2.9, labels: {{app: vm}}}}\n"
    )
}

/// The addresses that tables have of the service entry's host, and how many endpoints.
fn entry(tables: &Tables) -> (Vec<String>, usize) {
    let service = tables.services().find(|service| &*service.hostname == "db.example.com");
    let Some(service) = service else { return Default::default() };
    let vips = service.vips.iter().map(|vip| vip.address.ip.to_string()).collect();
    (vips, tables.endpoints(&service.key()).len())
}

/// The addresses that the service entry's status has, in order.
fn allocated(api: &ApiServer) -> Vec<String> {
    let status = &api.get("shop", SERVICE_ENTRIES, "db")["status"];
    let all = status["addresses"].as_array().into_iter().flatten();
    all.map(|address| {
        assert_eq!(address["host"], "db.example.com");
        address["value"].as_str().unwrap().to_owned()
    })
    .collect()
}

fn route(filter: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{parentRefs: [{{name: ingress}}, {{group: '', kind: Service, name: web}}], rules: [{{backendRefs: [{{name: web, \
         port: 80}}], filters: [{filter}]}}]}}\n"
    )
}

/// Whether the route's status has another controller's entry as it was, and ours for the Service, which says this.
fn routed(api: &ApiServer, status: &str, reason: &str, generation: i64) -> Result<(), String> {
    let route = api.get("shop", HTTP_ROUTES, "web");
    let parents = &route["status"]["parents"];
    let ours = &parents[1];
    let accepted = &ours["conditions"][0];
    let so = parents[0]["controllerName"] == "example.com/other"
        && parents[0]["conditions"][0]["message"] == "theirs"
        && (&ours["parentRef"]["kind"], &ours["parentRef"]["name"]) == (&"Service".into(), &"web".into())
        && (&accepted["type"], &accepted["status"]) == (&"Accepted".into(), &status.into())
        && (&accepted["reason"], &accepted["observedGeneration"]) == (&reason.into(), &generation.into());
    if so { Ok(()) } else { Err(route["status"].to_string()) }
}

/// Whether the class of waypoints says that it is accepted.
fn accepted(api: &ApiServer) -> Result<(), String> {
    let class = api.try_kubectl(&["get", GATEWAY_CLASSES, "ambit-waypoint", "-o", "json"], "")?;
    let class: Value = serde_json::from_str(&class).map_err(|e| e.to_string())?;
    let (condition, features) = (&class["status"]["conditions"][0], &class["status"]["supportedFeatures"]);
    let accepted = (&condition["type"], &condition["status"], &condition["observedGeneration"])
        == (&"Accepted".into(), &"True".into(), &1.into());
    let follows = features.as_array().is_some_and(|all| all.contains(&serde_json::json!({"name": "HTTPRoute"})));
    if accepted && follows { Ok(()) } else { Err(class["status"].to_string()) }
}

/// A route says at each parent what became of its present version, and a class of ours says that it is accepted.
async fn gateway_api(api: &ApiServer) {
    for kind in [HTTP_ROUTES, GATEWAY_CLASSES] {
        api.apply(&api.definition(kind));
        until_so("the kind is served", || api.try_kubectl(&["get", kind, "-A"], "").map(drop)).await;
    }
    until_so("the class is accepted", || accepted(api)).await;
    api.kubectl(&["delete", GATEWAY_CLASSES, "ambit-waypoint"], "");
    until_so("the class is back", || accepted(api)).await;
    api.apply(&route(""));
    let theirs = r#"{"status": {"parents": [{"controllerName": "example.com/other", "parentRef": {"name": "ingress"}, "conditions":
        [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "theirs", "observedGeneration": 1,
          "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]}}"#;
    // Whoever writes first: neither takes the other's entry away.
    until_so("our entry", || {
        let status = &api.get("shop", HTTP_ROUTES, "web")["status"];
        if status["parents"][0]["controllerName"] == "ambit.dev/mesh-controller" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let ours = api.get("shop", HTTP_ROUTES, "web")["status"]["parents"][0].to_string();
    let both = theirs.replace("]}]}}", &format!("]}}, {ours}]}}}}"));
    api.kubectl(&["patch", HTTP_ROUTES, "web", "-n", "shop", "--subresource=status", "--type=merge", "-p", &both], "");
    let extension = "{type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: a}}";
    api.apply(&route(extension));
    until_so("it is said that the route is rejected", || routed(api, "False", "UnsupportedValue", 2)).await;
    api.apply(&route(""));
    until_so("it is said that the route is mended", || routed(api, "True", "Accepted", 3)).await;
}

/// Waits for the tables to say so.
async fn until(what: &str, reader: &Reader, holds: impl Fn(&Tables) -> bool) {
    let mut changed = reader.changed();
    let wait = async {
        while !reader.read(&holds) {
            changed.changed().await.unwrap();
        }
    };
    let policies = || reader.read(|t| t.policies().map(|p| format!("{p:?}")).collect::<Vec<_>>());
    tokio::time::timeout(SEEN, wait).await.unwrap_or_else(|_| panic!("never: {what}; policies {:?}", policies()));
}

/// Waits for something that is asked for again and again.
async fn until_so(what: &str, mut so: impl FnMut() -> Result<(), String>) {
    let begun = std::time::Instant::now();
    while let Err(why) = so() {
        assert!(begun.elapsed() < SEEN, "never: {what}: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn has_workload(name: &str) -> impl Fn(&Tables) -> bool + use<> {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    move |tables| tables.workload(&uid).is_some_and(|workload| workload.healthy)
}

/// The namespaces that the policy refuses.
fn denies(tables: &Tables, namespace: &str) -> bool {
    tables.policies().any(|policy| &*policy.name == "deny" && format!("{policy:?}").contains(&format!("{namespace:?}")))
}

/// Three replicas that start together on a cluster without a root make one, and only one of them says that it made it.
async fn one_root_for_all(api: &ApiServer, credentials: &Path) {
    for attempt in 0..20 {
        let replica = async || {
            let client = Access::Kubeconfig(vec![credentials.to_owned()]).client().await.unwrap();
            let (material, made) = kept_in_secret(&client, ("istio-system", MESH_ROOT), "cluster.local").await.unwrap();
            (material.roots().to_owned(), made)
        };
        let (a, b, c) = tokio::join!(replica(), replica(), replica());
        assert!(a.0 == b.0 && b.0 == c.0, "attempt {attempt}: more than one root");
        let made = [a.1, b.1, c.1].into_iter().filter(|made| *made).count();
        assert_eq!(made, 1, "attempt {attempt}");
        if attempt < 19 {
            api.kubectl(&["delete", "secret", "istio-ca-secret", "-n", "istio-system"], "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_reaches_proxies_whatever_happens_to_the_api_server() {
    let Some(mut api) = ApiServer::start() else { return };
    api.apply(OBJECTS);
    api.apply(&pod("a"));
    runs(&api, "a", "10.244.1.2");
    let credentials = match api.chart_rights() {
        Some(rights) => {
            api.apply(&rights);
            let account =
                rights.split("kind: ServiceAccount").nth(1).and_then(|rest| rest.split("name: ").nth(1)).unwrap();
            api.account("istio-system", account.split_whitespace().next().unwrap())
        }
        None => api.kubeconfig(),
    };
    one_root_for_all(&api, &credentials).await;
    let running = control_plane(&api, &credentials).await;

    // The root is published to every namespace, and proxies trust it.
    until_so("the root in every namespace", || {
        for namespace in ["shop", "istio-system", "default"] {
            let map =
                ["get", "configmap", "istio-ca-root-cert", "-n", namespace, "-o", "jsonpath={.data.root-cert\\.pem}"];
            let root = api.try_kubectl(&map, "")?;
            fs::write(api.files.path().join("root-cert.pem"), root).unwrap();
        }
        Ok(())
    })
    .await;
    let reader = subscribe(channel(&api, &running, token(&api, "istio-ca")));
    until("the pod", &reader, has_workload("a")).await;
    until("the service", &reader, |t| t.services().any(|s| &*s.hostname == "web.shop.svc.cluster.local")).await;

    // A certificate for who shows a token of that API server, for us.
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    sign(channel(&api, &running, token(&api, "istio-ca")), web).await.unwrap();
    let other = sign(channel(&api, &running, token(&api, "vault")), web).await.unwrap_err();
    assert!(other.contains("request authenticate failure"), "{other}");
    let forged =
        mesh_testkit::control_plane::TokenIssuer::new().token(("istio-system", "ztunnel"), ("ztunnel-n1", "u"), 60);
    let other = sign(channel(&api, &running, Token::Literal(forged)), web).await.unwrap_err();
    assert!(other.contains("request authenticate failure"), "{other}");

    // A kind whose definition comes later.
    api.apply(&api.definition(AUTHORIZATION_POLICIES));
    until_so("the kind is served", || api.try_kubectl(&["get", AUTHORIZATION_POLICIES, "-A"], "").map(drop)).await;
    api.apply(&deny("bank"));
    until("a policy of a kind that came later", &reader, |t| denies(t, "bank")).await;
    api.apply(&deny("casino"));
    until("an edit", &reader, |t| denies(t, "casino") && !denies(t, "bank")).await;
    until_so("its status", || condition(&api, "True", "Accepted")).await;

    // One that is wrong is rejected alone, and its last good version serves.
    api.apply(&(policy("deny", "{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}") + &pod("b")));
    runs(&api, "b", "10.244.1.3");
    until("what came with it", &reader, has_workload("b")).await;
    until_so("it is said", || {
        let status: Value = serde_json::from_slice(&fs::read(api.files.path().join("status.json")).unwrap()).unwrap();
        let rejected = &status["rejected"][0];
        let so = rejected["name"] == "deny" && rejected["last_good_kept"] == true && rejected["generation"] == 3;
        if so { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert!(reader.read(|t| denies(t, "casino")));
    until_so("its status", || condition(&api, "False", "Invalid")).await;
    let written = api.get("shop", AUTHORIZATION_POLICIES, "deny");
    until_so("an event", || {
        let described = api.try_kubectl(&["describe", AUTHORIZATION_POLICIES, "deny", "-n", "shop"], "")?;
        let so = described.contains("Rejected") && described.contains("ipBlocks[0]");
        if so { Ok(()) } else { Err(described) }
    })
    .await;

    // Away for a while, the store compacted, and much changed meanwhile.
    api.kill();
    api.resume_elsewhere();
    api.kubectl(&["delete", "pod", "a", "-n", "shop", "--force", "--grace-period=0"], "");
    api.apply(&(deny("harbour") + &pod("c")));
    runs(&api, "c", "10.244.1.2");
    api.compact();
    api.kill();
    assert!(reader.read(|t| denies(t, "casino")), "while it is away, what was good serves");
    api.resume();
    until("what came unseen", &reader, has_workload("c")).await;
    until("what was edited unseen", &reader, |t| denies(t, "harbour") && !denies(t, "casino")).await;
    until("what went unseen", &reader, |t| t.workload("Kubernetes//Pod/shop/a").is_none()).await;
    sign(channel(&api, &running, token(&api, "istio-ca")), web).await.unwrap();
    // What is said already is not written again.
    until_so("its status", || condition(&api, "True", "Accepted")).await;
    let settled = api.get("shop", AUTHORIZATION_POLICIES, "deny")["metadata"]["resourceVersion"].clone();
    assert_ne!(settled, written["metadata"]["resourceVersion"]);

    // Hosts without an address get one that their object keeps, and what is outside is an endpoint.
    for kind in [SERVICE_ENTRIES, WORKLOAD_ENTRIES] {
        api.apply(&api.definition(kind));
        until_so("the kind is served", || api.try_kubectl(&["get", kind, "-A"], "").map(drop)).await;
    }
    api.apply(&entries(""));
    until("a service entry and its endpoint", &reader, |t| matches!(entry(t), (vips, 1) if vips.len() == 2)).await;
    let (vips, _) = reader.read(entry);
    assert!(vips[0].starts_with("240.240.") && vips[1].starts_with("2001:2:"), "{vips:?}");
    until_so("its status", || {
        let said = allocated(&api);
        if said == vips { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    api.apply(&entries(", addresses: [10.250.0.1]"));
    until("an address of its own", &reader, |t| entry(t) == (vec!["10.250.0.1".to_owned()], 1)).await;
    until_so("its status", || match allocated(&api) {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    })
    .await;
    // What somebody's control plane allocated stays.
    let other = r#"{"status": {"addresses": [{"value": "240.240.7.7", "host": "db.example.com"}]}}"#;
    let say = ["patch", SERVICE_ENTRIES, "db", "-n", "shop", "--subresource=status", "--type=merge", "-p", other];
    api.apply(&entries(", addresses: []"));
    api.kubectl(&say, "");
    until("the address that is said", &reader, |t| entry(t).0.first().is_some_and(|vip| vip == "240.240.7.7")).await;
    let condition_of = |kind, name| {
        let so = |api: &ApiServer| {
            let status = &api.get("shop", kind, name)["status"];
            let of_kind = |c: &&Value| c["type"] == "ZtunnelAccepted" && c["reason"] == "Accepted";
            let found = status["conditions"].as_array().into_iter().flatten().find(of_kind).is_some();
            if found { Ok(()) } else { Err(status.to_string()) }
        };
        so(&api)
    };
    until_so("its condition", || condition_of(SERVICE_ENTRIES, "db")).await;
    until_so("its condition", || condition_of(WORKLOAD_ENTRIES, "vm")).await;
    until_so("both addresses", || match allocated(&api) {
        two if two.len() == 2 && two[0] == "240.240.7.7" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let (kept, _) = reader.read(entry);
    let entry_settled = api.get("shop", SERVICE_ENTRIES, "db")["metadata"]["resourceVersion"].clone();

    gateway_api(&api).await;
    waypoint::follows_its_parameters(&api).await;

    // Another kind, while the others go on; and a definition that goes takes its objects with it.
    api.apply(&api.definition(PEER_AUTHENTICATIONS));
    until_so("the kind is served", || api.try_kubectl(&["get", PEER_AUTHENTICATIONS, "-A"], "").map(drop)).await;
    let strict = "{name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}";
    api.apply(&format!("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {strict}\n"));
    until("strict", &reader, |t| t.policies().any(|p| p.name.contains("strict"))).await;
    let now = &api.get("shop", AUTHORIZATION_POLICIES, "deny")["metadata"]["resourceVersion"];
    assert_eq!(*now, settled, "nothing changed, and nothing was written");
    api.kubectl(&["delete", "crd", PEER_AUTHENTICATIONS], "");
    until("not strict", &reader, |t| !t.policies().any(|p| p.name.contains("strict"))).await;
    running.stop().await;

    // In the next life nobody knows what was in force: the namespace of what is wrong is closed. The root is the same.
    api.apply(&policy("deny", "{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}"));
    let running = control_plane(&api, &credentials).await;
    let reader = subscribe(channel(&api, &running, token(&api, "istio-ca")));
    until("closed", &reader, |t| t.policies().any(|p| &*p.name == "istiod-lite-closed")).await;
    // Policies come first.
    until("the host", &reader, |t| !entry(t).0.is_empty()).await;
    assert_eq!(reader.read(entry).0, kept, "a host has the same addresses in the next life");
    assert_eq!(
        api.get("shop", SERVICE_ENTRIES, "db")["metadata"]["resourceVersion"],
        entry_settled,
        "nothing is written"
    );
    api.apply(&deny("harbour"));
    let open = |t: &Tables| denies(t, "harbour") && !t.policies().any(|p| &*p.name == "istiod-lite-closed");
    until("open", &reader, open).await;
    running.stop().await;
}
