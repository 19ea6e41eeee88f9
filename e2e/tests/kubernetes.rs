//! Ambit on a real Kubernetes cluster, by its charts: pods that run join when their namespace is labelled, and leave; nothing is
//! left when the charts are removed.
//!
//! Seen red with `DAEMONSET_NAME` left out of the node agent's chart: what the agent had made stayed on the nodes.
mod asked;
mod failures;
mod followed;

use crate::charts::helm;
use crate::install::ambit;
use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, NODES};
use e2e::harness::Suite;
use e2e::until::until_within;
use mesh_netlink::nftables::Nftables;
use serde_json::Value;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long a step may take on a machine that is busy.
const STEP: Duration = Duration::from_secs(120);
pub(crate) const NAMESPACE: &str = "istio-system";
const DAEMONSETS: [&str; 2] = ["daemonset/istio-cni-node", "daemonset/ztunnel"];
const ANNOTATION: &str = r"jsonpath={.metadata.annotations.ambient\.istio\.io/redirection}";

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node1
  serviceAccountName: web
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: localhost/tools:kit
    command: [python3, -m, http.server, "8080", --directory, /etc]
    readinessProbe: {httpGet: {path: /passwd, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

/// A pod that only calls others.
fn client(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop}}, spec: {{nodeName: node2, \
         terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'localhost/tools:kit', command: [sleep, infinity]}}]}}}}"
    )
}

const STRICT: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: shop}, \
                      spec: {mtls: {mode: STRICT}}}";

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("cluster::the_charts_bring_running_pods_in_and_out", whole);
    suite.trial("cluster::failures_leave_every_pod_captured_or_refused", failures::whole);
}

fn whole() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.import_ambit()?;
    story(&cluster).map_err(|e| e.context(cluster.report()))
}

fn story(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", NAMESPACE])?.good()?;
    cluster.apply(SHOP)?;
    cluster.apply(&client("client"))?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=100s"])?.good()?;
    reaches(cluster, "client")?;
    let before = NODES.iter().map(|node| Node::look(cluster, node)).collect::<Result<Vec<_>>>()?;

    install(cluster)?;

    // Pods that run join, and their traffic takes HBONE.
    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"])?.good()?;
    for pod in ["web", "client"] {
        annotated(cluster, pod, "enabled")?;
    }
    cluster.apply(STRICT)?;
    until_within(STEP, "only HBONE is let in", || {
        let inside = cluster.node("node2")?.run(&[
            "curl",
            "-sS",
            "-m",
            "2",
            &format!("http://{}:8080/passwd", ip(cluster, "web")?),
        ])?;
        ensure!(inside.code != 0, "a process of a node got in: {}", inside.stdout);
        Ok(())
    })?;
    reaches(cluster, "client")?;
    refused(cluster)?;
    // A new pod is held until it is captured, so its first call is let in.
    cluster.apply(&client("new"))?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod/new", "--timeout=100s"])?.good()?;
    reaches(cluster, "new")?;
    let restarts = r"jsonpath={.items[*].status.containerStatuses[*].restartCount}{.items[*].status.conditions[?(@.type=='Ready')].status}";
    let said = cluster.kubectl(&["-n", "shop", "get", "pods", "-o", restarts])?.good()?;
    ensure!(said == "0 0 0True True True", "restarts and readiness under STRICT: {said}");

    // An agent that is replaced takes nothing away, and what somebody wrote over its entry is put back.
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", DAEMONSETS[0]])?.good()?;
    ready(cluster, DAEMONSETS[0])?;
    reaches(cluster, "client")?;
    for (node, before) in NODES.iter().zip(&before) {
        cluster.node(node)?.write(LIST, &before.list)?;
        until_within(STEP, "the plugin is put back", || {
            let list = Node::look(cluster, node)?.list;
            ensure!(list.contains("mesh-cni"), "{node}: {list}");
            Ok(())
        })?;
    }

    upgrade(cluster)?;
    asked::about_the_mesh(cluster)?;
    waypoint(cluster)?;

    // Uninstalled while the namespace still has the label: pods go on in plain text, and the nodes are as they were.
    uninstall(cluster)?;
    cluster.kubectl(&["-n", NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=100s"])?.good()?;
    purged(cluster)?;
    let webhooks = cluster.kubectl(&["get", "validatingwebhookconfigurations", "-o", "name"])?.good()?;
    ensure!(webhooks.is_empty(), "left behind: {webhooks}");
    for (node, before) in NODES.iter().zip(&before) {
        until_within(STEP, "the node is as it was", || {
            let now = Node::look(cluster, node)?;
            ensure!(now.is_as(before)?, "{node}: {now:?}, and before {before:?}");
            Ok(())
        })?;
    }
    for pod in ["web", "client", "new"] {
        let tables = tables(&cluster.pod_netns("shop", pod)?)?;
        ensure!(tables.is_empty(), "{pod}: {tables:?}");
    }
    reaches(cluster, "client")
}

/// The API server asks istiod by its Service: a policy that is wrong is refused with the sentence of its status, and one that is right is not.
fn refused(cluster: &Cluster) -> Result<()> {
    let policy = |block: &str| {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: blocks, namespace: shop}}, \
             spec: {{action: DENY, rules: [{{from: [{{source: {{ipBlocks: ['{block}']}}}}]}}]}}}}"
        )
    };
    let policies = r"jsonpath={.webhooks[*].failurePolicy}";
    until_within(STEP, "the webhook is seen to answer", || {
        let name = "istio-validator-istio-system";
        let said = cluster.kubectl(&["get", "validatingwebhookconfiguration", name, "-o", policies])?.good()?;
        ensure!(said == "Fail Fail", "{said}");
        Ok(())
    })?;
    let error = cluster.apply(&policy("192.0.2.0/99")).err().context("it was let in")?.to_string();
    ensure!(error.contains("denied the request: spec.rules[0].from[0].source.ipBlocks[0]: "), "{error}");
    cluster.apply(&policy("192.0.2.0/24"))?;
    cluster.kubectl(&["-n", "shop", "delete", "authorizationpolicy/blocks"])?.good().map(drop)
}

const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{name: all, backendRefs: [{name: web, port: 80}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-shadow, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: ["/shadow*"]}}]}]
"#;

/// A Gateway gets its waypoint, which follows routes and policies; and what was made for it goes with it.
fn waypoint(cluster: &Cluster) -> Result<()> {
    let programs = std::env::var("AMBIT_TEST_CLUSTER").context("AMBIT_TEST_CLUSTER")?;
    for kind in ["gatewayclasses", "gateways", "httproutes", "grpcroutes"] {
        let file = format!("{programs}/crds/gateway.networking.k8s.io_{kind}.yaml");
        cluster.kubectl(&["apply", "--server-side", "-f", &file])?.good()?;
    }
    asked::apply_waypoint(cluster)?;
    cluster.apply(ROUTE)?;
    until_within(STEP, "the waypoint reads requests", || {
        reaches(cluster, "client")?;
        let log = cluster.kubectl(&["-n", "shop", "logs", "deployment/way"])?.good()?;
        ensure!(log.contains("path=\"/passwd\"") && log.contains("route=\"shop/web all\""), "{log}");
        Ok(())
    })?;
    let url =
        format!("http://{}/shadow", cluster.get("shop", "service", "web")?["spec"]["clusterIP"].as_str().unwrap_or(""));
    let curl = ["-n", "shop", "exec", "client", "--", "curl", "-sS", "-m", "3", "-w", " %{http_code}", &url];
    let said = cluster.kubectl(&curl)?.good()?;
    ensure!(said == "RBAC: access denied 403", "{said}");
    // Around the waypoint, too.
    let direct = format!("http://{}:8080/passwd", ip(cluster, "web")?);
    let around = cluster.kubectl(&["-n", "shop", "exec", "client", "--", "curl", "-sS", "-m", "3", &direct])?;
    ensure!(around.code != 0, "somebody went around the waypoint: {}", around.stdout);
    let accepted = r"jsonpath={.status.parents[0].conditions[?(@.type=='Accepted')].status}";
    let said = cluster.kubectl(&["-n", "shop", "get", "httproute", "web", "-o", accepted])?.good()?;
    ensure!(said == "True", "the route's status: {said}");

    for object in ["authorizationpolicy/no-shadow", "httproute/web"] {
        cluster.kubectl(&["-n", "shop", "delete", object])?.good()?;
    }
    followed::by_the_waypoint(cluster)?;
    asked::delete_waypoint(cluster)?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=delete", "deployment/way", "--timeout=100s"])?.good()?;
    cluster.kubectl(&["label", "namespace", "shop", "istio.io/use-waypoint-"])?.good()?;
    reaches(cluster, "client")
}

/// What the mesh could leave on a node.
#[derive(Debug)]
struct Node {
    /// The network configuration.
    list: String,
    plugins: Vec<String>,
    tables: Vec<String>,
    /// Files in the directories of the mesh's sockets.
    sockets: Vec<String>,
}

/// Where every node has its network configuration.
const LIST: &str = "/etc/cni/net.d/10-kit.conflist";

impl Node {
    fn look(cluster: &Cluster, name: &str) -> Result<Self> {
        let node = cluster.node(name)?;
        let names = |folder: &str| -> Vec<String> {
            let entries = std::fs::read_dir(node.file(folder)).into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        Ok(Self {
            list: std::fs::read_to_string(node.file(LIST))?,
            plugins: names("/opt/cni/bin"),
            tables: tables(&node.netns()?)?,
            sockets: ["/run/ztunnel", "/run/istio-cni"].into_iter().flat_map(names).collect(),
        })
    }

    /// Whether nothing came to be; the configuration may be written in other words.
    fn is_as(&self, before: &Self) -> Result<bool> {
        let [list, list_before]: [Value; 2] = [serde_json::from_str(&self.list)?, serde_json::from_str(&before.list)?];
        let rest = (&self.plugins, &self.tables, &self.sockets) == (&before.plugins, &before.tables, &before.sockets);
        Ok(rest && list == list_before)
    }
}

/// The tables of Istio's names in a network namespace.
fn tables(netns: &File) -> Result<Vec<String>> {
    let mut tables = Nftables::open_in(netns.as_fd())?.tables()?;
    tables.retain(|table| table.starts_with("istio"));
    Ok(tables)
}

/// Installs the charts, with the image of the program under test and two control planes.
pub(crate) fn install(cluster: &Cluster) -> Result<()> {
    let values = "global.hub=localhost,global.tag=kit,global.imagePullPolicy=Never,istiod-lite.replicaCount=2";
    with_ambit(cluster, &["install", "--profile", "minimal", "--set", values, "--wait", "150"])?.good()?;
    ["deployment/istiod", DAEMONSETS[0], DAEMONSETS[1]].into_iter().try_for_each(|object| ready(cluster, object))
}

/// A value more, and back: what was set before stays.
fn upgrade(cluster: &Cluster) -> Result<()> {
    let set = |level: &str| -> Result<()> {
        let istiod = cluster.get(NAMESPACE, "deployment", "istiod")?;
        let env = istiod["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        ensure!(env.contains(&format!(r#"{{"name":"RUST_LOG","value":"{level}"}}"#)), "{level}: {env}");
        ensure!(istiod["spec"]["replicas"] == 2 && istiod["status"]["readyReplicas"] == 2, "{istiod}");
        Ok(())
    };
    with_ambit(cluster, &["upgrade", "--set", "istiod-lite.logLevel=debug", "--wait", "150"])?.good()?;
    set("debug")?;
    with_helm(cluster, &["rollback", "ambit", "1"], "", &["--wait", "--timeout", "150s"])?;
    set("info")?;
    refused(cluster)?;
    reaches(cluster, "client")
}

/// Everything goes, after a question that nobody has answered yet.
fn uninstall(cluster: &Cluster) -> Result<()> {
    let asked = with_ambit(cluster, &["uninstall", "--purge"])?.bad()?;
    let named = ["peerauthentications.security.istio.io, and all objects of it: 1", "Go on? [y/N]", "nothing was done"];
    ensure!(named.iter().all(|text| asked.contains(text)), "{asked}");
    ready(cluster, "deployment/istiod")?;
    with_ambit(cluster, &["uninstall", "--purge", "--yes", "--wait", "100"])?.good().map(drop)
}

/// Neither Istio's kinds nor the root are there; Gateway API's kinds are.
fn purged(cluster: &Cluster) -> Result<()> {
    let kinds = cluster.kubectl(&["get", "crds", "-o", "name"])?.good()?;
    ensure!(!kinds.contains(".istio.io") && kinds.contains("httproutes.gateway.networking.k8s.io"), "{kinds}");
    let maps = ["get", "configmaps", "-A", "--field-selector=metadata.name=istio-ca-root-cert", "-o", "name"];
    let own = ["-n", NAMESPACE, "get", "secrets,leases", "-o", "name"];
    for left in [&maps[..], &own[..]] {
        let left = cluster.kubectl(left)?.good()?;
        ensure!(left.is_empty(), "left behind: {left}");
    }
    Ok(())
}

fn ready(cluster: &Cluster, object: &str) -> Result<()> {
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", object, "--timeout=100s"])?.good().map(drop)
}

fn annotated(cluster: &Cluster, pod: &str, expected: &str) -> Result<()> {
    until_within(STEP, "the pod's annotation", || {
        let value = cluster.kubectl(&["-n", "shop", "get", "pod", pod, "-o", ANNOTATION])?.good()?;
        ensure!(value == expected, "{pod}: {value:?}");
        Ok(())
    })
}

fn ip(cluster: &Cluster, pod: &str) -> Result<String> {
    let pod = cluster.get("shop", "pod", pod)?;
    Ok(pod["status"]["podIP"].as_str().context("a pod without address")?.to_owned())
}

/// The client gets an answer of the service.
fn reaches(cluster: &Cluster, client: &str) -> Result<()> {
    let service = cluster.get("shop", "service", "web")?;
    let url = format!("http://{}/passwd", service["spec"]["clusterIP"].as_str().context("a service without address")?);
    until_within(STEP, "the client is answered", || {
        let said = cluster.kubectl(&["-n", "shop", "exec", client, "--", "curl", "-sS", "-m", "3", &url])?.good()?;
        ensure!(said.contains("root"), "{said}");
        Ok(())
    })
}

/// Runs `ambit` against the cluster, which finds Helm.
fn with_ambit(cluster: &Cluster, args: &[&str]) -> Result<e2e::command::Output> {
    let mut command = ambit()?;
    command.args(args).arg("--kubeconfig").arg(cluster.kubeconfig());
    e2e::command::run(&mut command, STEP * 2)
}

/// Runs helm against the cluster.
fn with_helm(cluster: &Cluster, verb: &[&str], chart: &str, more: &[&str]) -> Result<String> {
    let config = cluster.kubeconfig().to_str().context("a path that is no text")?;
    let more: Vec<&str> = ["-n", NAMESPACE, "--kubeconfig", config].iter().chain(more).copied().collect();
    helm(verb, chart, &more, STEP * 2)?.good()
}
