//! The recipes of `docs/reasons.md` by which a reason is seen, where no other test follows them to the letter.
//!
//! What stood there before came to other reasons: a second connection too many was the first one's tunnel, and a pod that
//! is new while the control plane is stopped is unknown before it lacks a certificate.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("reasons::what_local_tables_can_say_wrongly_and_a_source_that_holds_too_much", local_tables);
    suite.trial("reasons::a_ca_that_does_not_answer", no_certificate);
}

/// An identity that cannot be, a waypoint and a gateway that nobody knows.
const TABLES: &str = r#"
workloads:
- {uid: odd, name: odd, namespace: shop, serviceAccount: "a/b", workloadIps: ["10.98.0.1"], protocol: HBONE}
- {uid: far, name: far, namespace: shop, serviceAccount: far, network: west, protocol: HBONE,
   networkGateway: {destination: "net/nobody.example.com", hboneMtlsPort: 15008}, services: {"shop/far.example.com": {80: 8080}}}
services:
- {name: behind, namespace: shop, hostname: behind.example.com, vips: ["/10.98.0.2"], ports: {80: 8080},
   waypoint: {destination: "shop/nobody.example.com", hboneMtlsPort: 15008}}
- {name: far, namespace: shop, hostname: far.example.com, vips: ["/10.98.0.3"], ports: {80: 8080},
   subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/far"]}
"#;

const TRIED: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: "true"}}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
"#;

fn pods() -> String {
    all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").peer().yaml(),
    ])
}

fn local_tables() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("tables.yaml");
    std::fs::write(&file, TABLES)?;
    let tables = format!("ztunnel:LOCAL_XDS_PATH={}", file.display());
    let settings = [
        tables.as_str(),
        "ztunnel:ZTUNNEL_MAX_CONNECTIONS_PER_POD=4",
        "ztunnel:ZTUNNEL_WORKER_THREADS=1",
        "istiod-lite:AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true",
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let mesh = Mesh::up_with(&pods(), &arguments)?;
    seen(&mesh).map_err(|e| e.context(mesh.report()))
}

fn seen(mesh: &Mesh) -> Result<()> {
    for (address, reason) in
        [("10.98.0.1", "INVALID_IDENTITY"), ("10.98.0.2", "UNKNOWN_WAYPOINT"), ("10.98.0.3", "UNKNOWN_NETWORK_GATEWAY")]
    {
        ensure!(mesh.get("shop/client", &format!("http://{address}/")).is_err(), "{reason}: it was reached");
        mesh.log_line("ztunnel-node1", &[reason, &format!("dst.addr={address}:80"), "direction=\"outbound\""])?;
    }
    // A policy that is only tried out says whom it would have kept from whom.
    let server = mesh.ip("shop/server", false)?;
    let page = format!("http://{server}:8080/");
    mesh.apply("tried.yaml", TRIED)?;
    until("the policy has come", || {
        mesh.get("shop/client", &page)?;
        let said =
            ["dry-run policy would have matched", "policy=shop/tried", "ns/shop/sa/client", "pod=\"shop/server\""];
        let log = mesh.log("ztunnel-node2")?;
        let to = format!("to={server}:8080");
        ensure!(log.lines().any(|line| line.contains(&to) && said.iter().all(|word| line.contains(word))), "not said");
        Ok(())
    })?;
    // What was asked before is over: it would have a place, too.
    until("no socket is open at the server's node", || {
        let open = mesh.metrics("node2")?.sum("istio_tcp_sockets_open", &[]);
        ensure!(open == 0.0, "{open} are");
        Ok(())
    })?;
    // Of the server's four places, the client has the connection of its node and one tunnel on it, which is its share.
    let held = mesh.traffic("shop/client", &format!("{server}:9100"), &["--kept"])?;
    ensure!(mesh.get("shop/client", &page).is_err(), "SOURCE_OVERLOADED: there was room");
    mesh.log_line("ztunnel-node2", &["SOURCE_OVERLOADED", "direction=\"inbound\""])?;
    mesh.log_line("ztunnel-node1", &["REFUSED_BY_PEER", "(SOURCE_OVERLOADED)"])?;
    held.finish()?.flawless(1)
}

fn no_certificate() -> Result<()> {
    let mesh = Mesh::up_with(&pods(), &["--set", "ztunnel:CA_ADDRESS=http://127.0.0.1:1"])?;
    without_ca(&mesh).map_err(|e| e.context(mesh.report()))
}

fn without_ca(mesh: &Mesh) -> Result<()> {
    let server = mesh.ip("shop/server", false)?;
    // A certificate is waited for.
    let url = format!("http://{server}:8080/");
    let output = mesh.exec("shop/client", &["ambit", "tool", "http-get", "--timeout", "10", &url])?;
    ensure!(output.good().is_err(), "it was reached");
    mesh.log_line("ztunnel-node1", &["NO_CERTIFICATE", &server.to_string(), "direction=\"outbound\""])?;
    Ok(())
}
