//! Who can reach whom: in the mesh, into it, out of it; by service and by address, over IPv4 and IPv6.
//!
//! Seen red: identities and the same node without redirect rules; addresses when ztunnel dialled with its own; outside
//! when plaintext was refused; IPv6 without IPv6 rules; spreading when the first endpoint was always taken.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{SharedMesh, Suite};
use e2e::until::until;

pub(crate) fn trials(suite: &mut Suite, town: &SharedMesh) {
    suite.on(town, "reach::pods_in_the_mesh_know_each_other_by_identity", identities);
    suite.on(town, "reach::the_server_sees_the_clients_own_address", source_address);
    suite.on(town, "reach::on_the_same_node", same_node);
    suite.on(town, "reach::from_the_mesh_to_outside_and_back", outside);
    suite.on(town, "reach::over_ipv6", ipv6);
    suite.on(town, "reach::a_service_spreads_over_its_endpoints", spread);
}

fn identities(mesh: &Mesh) -> Result<()> {
    ensure!(mesh.get_at_last("shop/client", "http://web/")? == "web");
    // On both nodes: who says it and who hears it.
    for (node, direction) in [("node1", "outbound"), ("node2", "inbound")] {
        let words = [
            "connection complete",
            &format!("direction=\"{direction}\""),
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/client\"",
            "dst.identity=\"spiffe://cluster.local/ns/shop/sa/web\"",
        ];
        mesh.log_line(&format!("ztunnel-{node}"), &words)?;
    }
    let mutual = [("connection_security_policy", "mutual_tls"), ("source_workload_namespace", "shop")];
    let opened = mesh.metrics("node2")?.sum("istio_tcp_connections_opened_total", &mutual);
    ensure!(opened > 0.0, "no connection was counted as mutual TLS");
    Ok(())
}

/// P4 and 5.6: the caller's address is kept.
fn source_address(mesh: &Mesh) -> Result<()> {
    for (pod, v6) in [("shop/client", false), ("shop/client", true), ("outside/client", false)] {
        let ip = mesh.ip("shop/web", v6)?;
        let host = if v6 { format!("[{ip}]") } else { ip.to_string() };
        ensure!(mesh.get_at_last(pod, &format!("http://{host}:8080/"))? == "web");
        let own = mesh.ip(pod, v6)?;
        until(&format!("the server served {pod} as {own}"), || {
            let log = mesh.log("shop/web")?;
            ensure!(log.lines().any(|line| line.ends_with(&format!("served {own}"))), "{log}");
            Ok(())
        })?;
    }
    Ok(())
}

fn same_node(mesh: &Mesh) -> Result<()> {
    ensure!(mesh.get_at_last("shop/neighbour", "http://web/")? == "web");
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", "ns/shop/sa/neighbour", "ns/shop/sa/web"])?;
    Ok(())
}

/// O15, O16, P4. Trap 12: peers that do not know (yet) that a pod was captured call it in plain text, and are served.
fn outside(mesh: &Mesh) -> Result<()> {
    let web = mesh.ip("shop/web", false)?;
    let server = mesh.ip("outside/server", false)?;
    for (pod, url, text) in [
        ("shop/client", "http://server.outside/".to_owned(), "outside"),
        ("shop/client", format!("http://{server}:8080/"), "outside"),
        ("outside/client", "http://web.shop/".to_owned(), "web"),
        ("outside/client", format!("http://{web}:8080/"), "web"),
    ] {
        let answer = mesh.get_at_last(pod, &url)?;
        ensure!(answer == text, "{pod} asks {url} and is told {answer}");
    }
    // Into the mesh it came through ztunnel, without an identity.
    let client = mesh.ip("outside/client", false)?;
    let line = mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", &format!("src.addr={client}:")])?;
    ensure!(!line.contains("src.identity"), "an identity nobody proved: {line}");
    Ok(())
}

const QUESTION: &str = "a-secret-question-over-ipv6";

fn ipv6(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/web", true).context("IPv6 needs pods with IPv6 addresses")?;
    for url in [format!("http://[{ip}]:8080/{QUESTION}"), format!("http://web6/{QUESTION}")] {
        mesh.get_at_last("shop/client", &url)?;
        let capture = mesh.capture(&[QUESTION])?;
        ensure!(mesh.get("shop/client", &url)? == "web");
        let seen = capture.finish()?;
        ensure!(seen.hbone > 0 && seen.count(QUESTION) == 0 && seen.lost == 0, "{url}: {seen:?}");
    }
    let client = mesh.ip("shop/client", true)?;
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", &format!("src.addr=[{client}]:"), "ns/shop/sa/client"])?;
    let server = mesh.ip("outside/server", true)?;
    ensure!(mesh.get_at_last("shop/client", &format!("http://[{server}]:8080/"))? == "outside");
    ensure!(mesh.get_at_last("outside/client", &format!("http://[{ip}]:8080/"))? == "web");
    Ok(())
}

fn spread(mesh: &Mesh) -> Result<()> {
    mesh.get_at_last("shop/client", "http://spread/")?;
    let traffic = mesh.traffic("shop/client", "spread:80", &["--every", "2", "--at-least", "150"])?;
    until("enough requests for a judgement", || {
        let opened = mesh.metrics("node1")?.sum(
            "istio_tcp_connections_opened_total",
            &[("reporter", "source"), ("destination_service_name", "spread")],
        );
        ensure!(opened >= 150.0, "{opened} connections");
        Ok(())
    })?;
    let tally = traffic.finish()?;
    tally.flawless(150)?;
    for endpoint in ["spread-1", "spread-2", "spread-3"] {
        let share = tally.answers.get(endpoint).copied().unwrap_or_default();
        // A third each, by chance: less than a sixth of 150 happens once in a billion runs.
        ensure!(share * 6 > tally.good, "{endpoint} answered {share} of {}: {:?}", tally.good, tally.answers);
    }
    Ok(())
}
