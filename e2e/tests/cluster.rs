//! A real Kubernetes cluster (`e2e/cluster/README.md`): what the tests on it stand on.
//!
//! Seen red: without kube-proxy, and with a `rmdir` that does nothing.
use anyhow::{Context, Result, ensure};
use e2e::cluster::image::AMBIT;
use e2e::cluster::shell::SHELL;
use e2e::cluster::{Cluster, NODES, ProxyMode, traces};
use e2e::harness::Suite;
use e2e::process::{self, Process};
use e2e::until::until;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

pub(crate) fn trials(suite: &mut Suite) {
    suite.under("cluster::", |suite| {
        suite.trial("pods_of_two_nodes_answer_each_other_and_nothing_is_left", nftables);
        suite.trial("the_same_with_iptables", iptables);
        suite.trial("a_killed_test_leaves_nothing_that_the_next_does_not_remove", killed);
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

fn nftables() -> Result<()> {
    whole(ProxyMode::Nftables)
}

fn iptables() -> Result<()> {
    whole(ProxyMode::Iptables)
}

fn whole(proxy: ProxyMode) -> Result<()> {
    let cluster = Cluster::start_with(proxy)?;
    let name = cluster.name().to_owned();
    let inits = [cluster.control().init(), cluster.node("node1")?.init(), cluster.node("node2")?.init()];
    let inside = everything_in(&inits)?;
    ensure!(!traces::of(&name)?.is_empty(), "there are no traces to be removed");
    works(&cluster).map_err(|e| e.context(cluster.report()))?;
    drop(cluster);
    ended(&inside)?;
    let traces = traces::of(&name)?;
    ensure!(traces.is_empty(), "left behind: {traces:?}");
    Ok(())
}

/// A test that is killed cannot end its cluster.
fn killed() -> Result<()> {
    // Says whether there can be one at all.
    drop(Cluster::start()?);
    let mut shell = Command::new(std::env::current_exe()?).arg(SHELL).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(shell.stdout.take().context("no output")?).lines();
    let kubeconfig = said.next().context("the cluster did not start")??;
    let name = kubeconfig.split('/').find(|part| part.starts_with("ambit-cluster-")).context(kubeconfig.clone())?;
    let mut inits = Vec::new();
    while inits.len() < 3 {
        let line = said.next().context("not all machines were told")??;
        inits.extend(line.split_whitespace().nth(4).and_then(|pid| pid.parse::<i32>().ok()));
    }
    let inside = everything_in(&inits)?;
    shell.kill()?;
    shell.wait()?;
    until("all that ran in it is gone", || ended(&inside))?;
    let folder = until("its control groups are gone", || {
        let traces = traces::of(name)?;
        ensure!(traces.len() == 1, "left behind: {traces:?}");
        Ok(traces)
    })?;
    traces::sweep()?;
    ensure!(!folder[0].exists(), "still there: {folder:?}");
    Ok(())
}

/// The processes of machines, by their first ones: many.
fn everything_in(inits: &[i32]) -> Result<Vec<Process>> {
    let all: Vec<_> = process::all().into_iter().filter(|p| inits.contains(&p.pid)).collect();
    let below = inits.iter().flat_map(|init| process::descendants(*init));
    let all: Vec<_> = all.into_iter().chain(below).collect();
    ensure!(all.len() > 15, "there should be more: {all:?}");
    Ok(all)
}

fn ended(processes: &[Process]) -> Result<()> {
    let left: Vec<_> = processes.iter().filter(|process| process.runs()).collect();
    ensure!(left.is_empty(), "still running: {left:?}");
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
        // Each reaches each at its own address, and both by the service's name: kube-proxy picks one of them.
        for pod in pods {
            let ip = pod["status"]["podIP"].as_str().context("a pod without address")?;
            let said = get(cluster, client, &format!("http://{ip}:8080/"))?;
            ensure!(Some(said.trim()) == pod["spec"]["nodeName"].as_str(), "{ip} said {said}");
        }
        for node in NODES {
            until("the service leads to this node", || {
                let said = get(cluster, client, "http://web/")?;
                ensure!(said.trim() == node, "it led to {said}");
                Ok(())
            })?;
        }
        let log = cluster.kubectl(&["logs", client])?.good()?;
        ensure!(log.contains("GET / HTTP/1.1"), "the log of {client}: {log}");
        cluster.pod_netns("default", client)?;
    }
    for node in NODES {
        cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")])?.good()?;
    }
    streaming_list(cluster)?;
    program_of_ours(cluster)
}

/// A list as a watch that ends the list with a bookmark.
fn streaming_list(cluster: &Cluster) -> Result<()> {
    let asked = "/api/v1/namespaces?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &allowWatchBookmarks=true&timeoutSeconds=1";
    let said = cluster.kubectl(&["get", "--raw", asked])?.good()?;
    ensure!(said.contains("k8s.io/initial-events-end"), "{said}");
    Ok(())
}

/// The image of the mesh's programs runs.
fn program_of_ours(cluster: &Cluster) -> Result<()> {
    cluster.import_ambit()?;
    cluster.kubectl(&["run", "ambit", &format!("--image={AMBIT}"), "--restart=Never", "--", "--version"])?.good()?;
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ambit", "--timeout=60s"])?.good()?;
    let log = cluster.kubectl(&["logs", "ambit"])?.good()?;
    ensure!(log.starts_with("ambit "), "{log}");
    Ok(())
}

/// What a pod gets from a URL, by `kubectl exec`.
fn get(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    cluster.kubectl(&["exec", pod, "--", "curl", "-sS", "--max-time", "5", url])?.good()
}
