//! What runs outside of the mesh and of Kubernetes is reached by the names and addresses that ServiceEntries and WorkloadEntries
//! give it.
//!
//! Each rule has a table of its own elsewhere (`istiod-lite/tests/golden/translate`); here they are seen to arrive.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::folder::Folder;
use e2e::harness::{SharedMesh, Suite, need_program};
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};
use std::path::Path;

/// Outside of the mesh.
const OLD: &str = "10.244.2.40";
const SERVER: &str = "10.244.2.53";

/// A name server: `old.example.org` is the pod outside, all else has no address.
const NAMES: &str = r"
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('0.0.0.0', 53))
ready = socket.create_server(('0.0.0.0', 53))
while True:
    query, peer = udp.recvfrom(4096)
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    known = '.'.join(labels).lower() == 'old.example.org'
    record = b'\xc0\x0c\0\1\0\1\0\0\0\0\0\4' + socket.inet_aton('10.244.2.40') if known and query[at + 2] == 1 else b''
    udp.sendto(query[:2] + bytes([0x81, 0x80 if known else 0x83]) + b'\0\1\0' + bytes([1 if record else 0])
        + b'\0\0\0\0' + query[12:at + 5] + record, peer)
";

const ENTRIES: &str = r#"---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: listed, namespace: shop}, spec: {hosts: [listed.example.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], endpoints: [{address: 10.244.2.40}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: given, namespace: shop}, spec: {hosts: [given.example.com], addresses: [10.250.0.1], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 10.244.2.40, ports: {http: 8080}}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: named, namespace: shop}, spec: {hosts: [named.example.com], resolution: DNS, ports: [{number: 80, name: http, targetPort: 8080}], endpoints: [{address: old.example.org}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: itself, namespace: shop}, spec: {hosts: [old.example.org], resolution: DNS, ports: [{number: 80, name: http, targetPort: 8080}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: lost, namespace: shop}, spec: {hosts: [lost.example.com], resolution: DNS, ports: [{number: 80, name: http}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: block, namespace: shop}, spec: {hosts: ['*.example.net'], addresses: [10.244.2.40/31], ports: [{number: 8080, name: http}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: machine, namespace: shop}, spec: {address: 10.244.2.40, labels: {app: machine}, ports: {http: 8080}}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: chosen, namespace: shop}, spec: {hosts: [chosen.example.com], resolution: STATIC, ports: [{number: 80, name: http}], workloadSelector: {labels: {app: machine}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: machine, namespace: shop}, spec: {selector: {app: machine}, ports: [{name: http, port: 80}]}}
"#;

pub(crate) fn trials(suite: &mut Suite, start: fn(&str, &[&str]) -> Result<Mesh>) {
    let mesh = SharedMesh::new(move || up(start));
    suite.on(&mesh, "entries::hosts_of_service_entries_are_reached_by_name_and_by_address", hosts);
    suite.on(&mesh, "entries::a_workload_entry_is_an_endpoint_of_what_selects_it", workload_entry);
    suite.trial("entries::what_leaves_the_mesh_goes_through_a_waypoint", egress);
    suite.on(&mesh, "entries::one_that_is_edited_takes_effect_and_one_that_is_wrong_keeps_serving", edited);
}

fn up(start: fn(&str, &[&str]) -> Result<Mesh>) -> Result<Mesh> {
    need_program("python3")?;
    // Of use only until the mesh is up.
    let files = Folder::with("")?;
    files.write("resolv.conf", &format!("nameserver {SERVER}\n"))?;
    let resolv_conf = files.file("resolv.conf").display().to_string();
    let mesh = start(
        &all(&[
            namespace("shop", true),
            namespace("outside", false),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("outside", "old", "node2").ip(OLD).http(8080, "old").yaml(),
            Pod::new("outside", "dns", "node2").ip(SERVER).serves(53, &["python3", "-c", NAMES]).yaml(),
            ENTRIES.to_owned(),
        ]),
        &["--resolv-conf", &resolv_conf],
    )?;
    mesh.pod_known("shop/client", true)?;
    mesh.pod_known("outside/old", false)?;
    Ok(mesh)
}

fn answers(mesh: &Mesh, url: &str) -> Result<()> {
    let body = mesh.get_at_last("shop/client", url).with_context(|| url.to_owned())?;
    ensure!(body == "old", "{url}: {body}");
    Ok(())
}

fn hosts(mesh: &Mesh) -> Result<()> {
    for url in [
        "http://listed.example.com/",
        "http://given.example.com/",
        "http://10.250.0.1/",
        "http://named.example.com/",
        "http://old.example.org/",
        // A block that is dialled as it is.
        "http://10.244.2.40:8080/",
    ] {
        answers(mesh, url)?;
    }
    for host in ["listed.example.com", "given.example.com", "named.example.com", "old.example.org"] {
        mesh.log_line(
            "ztunnel-node1",
            &["direction=\"outbound\"", &format!("dst.service=\"{host}\""), &format!("dst.addr={OLD}:8080")],
        )?;
    }
    let words = ["lost.example.com", "HOSTNAME_UNRESOLVED"];
    mesh.refused_because("shop/client", "http://lost.example.com/", "ztunnel-node1", &words)?;
    // What was allocated is said.
    let status = mesh.status()?;
    let listed =
        status.policies.iter().find(|p| p.kind == "ServiceEntry" && p.name == "listed").context("no status")?;
    ensure!(listed.accepted && listed.message.contains("listed.example.com at 240.240."), "{listed:?}");
    Ok(())
}

fn workload_entry(mesh: &Mesh) -> Result<()> {
    answers(mesh, "http://machine.shop/")?;
    answers(mesh, "http://chosen.example.com/")
}

/// As the example says: by name, judged by who calls and what is asked, whether endpoints are addresses or names.
fn egress() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/egress/egress.yaml");
    let mesh = Mesh::up(&std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    let ask = |pod: &str, method: &str, path: &str| -> Result<String> {
        let url = format!("http://api.partner.example{path}");
        let command = ["curl", "-sS", "-m", "10", "-w", "%{http_code}", "-X", method, &url];
        Ok(mesh.exec(&format!("shop/{pod}"), &command)?.stdout)
    };
    let prices = "GET /prices for api.partner.example\n200";
    let reached = || {
        let answer = ask("buyer", "GET", "/prices")?;
        ensure!(answer == prices, "{answer}");
        Ok(())
    };
    until("the partner is reached", reached)?;
    for (pod, method, path) in
        [("buyer", "DELETE", "/prices"), ("buyer", "GET", "/orders"), ("other", "GET", "/prices")]
    {
        let answer = ask(pod, method, path)?;
        ensure!(answer.ends_with("403"), "{pod} {method} {path}: {answer}");
    }
    mesh.log_line("shop/egress-1", &["api.partner.example", "response_code=200", "10.244.2.40:8080"])?;
    // By a route of the ServiceEntry to another host; judged as what was asked for.
    until("the route is followed", || {
        let answer = ask("buyer", "GET", "/prices/new")?;
        ensure!(answer == "next: GET /prices/new since 2026\n200", "{answer}");
        Ok(())
    })?;
    mesh.log_line("shop/egress-1", &["route=\"shop/partner new-prices\"", "10.244.2.41:8080"])?;
    let answer = ask("other", "GET", "/prices/new")?;
    ensure!(answer.ends_with("403"), "{answer}");
    // A name is resolved; and one that leads to the waypoint's own admin port leads nowhere.
    mesh.edit("base.yaml", "resolution: STATIC", "resolution: DNS")?;
    mesh.edit("base.yaml", "{address: 10.244.2.40}", "{address: localhost, ports: {http: 15000}}")?;
    until("the name is resolved, and refused", || {
        let answer = ask("buyer", "GET", "/prices")?;
        ensure!(answer.ends_with("503"), "{answer}");
        mesh.logged("shop/egress-1", &[":15000", "RECURSIVE_CALL"]).map(drop)
    })
}

fn edited(mesh: &Mesh) -> Result<()> {
    let entry = |resolution: &str, port: u16| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: edited, namespace: shop}}, spec: \
             {{hosts: [edited.example.com], resolution: {resolution}, ports: [{{number: 80, name: http, targetPort: {port}}}], \
             endpoints: [{{address: {OLD}}}]}}}}"
        )
    };
    let url = "http://edited.example.com/";
    mesh.apply("edited.yaml", &entry("STATIC", 8081))?;
    // Not because its name is unknown, as it is at first, but because nobody listens there.
    mesh.refused_because(
        "shop/client",
        url,
        "ztunnel-node1",
        &["dst.service=\"edited.example.com\"", "CONNECT_FAILED"],
    )?;
    mesh.apply("edited.yaml", &entry("STATIC", 8080))?;
    answers(mesh, url)?;
    mesh.apply("edited.yaml", &entry("STATICC", 8081))?;
    until("it is rejected", || {
        let rejected = mesh.status()?.rejected;
        let said = rejected.iter().find(|r| r.reason.contains("edited")).context("nothing is rejected")?;
        ensure!(said.reason.contains("spec.resolution") && said.last_good_kept, "{said:?}");
        Ok(())
    })?;
    // At once: the mistake has taken nothing away, not even for a while.
    let body = mesh.get("shop/client", url)?;
    ensure!(body == "old", "{body}");
    mesh.remove("edited.yaml")?;
    mesh.refused_at_last("shop/client", url)
}
