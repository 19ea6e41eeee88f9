//! A real Kubernetes cluster (`e2e/cluster/README.md`): what the tests on it stand on.
use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, NODES, traces};
use e2e::harness::Suite;
use e2e::process;
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.under("cluster::", |suite| {
        suite.trial("pods_of_two_nodes_answer_each_other_and_nothing_is_left", whole);
    });
}

/// Two servers, each on a node of its own, that say which one they are.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: localhost/tools:kit
        command: [bash, -c, 'mkdir /tmp/www && echo $NODE >/tmp/www/index.html && exec python3 -m http.server --directory /tmp/www 8080']
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

fn whole() -> Result<()> {
    let cluster = Cluster::start()?;
    let name = cluster.name().to_owned();
    let inits = [cluster.control().init(), cluster.node("node1")?.init(), cluster.node("node2")?.init()];
    let inside: Vec<_> = inits.into_iter().flat_map(process::descendants).collect();
    ensure!(!traces::of(&name)?.is_empty(), "there are no traces to be removed");
    works(&cluster).map_err(|e| e.context(cluster.report()))?;
    drop(cluster);

    for init in inits {
        ensure!(!Path::new("/proc").join(init.to_string()).exists(), "process 1 of a machine still runs");
    }
    for process in inside {
        ensure!(!process.runs(), "{process:?} still runs");
    }
    let traces = traces::of(&name)?;
    ensure!(traces.is_empty(), "left behind: {traces:?}");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&name), "still mounted: {mounts}");
    Ok(())
}

fn works(cluster: &Cluster) -> Result<()> {
    cluster.apply(WEB)?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=100s"])?.good()?;
    let json = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "json"])?.good()?;
    let pods: serde_json::Value = serde_json::from_str(&json)?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    let mut nodes: Vec<_> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    ensure!(nodes == NODES, "the pods are on {nodes:?}");

    let names: Vec<_> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    for client in &names {
        // Each reaches each at its own address, and both by the service: kube-proxy picks one of them.
        for pod in pods {
            let ip = pod["status"]["podIP"].as_str().context("a pod without address")?;
            let said = get(cluster, client, &format!("http://{ip}:8080/"))?;
            ensure!(Some(said.trim()) == pod["spec"]["nodeName"].as_str(), "{ip} said {said}");
        }
        let service = cluster.get("default", "service", "web")?;
        let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().context("a service without address")?);
        for node in NODES {
            until("the service leads to this node", || {
                let said = get(cluster, client, &url)?;
                ensure!(said.trim() == node, "it led to {said}");
                Ok(())
            })?;
        }
        let log = cluster.kubectl(&["logs", client])?.good()?;
        ensure!(log.contains("GET / HTTP/1.1"), "the log of {client}: {log}");
        cluster.pod_netns("default", client)?;
    }
    Ok(())
}

/// What a pod gets from a URL, by `kubectl exec`.
fn get(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    cluster.kubectl(&["exec", pod, "--", "curl", "-sS", "--max-time", "5", url])?.good()
}
