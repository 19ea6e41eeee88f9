//! A service of another network is reached through that network's gateway (double HBONE), which users tell of by a Gateway: the gateway
//! learns who calls and which service is meant, and neither it nor the wire sees a byte of what is said. So it is for a waypoint. While no
//! gateway is known, nobody is reached, and users are told.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::folder::Folder;
use e2e::gateway;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("networks::a_service_of_another_network_is_reached_through_its_gateway", across);
}

const GATEWAY: &str = "10.244.2.210";
const FAR: &str = "10.98.0.80:80";
const QUESTION: &str = "a-secret-question";
const LOST: [&str; 2] = ["direction=\"outbound\"", "UNKNOWN_NETWORK_GATEWAY"];

/// On the other network, `west`: what answers for `far.example.com`, and for the Service `behind`, which has a waypoint. Their
/// address is that of a pod of this network, which is another one there.
const WEST: &str = r#"---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: far, namespace: shop}, spec: {hosts: [far.example.com], addresses: [10.98.0.80], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], endpoints: [{address: 10.244.2.211, network: west, serviceAccount: server}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: behind, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}, spec: {selector: {app: behind}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: behind, namespace: shop}, spec: {address: 10.244.2.211, network: west, labels: {app: behind}, serviceAccount: server}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop}, spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
"#;

/// Where the gateway of `west` is, and who.
const REMOTE: &str = r#"---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: west, namespace: net, labels: {topology.istio.io/network: west}, annotations: {gateway.istio.io/service-account: gateway}}, spec: {gatewayClassName: istio-remote, addresses: [{value: 10.244.2.210}], listeners: [{name: cross-network, port: 15008, protocol: HBONE}]}}
"#;

fn across() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
        namespace("net", false),
        Pod::new("net", "decoy", "node2").ip("10.244.2.211").http(8080, "wrong").yaml(),
        WEST.to_owned(),
    ]))?;
    let ca = Folder::with("")?;
    let tried = nobody_is_reached(&mesh)
        .and_then(|()| through_the_gateway(&mesh, &ca))
        .and_then(|()| through_a_waypoint(&mesh))
        .and_then(|()| {
            mesh.remove("west.yaml")?;
            mesh.refused_because("shop/client", &format!("http://{FAR}/"), "ztunnel-node1", &LOST)
        });
    tried.map_err(|e| e.context(mesh.report()))
}

/// What is told of an object: whether nothing is to be done about it, and what it says.
fn told(mesh: &Mesh, kind: &str, name: &str) -> Result<(bool, String)> {
    let status = mesh.status()?;
    let policy = status.policies.into_iter().find(|p| p.kind == kind && p.name == name).context("no status")?;
    Ok((policy.accepted, policy.message))
}

fn nobody_is_reached(mesh: &Mesh) -> Result<()> {
    mesh.refused_because("shop/client", &format!("http://{FAR}/"), "ztunnel-node1", &LOST)?;
    for (kind, name) in [("ServiceEntry", "far"), ("WorkloadEntry", "behind")] {
        let (_, message) = told(mesh, kind, name)?;
        ensure!(message.contains("no gateway of the network west is known"), "{kind}: {message}");
    }
    let words = ["behind.shop.svc.cluster.local", "UNKNOWN_NETWORK_GATEWAY"];
    mesh.refused_because("shop/client", "http://behind.shop/", "shop/waypoint-1", &words)
}

fn through_the_gateway(mesh: &Mesh, ca: &Folder) -> Result<()> {
    for name in ["ca-cert.pem", "ca-key.pem"] {
        std::fs::write(ca.file(name), mesh.ca_file(name)?)?;
    }
    let server = format!("{}:15008", mesh.ip("shop/server", false)?);
    let identity = "spiffe://cluster.local/ns/net/sa/gateway";
    let command = gateway::command(ca.path(), identity, format!("{GATEWAY}:15008").parse()?, server.parse()?)?;
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    mesh.apply("gateway.yaml", &Pod::new("net", "gateway", "node2").ip(GATEWAY).serves(15008, &command).yaml())?;
    mesh.pod_ready("net/gateway", false)?;
    mesh.apply("west.yaml", REMOTE)?;

    let wire = mesh.capture(&[QUESTION])?;
    let far = format!("http://{FAR}/{QUESTION}");
    ensure!(mesh.get_at_last("shop/client", &far)? == "here");
    let traffic = mesh.traffic("shop/client", FAR, &["--at-least", "5"])?;
    for _ in 0..10 {
        ensure!(mesh.get("shop/client", &far)? == "here");
    }
    traffic.finish()?.flawless(5)?;
    let seen = wire.finish()?;
    ensure!(seen.count(QUESTION) == 0 && seen.hbone > 0, "{seen:?}");
    until("users are told", || {
        let (accepted, message) = told(mesh, "Gateway", "west")?;
        ensure!(accepted, "{message}");
        let (accepted, message) = told(mesh, "WorkloadEntry", "behind")?;
        ensure!(accepted && message.contains("through the gateway of its network, west"), "{message}");
        Ok(())
    })?;

    // The client's node: the gateway is where it went, the server is who answered.
    let out = ["direction=\"outbound\"", "far.example.com:80", "dst.addr=10.244.2.210:15008", "ns/shop/sa/server"];
    mesh.log_line("ztunnel-node1", &out)?;
    mesh.log_line("net/gateway", &["ns/shop/sa/client asks for far.example.com:80"])?;
    // The server's node: it comes from the gateway's address, and from the client.
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", "src.addr=10.244.2.210:", "ns/shop/sa/client"])?;
    Ok(())
}

/// The waypoint reads the request, and is who goes on.
fn through_a_waypoint(mesh: &Mesh) -> Result<()> {
    ensure!(mesh.get_at_last("shop/client", "http://behind.shop/")? == "here");
    mesh.log_line("shop/waypoint-1", &["behind.shop.svc.cluster.local", "response_code=200"])?;
    mesh.log_line("net/gateway", &["ns/shop/sa/waypoint asks for behind.shop.svc.cluster.local:80"])?;
    Ok(())
}
