//! A service of another network is reached through that network's gateway (double HBONE): the gateway learns who calls and
//! which service is meant, and neither it nor the wire sees a byte of what is said.
//!
//! Control planes of ours tell of one network, so what there is on the other one is told by `LOCAL_XDS_PATH`.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::gateway;
use e2e::harness::Suite;
use e2e::yaml::{Pod, all, namespace};
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("networks::a_service_of_another_network_is_reached_through_its_gateway", across);
}

const GATEWAY: &str = "10.244.2.210";
const FAR: &str = "10.98.0.80:80";
const QUESTION: &str = "a-secret-question";

/// The other network, `west`: a service, its endpoint without an address, and the gateway, whose service maps the port
/// that is named to the one on which it listens.
const WEST: &str = r#"
workloads:
- {uid: "west//Pod/net/gateway", name: gateway, namespace: net, serviceAccount: gateway, network: west, protocol: TCP,
   workloadIps: ["10.244.2.210"], services: {"net/gw.example.com": {15999: 15008}}}
- {uid: "west/shop/far", name: far, namespace: shop, serviceAccount: server, network: west, protocol: HBONE,
   networkGateway: {destination: "net/gw.example.com", hboneMtlsPort: 15999}, services: {"shop/far.example.com": {80: 8080}}}
services:
- {name: far, namespace: shop, hostname: far.example.com, vips: ["/10.98.0.80"], ports: {80: 8080},
   subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/server"]}
- {name: gw, namespace: net, hostname: gw.example.com, vips: [], ports: {15999: 15008}}
"#;

fn across() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let west = directory.path().join("west.yaml");
    std::fs::write(&west, WEST)?;
    let mesh = Mesh::up_with(
        &all(&[
            namespace("shop", true),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
            namespace("net", false),
        ]),
        &["--set", &format!("ztunnel:LOCAL_XDS_PATH={}", west.display())],
    )?;
    through_the_gateway(&mesh, directory.path()).map_err(|e| e.context(mesh.report()))
}

fn through_the_gateway(mesh: &Mesh, ca: &Path) -> Result<()> {
    for name in ["ca-cert.pem", "ca-key.pem"] {
        std::fs::write(ca.join(name), mesh.ca_file(name)?)?;
    }
    let server = format!("{}:15008", mesh.ip("shop/server", false)?);
    let identity = "spiffe://cluster.local/ns/net/sa/gateway";
    let command = gateway::command(ca, identity, format!("{GATEWAY}:15008").parse()?, server.parse()?)?;
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    mesh.apply("gateway.yaml", &Pod::new("net", "gateway", "node2").ip(GATEWAY).serves(15008, &command).yaml())?;
    mesh.pod_ready("net/gateway", false)?;

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

    // The client's node: the gateway is where it went, the server is who answered.
    let out = ["direction=\"outbound\"", "far.example.com:80", "dst.addr=10.244.2.210:15008", "ns/shop/sa/server"];
    mesh.log_line("ztunnel-node1", &out)?;
    mesh.log_line("net/gateway", &["ns/shop/sa/client asks for far.example.com:80"])?;
    // The server's node: it comes from the gateway's address, and from the client.
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", "src.addr=10.244.2.210:", "ns/shop/sa/client"])?;
    Ok(())
}
