//! A waypoint that is for workloads is in the way to pods at their own addresses, and to nothing else; nobody goes around it.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("pod_waypoint::pods_are_judged_at_their_own_addresses_and_services_left_alone", pods);
}

/// A pod that asks for the waypoint by its own label, of no service; and somebody outside of the mesh.
const MORE: &str = r"
---
apiVersion: v1
kind: Pod
metadata: {name: lone, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec:
  nodeName: node2
  containers: [{name: c, command: [python3, -m, http.server, '8080'], readinessProbe: {tcpSocket: {port: 8080}}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: outside}
spec:
  nodeName: node1
  containers: [{name: c, command: [sleep, infinity]}]
";

/// The status of an answer to a request of a pod.
fn ask(mesh: &Mesh, from: &str, method: &str, url: &str) -> Result<String> {
    let command = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, url];
    let output = mesh.exec(from, &command)?;
    ensure!(output.stdout != "000", "no answer: {}", output.stderr);
    Ok(output.stdout)
}

fn is(mesh: &Mesh, (from, method, url): (&str, &str, &str), status: &str) -> Result<()> {
    let got = ask(mesh, from, method, url)?;
    ensure!(got == status, "{from} {method} {url}: {got}, not {status}");
    Ok(())
}

/// As the example says, then: from outside of the mesh, with a waypoint that is for services again, and without it.
fn pods() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/pod-waypoint/pod-waypoint.yaml");
    let example = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let is_gateway = |document: &&str| document.contains("\nkind: Gateway\n");
    let gateway = example.split("\n---\n").find(is_gateway).context("the example has a Gateway")?.to_owned();
    let rest: Vec<&str> = example.split("\n---\n").filter(|document| !is_gateway(document)).collect();
    let mesh = Mesh::up(&(rest.join("\n---\n") + MORE))?;
    let lone = format!("http://{}:8080/", mesh.ip("shop/lone", false)?);
    let web = format!("http://{}:8080/", mesh.ip("shop/web", false)?);
    // Nobody has made the Gateway: a policy is for it, and the pod says that it is behind it.
    until("it is not gone around", || {
        ensure!(ask(&mesh, "shop/client", "GET", &lone).is_err(), "it went around a waypoint that is not there");
        mesh.logged("ztunnel-node1", &["UNKNOWN_WAYPOINT", "shop/waypoint.shop"]).map(drop)
    })?;
    mesh.apply("gateway.yaml", &gateway)?;
    mesh.pod_ready("shop/waypoint-1", false)?;
    until("pods are reached through it", || is(&mesh, ("shop/client", "GET", &lone), "200"))?;
    // By address, and by the names that lead there.
    until("the policy is followed", || is(&mesh, ("shop/client", "DELETE", "http://db-0.db:8080/"), "403"))?;
    for (url, pod) in [("http://db-0.db:8080/", "db-0"), (&web, "web")] {
        is(&mesh, ("shop/client", "GET", url), "200")?;
        is(&mesh, ("shop/client", "DELETE", url), "403")?;
        mesh.log_line("shop/waypoint-1", &["response_code=200", &format!("dst.workload=\"{pod}\"")])?;
    }
    mesh.log_line("shop/waypoint-1", &["response_code=403", "shop/no-deletes", "sa/default"])?;
    // The Service's address is not what it is for.
    is(&mesh, ("shop/client", "DELETE", "http://web/"), "200")?;
    mesh.log_line("ztunnel-node1", &["direction=\"outbound\"", "dst.service=\"web.shop.svc.cluster.local\""])?;
    // Nor around it from outside of the mesh: only where a Service brings connections straight the door is open.
    mesh.refused_because("outside/client", &lone, "ztunnel-node2", &["ambit_waypoint_only_pods_of_shop.waypoint"])?;
    is(&mesh, ("outside/client", "GET", &web), "200")?;
    // For services again: the pod's own wish is not granted, and is not gone around either; the namespace's is not for pods.
    mesh.edit("gateway.yaml", "istio.io/waypoint-for: workload", "istio.io/waypoint-for: service")?;
    until("the Service is behind it", || is(&mesh, ("shop/client", "DELETE", "http://web/"), "403"))?;
    mesh.refused_because("shop/client", &lone, "ztunnel-node1", &["UNKNOWN_WAYPOINT", "_not-bound.waypoint.shop"])?;
    // Both.
    mesh.edit("gateway.yaml", "istio.io/waypoint-for: service", "istio.io/waypoint-for: all")?;
    until("the pod is behind it, too", || is(&mesh, ("shop/client", "GET", &lone), "200"))?;
    for url in ["http://web/", &web, &lone] {
        is(&mesh, ("shop/client", "DELETE", url), "403")?;
    }
    Ok(())
}
