//! Pods of a waypoint come and go while requests are made, as in a rollout; with them routes are edited, the namespace leaves the waypoint
//! and comes back, backends are replaced and the control plane is started anew. Not one request fails, POST and gRPC streams among them,
//! and none is tried twice.
//!
//! `AMBIT_TEST_CHURN` says how many requests the HTTP/1 connections are to make at least, and so how many rounds there are: `just churn`.
use crate::route_churn::{CLIENT, server};
use anyhow::{Context, Result, bail, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use rustix::process::Signal;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("waypoint_rollout::pods_come_and_go_and_no_request_fails", rollout);
    suite.trial("waypoint_rollout::a_pod_that_refuses_costs_no_connection", refuses);
}

const MESH: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: waypoint-size}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {selector: {app: echo}, ports: [{name: grpc, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: node1
  containers: [{name: client, command: [sleep, infinity]}]
"#;

fn size(replicas: usize) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: waypoint-size, namespace: shop}}\n\
         data: {{deployment: \"{{spec: {{replicas: {replicas}}}}}\"}}\n"
    )
}

fn echo(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: echo}}}}\nspec:\n  nodeName: {node}\n  \
         containers:\n    - {{name: echo, command: [ambit, tool, grpc-server], readinessProbe: {{tcpSocket: {{port: 8080}}}}}}\n"
    )
}

/// Routes of both; what is edited is a header of the answers.
fn routes(edit: usize) -> String {
    let route = |kind: &str, name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: {name}}}]\n  rules:\n    \
             - backendRefs: [{{name: {name}, port: 80}}]\n      filters: [{{type: ResponseHeaderModifier, \
             responseHeaderModifier: {{set: [{{name: x-edit, value: '{edit}'}}]}}}}]\n"
        )
    };
    [route("HTTPRoute", "web"), route("GRPCRoute", "echo")].join("---\n")
}

fn rollout() -> Result<()> {
    need_program("python3")?;
    let mesh = Mesh::up(MESH)?;
    rollout_of(&mesh).map_err(|error| error.context(mesh.report()))
}

/// What happens while there is one pod of the waypoint more.
fn change(mesh: &Mesh, round: usize) -> Result<()> {
    let number = round / 4 + 1;
    match round % 4 {
        // A backend is replaced as a Deployment does it: the new one is ready before the old one leaves.
        0 => {
            let (name, node) = (format!("web-v{number}"), if number.is_multiple_of(2) { "node2" } else { "node1" });
            mesh.apply("web-next.yaml", &server(&name, "any", node))?;
            mesh.apply("echo-next.yaml", &echo(&format!("echo-{number}"), node))?;
            mesh.pod_ready(&format!("shop/{name}"), true)?;
            mesh.pod_ready(&format!("shop/echo-{number}"), true)?;
            mesh.apply("web.yaml", &server(&name, "any", node))?;
            mesh.apply("echo.yaml", &echo(&format!("echo-{number}"), node))?;
            mesh.remove("web-next.yaml")?;
            mesh.remove("echo-next.yaml")
        }
        1 => mesh.edit("base.yaml", ", istio.io/use-waypoint: waypoint", ""),
        2 => mesh.edit("base.yaml", "mode: ambient", "mode: ambient, istio.io/use-waypoint: waypoint"),
        _ => mesh.restart("istiod-lite", if number.is_multiple_of(2) { Signal::TERM } else { Signal::KILL }),
    }
}

/// All that is changed while they ask.
fn changes(mesh: &Mesh, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        mesh.apply("size.yaml", &size(2))?;
        mesh.pod_ready("shop/waypoint-2", false)?;
        mesh.apply("routes.yaml", &routes(2 * round + 1))?;
        change(mesh, round)?;
        mesh.apply("routes.yaml", &routes(2 * round + 2))?;
        mesh.apply("size.yaml", &size(1))?;
        mesh.pod_gone("shop/waypoint-2")?;
    }
    Ok(())
}

fn rollout_of(mesh: &Mesh) -> Result<()> {
    let least = std::env::var("AMBIT_TEST_CHURN").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_usize);
    mesh.apply("size.yaml", &size(1))?;
    mesh.apply("web.yaml", &server("web-v0", "any", "node2"))?;
    mesh.apply("echo.yaml", &echo("echo-0", "node2"))?;
    for pod in ["shop/web-v0", "shop/echo-0"] {
        mesh.pod_ready(pod, true)?;
    }
    let over = mesh.folder.file("over");
    let over_there = over.to_str().context("its name is no text")?;
    until("the waypoint answers", || {
        mesh.get("shop/client", "http://web/seen")?;
        mesh.logged("shop/waypoint-1", &["web.shop", "/seen"]).map(drop)
    })?;
    std::thread::scope(|scope| {
        let limit = Duration::from_secs(300);
        let number = least.to_string();
        let http1 = ["python3", "-c", CLIENT, &number, "0", over_there];
        let grpc =
            ["ambit", "tool", "grpc-pace", "echo:80", "/shop.Echo/Chat", "--seconds", "280", "--until", over_there];
        let clients = [&http1[..], &grpc[..]].map(|client| {
            let client: Vec<String> = client.iter().map(|&word| word.to_owned()).collect();
            scope.spawn(move || {
                let client: Vec<&str> = client.iter().map(String::as_str).collect();
                mesh.exec_within(limit, "shop/client", &client)
            })
        });
        let changed = changes(mesh, 4 * (least / 1_000).max(1));
        let early = clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
        std::fs::write(&over, "")?;
        for client in clients {
            let output = client.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            let mut lines = output.stdout.lines();
            let mut number = || lines.next().and_then(|line| line.parse::<usize>().ok()).context("no number");
            let (asked, failed) = (number()?, number()?);
            ensure!(failed == 0 && asked > 100, "{failed} of {asked} failed: {}{}", output.stdout, output.stderr);
        }
        changed?;
        ensure!(!early, "the requests were over before the changes were: they prove too little");
        Ok(())
    })
}

/// A pod of the waypoint at which nobody listens, though it says that it is ready: as one that was killed a moment ago.
const REFUSES: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: refuses
  namespace: shop
  labels: {gateway.networking.k8s.io/gateway-name: waypoint, istio.io/dataplane-mode: none}
spec:
  nodeName: node2
  serviceAccountName: waypoint
  containers: [{name: refuses, command: [sleep, infinity]}]
"#;

/// The next pod is dialled.
fn refuses() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let mesh = Mesh::up(&[MESH, &size(1), &server("web-v0", "any", "node2")].join("\n---\n"))?;
    let ask = |many: usize| {
        // A connection each.
        let urls = vec!["http://web/"; many];
        let output =
            mesh.exec("shop/client", &[&["curl", "-sS", "-m", "10", "-H", "Connection: close"], &urls[..]].concat())?;
        let good = output.stdout.lines().filter(|line| line.starts_with("web-v0 ")).count();
        ensure!(good == many, "{good} of {many}: {}{}", output.stdout, output.stderr);
        Ok(())
    };
    until("the waypoint serves", || {
        ask(1)?;
        ensure!(mesh.log("shop/waypoint-1")?.contains("web.shop"), "nobody has come by it");
        Ok(())
    })?;
    mesh.apply("refuses.yaml", REFUSES)?;
    mesh.pod_ready("shop/refuses", false)?;
    // Until it is dialled; and nobody hears of it, not even once.
    for _ in 0..100 {
        ask(20)?;
        let log = mesh.log("ztunnel-node1")?;
        if log.lines().any(|line| line.contains("CONNECT_FAILED") && line.contains("refuses")) {
            return Ok(());
        }
    }
    bail!("the pod that refuses was never dialled")
}
