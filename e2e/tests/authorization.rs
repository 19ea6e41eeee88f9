//! Who may come in: AuthorizationPolicy by principal, namespace, port and address; PeerAuthentication; live, with the
//! reason where an operator looks for it.
//!
//! Seen red when every policy allowed; cutting also when open connections were not judged again.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::{SharedMesh, Suite};
use e2e::until::until;

pub(crate) fn trials(suite: &mut Suite, town: &SharedMesh) {
    suite.on(town, "authorization::deny_by_principal_with_its_reason_in_log_and_metric", deny_principal);
    suite.on(town, "authorization::allow_by_principal", allow_principal);
    suite.on(town, "authorization::allow_by_namespace", allow_namespace);
    suite.on(town, "authorization::deny_by_port", deny_port);
    suite.on(town, "authorization::deny_by_ip", deny_ip);
    suite.on(town, "authorization::an_allow_policy_for_nobody_closes_for_all", allow_nothing);
    suite.on(town, "authorization::strict_refuses_plaintext_and_permissive_takes_it", strict);
    suite.on(town, "authorization::its_node_passes_strict_to_the_ports_that_are_probed_alone", node);
    suite.on(town, "authorization::an_open_connection_is_cut_once_it_is_denied", cut);
    suite.on(town, "authorization::holds_between_two_pods_of_one_node", one_node);
}

const WEB: &str = "http://web.shop/";
const FILE: &str = "policy.yaml";

/// A policy for pod shop/web; `rule` is YAML in flow style.
fn policy(action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: door, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: web}}}}\n  action: {action}\n  rules: [{rule}]\n"
    )
}

/// Applies a policy, expects who is kept out and who is not, and takes it away again.
fn judge(mesh: &Mesh, yaml: &str, out: &[(&str, &str)], welcome: &[(&str, &str)]) -> Result<()> {
    // Everybody can before, or being kept out afterwards would mean nothing.
    for (pod, url) in out.iter().chain(welcome) {
        mesh.get_at_last(pod, url)?;
    }
    with_policy(mesh, yaml, || {
        for (pod, url) in out {
            mesh.refused_at_last(pod, url)?;
        }
        for (pod, url) in welcome {
            mesh.get(pod, url)?;
        }
        // Still so, now that the welcome ones have been in.
        for (pod, url) in out {
            ensure!(mesh.get(pod, url).is_err(), "{pod} got {url} in the end");
        }
        Ok(())
    })?;
    for (pod, url) in out {
        mesh.get_at_last(pod, url)?;
    }
    Ok(())
}

/// Applies a policy, and takes it away again whatever came of it: other trials of this mesh would fail with this one.
fn with_policy(mesh: &Mesh, yaml: &str, judged: impl FnOnce() -> Result<()>) -> Result<()> {
    let judged = mesh.apply(FILE, yaml).and_then(|()| judged());
    let removed = mesh.remove(FILE);
    judged.and(removed)
}

fn deny_principal(mesh: &Mesh) -> Result<()> {
    let denied = [
        ("reporter", "destination"),
        ("response_flags", "DENY"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/thief"),
        ("destination_workload", "web"),
    ];
    let count = || Ok::<_, anyhow::Error>(mesh.metrics("node2")?.sum("istio_tcp_connections_closed_total", &denied));
    let before = count()?;
    let rule = "{from: [{source: {principals: [cluster.local/ns/shop/sa/thief]}}]}";
    judge(
        mesh,
        &policy("DENY", rule),
        &[("shop/thief", WEB)],
        &[("shop/client", WEB), ("other/client", WEB), ("outside/client", WEB)],
    )?;
    mesh.log_line(
        "ztunnel-node2",
        &["ns/shop/sa/thief", "dst.workload=\"web\"", "policy=\"shop/door\"", "explicitly denied by: shop/door"],
    )?;
    until("the denial is counted", || {
        let now = count()?;
        ensure!(now > before, "{now} denials counted, {before} before");
        Ok(())
    })
}

fn allow_principal(mesh: &Mesh) -> Result<()> {
    judge(
        mesh,
        &policy("ALLOW", "{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}"),
        &[("shop/thief", WEB), ("other/client", WEB), ("outside/client", WEB)],
        &[("shop/client", WEB)],
    )?;
    mesh.log_line("ztunnel-node2", &["ns/shop/sa/thief", "allow policies exist, but none allowed"])?;
    Ok(())
}

fn allow_namespace(mesh: &Mesh) -> Result<()> {
    judge(
        mesh,
        &policy("ALLOW", "{from: [{source: {namespaces: [shop]}}]}"),
        &[("other/client", WEB), ("outside/client", WEB)],
        &[("shop/client", WEB), ("shop/thief", WEB)],
    )
}

fn deny_port(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/web", false)?;
    let (admin, web) = (format!("http://{ip}:8081/"), format!("http://{ip}:8080/"));
    judge(
        mesh,
        &policy("DENY", "{to: [{operation: {ports: ['8081']}}]}"),
        &[("shop/client", &admin), ("outside/client", &admin)],
        // The service's port 80 is the pod's 8080: a policy speaks of the pod's.
        &[("shop/client", &web), ("shop/client", WEB), ("outside/client", &web)],
    )
}

fn deny_ip(mesh: &Mesh) -> Result<()> {
    let (thief, outside) = (mesh.ip("shop/thief", false)?, mesh.ip("outside/client", false)?);
    judge(
        mesh,
        &policy("DENY", &format!("{{from: [{{source: {{ipBlocks: ['{thief}/32', '{outside}']}}}}]}}")),
        &[("shop/thief", WEB), ("outside/client", WEB)],
        &[("shop/client", WEB), ("other/client", WEB)],
    )
}

fn allow_nothing(mesh: &Mesh) -> Result<()> {
    judge(
        mesh,
        &policy("ALLOW", ""),
        &[("shop/client", WEB), ("outside/client", WEB)],
        &[("shop/client", "http://spread/")],
    )
}

/// How pods of the shop may be called.
fn mode(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: shop}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// Row P3.
fn strict(mesh: &Mesh) -> Result<()> {
    judge(
        mesh,
        &mode("STRICT"),
        &[("outside/client", WEB)],
        &[("shop/client", WEB), ("other/client", WEB), ("outside/client", "http://server/")],
    )?;
    // The same edit, from one mode to the other.
    with_policy(mesh, &mode("STRICT"), || {
        mesh.refused_at_last("outside/client", WEB)?;
        mesh.apply(FILE, &mode("PERMISSIVE"))?;
        mesh.get_at_last("outside/client", WEB).map(drop)
    })
}

/// A pod that is probed on one of its ports, by the name that it has.
const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probed, namespace: shop}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers:
  - name: public
    command: [ambit, tool, http-server, --port, '8080', --text, public]
    ports: [{name: web, containerPort: 8080}]
    readinessProbe: {tcpSocket: {port: web}}
  - name: admin
    command: [ambit, tool, http-server, --port, '8081', --text, admin]
";

/// Trap 10. A process of the node reaches a pod past ztunnel on the port that is probed, and as a caller in plain text on the other.
fn node(mesh: &Mesh) -> Result<()> {
    mesh.apply("probed.yaml", PROBED)?;
    let judged = probed(mesh);
    let removed = mesh.remove("probed.yaml");
    judged.and(removed)
}

fn probed(mesh: &Mesh) -> Result<()> {
    const NODE: &str = "kit/node2";
    mesh.pod_ready("shop/probed", true)?;
    let address = mesh.ip("shop/probed", false)?;
    let [public, admin] = [8080, 8081].map(|port| format!("http://{address}:{port}/"));
    // As a caller in plain text, it is let in; only what is not probed goes through ztunnel.
    ensure!(mesh.get(NODE, &public)? == "public" && mesh.get_at_last(NODE, &admin)? == "admin");
    mesh.log_line("ztunnel-node2", &["src.addr=169.254.7.127:", &format!("dst.addr={address}:8081")])?;
    with_policy(mesh, &mode("STRICT"), || {
        let refused = ["POLICY_DENIED", "istio_converted_static_strict", "src.addr=169.254.7.127:"];
        let to = format!("dst.addr={address}:8081");
        mesh.refused_because(NODE, &admin, "ztunnel-node2", &[&refused[..], &[&to]].concat())?;
        ensure!(mesh.get(NODE, &public)? == "public");
        mesh.pod_ready("shop/probed", true).map(drop)
    })?;
    let log = mesh.log("ztunnel-node2")?;
    let probes =
        |line: &&str| line.contains("src.addr=169.254.7.127:") && line.contains(&format!("dst.addr={address}:8080"));
    ensure!(!log.lines().any(|line| probes(&line)), "a probe went through ztunnel");
    Ok(())
}

/// Trap 45.
pub(crate) fn cut(mesh: &Mesh) -> Result<()> {
    let web = format!("{}:9100", mesh.ip("shop/web", false)?);
    let denied = mesh.traffic("shop/thief", &web, &["--kept"])?;
    let allowed = mesh.traffic("shop/client", &web, &["--kept", "--at-least", "10"])?;
    let yaml = policy("DENY", "{from: [{source: {principals: [cluster.local/ns/shop/sa/thief]}}]}");
    with_policy(mesh, &yaml, || {
        mesh.log_line("ztunnel-node2", &["ns/shop/sa/thief", "closed due to policy change", "shop/door"])?;
        mesh.refused_at_last("shop/thief", WEB)
    })?;
    mesh.get_at_last("shop/thief", WEB)?;
    let denied = denied.finish()?;
    ensure!(denied.failed > 0 && denied.good > 0, "the open connection was not cut: {denied:?}");
    allowed.finish()?.flawless(10)
}

/// Two pods of one node meet inside their ztunnel, and everything holds that holds between nodes.
fn one_node(mesh: &Mesh) -> Result<()> {
    let web = format!("{}:9100", mesh.ip("shop/web", false)?);
    mesh.get_at_last("shop/neighbour", WEB)?;
    let kept = mesh.traffic("shop/neighbour", &web, &["--kept"])?;
    // No tunnel leaves the client's pod: nothing in it is connected to port 15008 (0x3AA0).
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let sockets = mesh.exec("shop/neighbour", &["cat", table])?.stdout;
        let to_hbone = |line: &&str| line.split_whitespace().nth(2).is_some_and(|remote| remote.ends_with(":3AA0"));
        ensure!(sockets.contains("local_address"), "{table} could not be read");
        ensure!(!sockets.lines().any(|line| to_hbone(&line)), "a tunnel between two pods of one node:\n{sockets}");
    }
    let yaml = policy("DENY", "{from: [{source: {principals: [cluster.local/ns/shop/sa/neighbour]}}]}");
    let denied = "explicitly denied by: shop/door";
    with_policy(mesh, &yaml, || {
        mesh.log_line("ztunnel-node2", &["ns/shop/sa/neighbour", "closed due to policy change", "shop/door"])?;
        mesh.refused_at_last("shop/neighbour", WEB)?;
        for words in
            [["direction=\"inbound\"", "POLICY_DENIED", denied], ["direction=\"outbound\"", "REFUSED_BY_POLICY", "401"]]
        {
            mesh.log_line("ztunnel-node2", &[&["ns/shop/sa/neighbour"], &words[..]].concat())?;
        }
        Ok(())
    })?;
    mesh.get_at_last("shop/neighbour", WEB)?;
    let kept = kept.finish()?;
    ensure!(kept.failed > 0 && kept.good > 0, "the open connection was not cut: {kept:?}");
    Ok(())
}
