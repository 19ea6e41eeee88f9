//! A Gateway of a waypoint's class runs a waypoint, which follows routes and policies; and nobody goes around it.
//!
//! Seen red: `a_gateway_routes_by_httproute` while waypoints did not evaluate conditions on requests (403 for everything).
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("waypoint::a_gateway_routes_by_httproute", routes);
    suite.trial("waypoint::a_destination_rule_ejects_and_limits", circuit_breaker);
    suite.trial("waypoint::a_slow_endpoint_gets_few_requests", load_balancing);
    suite.trial("waypoint::comes_and_goes_with_its_gateway_and_is_not_gone_around", comes_and_goes);
}

fn example() -> Result<String> {
    read("waypoint")
}

fn read(name: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}/{name}.yaml"));
    std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))
}

/// Status and body of an answer to the client.
fn curl(mesh: &Mesh, arguments: &[&str]) -> Result<(String, String)> {
    let command = ["curl", "-sS", "-m", "10", "-w", "\n%{http_code}"];
    let command: Vec<&str> = command.into_iter().chain(arguments.iter().copied()).collect();
    let output = mesh.exec("shop/client", &command)?;
    let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_default();
    ensure!(status != "000", "no answer: {}", output.stderr);
    Ok((status.to_owned(), body.trim_end().to_owned()))
}

/// By path, by header, by weight, as the example says; and what a policy denies is denied with 403.
fn routes() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let mesh = Mesh::up(&example()?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    let ask = |arguments: &[&str]| curl(&mesh, arguments);
    until("the route is followed", || {
        let answer = ask(&["http://web/new/x"])?;
        ensure!(answer == ("200".into(), "web-v2 GET /new/x".into()), "{answer:?}");
        Ok(())
    })?;
    for (what, arguments, status, body) in [
        ("by path", &["http://web/new"][..], "200", "web-v2 GET /new"),
        ("by header", &["-H", "X-Version: v2", "http://web/a"], "200", "web-v2 GET /a"),
        ("with a body", &["-H", "x-version: v2", "-d", "hello", "http://web/a"], "200", "web-v2 POST /a"),
    ] {
        let answer = ask(arguments)?;
        ensure!(answer == (status.into(), body.into()), "{what}: {answer:?}");
    }
    // A path of whole elements: this one is the canary's.
    let urls = vec!["http://web/newer"; 100];
    let output = mesh.exec("shop/client", &[&["curl", "-sS", "-m", "10"], &urls[..]].concat())?;
    let count = |version: &str| output.stdout.lines().filter(|line| line.starts_with(version)).count();
    let (old, new) = (count("web-v1 "), count("web-v2 "));
    ensure!(old + new == 100 && (1..=30).contains(&new), "{old} of v1, {new} of v2: {}", output.stdout);
    let (status, body) = ask(&["-X", "DELETE", "http://web/new"])?;
    ensure!(status == "403", "DELETE: {status} {body}");
    mesh.log_line("shop/waypoint-1", &["response_code=403", "shop/no-deletes"])?;
    // An edit is followed while requests flow.
    mesh.edit("base.yaml", "weight: 10}", "weight: 0}")?;
    until("the edited weights are followed", || {
        let output = mesh.exec("shop/client", &[&["curl", "-sS", "-m", "10"], &urls[..40]].concat())?;
        let new = output.stdout.lines().filter(|line| line.starts_with("web-v2 ")).count();
        ensure!(new == 0, "{new} of v2");
        Ok(())
    })
}

/// As the example says: who answers nothing but errors is ejected, and over its limits a service gets no requests.
fn circuit_breaker() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let example = read("circuit-breaker")?;
    // Here it is slow until a file is there, and not for 2 s, which are over before all have asked where much else is done.
    let gate = tempfile::tempdir()?;
    let open = gate.path().join("open");
    let slow = format!("import os\n{:22}while not os.path.exists('{}'): time.sleep(0.01)", "", open.display());
    ensure!(example.contains("time.sleep(2)"), "the example is another one now");
    // And ejected for so long that the bad one is not back before the end.
    let short = "baseEjectionTime: 30s";
    ensure!(example.contains(short), "the example is another one now");
    let example = example.replace("time.sleep(2)", &slow).replace(short, "baseEjectionTime: 600s");
    let mesh = Mesh::up(&example)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    until("the rule is followed, and the bad one ejected", || {
        mesh.exec("shop/client", &["curl", "-sS", "-m", "10", "http://web/"])?;
        let log = mesh.log("shop/waypoint-1")?;
        ensure!(log.contains("endpoint ejected"), "nobody is");
        Ok(())
    })?;
    let urls = vec!["http://web/"; 20];
    let output = mesh.exec("shop/client", &[&["curl", "-sS", "-m", "10"], &urls[..]].concat())?;
    ensure!(output.stdout.lines().filter(|line| *line == "good").count() == 20, "{}{}", output.stdout, output.stderr);
    // One on the only connection, one that waits for it, and no more.
    let ask = || Ok(curl(&mesh, &["-m", "60", "http://web/slow"])?.0);
    std::thread::scope(|scope| {
        let asked = |connected: u64, waiting: u64| {
            let asked = scope.spawn(ask);
            until("it is on its way", || {
                let dump = mesh.get("shop/waypoint-1", "http://127.0.0.1:15000/config_dump")?;
                let dump: serde_json::Value = serde_json::from_str(&dump)?;
                let mut ports = dump["upstreams"].as_array().into_iter().flatten();
                let port = ports.find(|port| port["service"] == "shop/web.shop.svc.cluster.local");
                let port = port.context("its service is not in the dump")?;
                let active =
                    port["endpoints"].as_array().into_iter().flatten().filter_map(|one| one["active"].as_u64());
                let now = (active.sum::<u64>(), port["limits"]["http1MaxPendingRequests"]["now"].as_u64());
                ensure!(now == (connected, Some(waiting)), "{port}");
                Ok(())
            })
            .map(|()| asked)
        };
        let both = asked(1, 0).and_then(|first| Ok([first, asked(2, 1)?]));
        let over = both.as_ref().ok().map(|_| (0..3).map(|_| ask()).collect::<Result<Vec<_>>>());
        std::fs::write(&open, "")?;
        for asked in both? {
            let status = asked.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            ensure!(status == "200", "one within the limits: {status}");
        }
        let over = over.transpose()?.unwrap_or_default();
        ensure!(over == ["503", "503", "503"], "over the limits: {over:?}");
        Ok(())
    })?;
    mesh.log_line("shop/waypoint-1", &["response_code=503", "UPSTREAM_OVERFLOW", "DestinationRule shop/web"])?;
    Ok(())
}

/// As the example says: by latency the slow one gets little, and without the policy about as much as the other.
fn load_balancing() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let mesh = Mesh::up(&read("load-balancing")?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    let slow = |times: usize| -> Result<usize> {
        let urls = vec!["http://web/"; times];
        let output = mesh.exec("shop/client", &[&["curl", "-sS", "-m", "20"], &urls[..]].concat())?;
        let count = |name: &str| output.stdout.lines().filter(|line| *line == name).count();
        ensure!(count("slow") + count("fast") == times, "{}{}", output.stdout, output.stderr);
        Ok(count("slow"))
    };
    until("the slow one gets few requests", || {
        let slow = slow(20)?;
        ensure!(slow <= 2, "{slow} of 20");
        mesh.logged("shop/waypoint-1", &["response_code=200"]).map(drop)
    })?;
    // The dump has why: the policy, and who costs more. What was measured once is forgotten when nobody asks.
    until("the slow one costs more", || {
        slow(5)?;
        let dump: serde_json::Value =
            serde_json::from_str(&mesh.get("shop/waypoint-1", "http://127.0.0.1:15000/config_dump")?)?;
        let port = dump["upstreams"].as_array().into_iter().flatten().find(|port| port["trafficPolicy"] == "shop/fast");
        let port = port.with_context(|| format!("no port is balanced by shop/fast: {}", dump["upstreams"]))?;
        let cost = |name: &str| {
            let endpoints = port["endpoints"].as_array().into_iter().flatten();
            let of = endpoints.filter(|one| one["workload"].as_str().is_some_and(|uid| uid.ends_with(name)));
            of.filter_map(|one| one["cost"].as_f64()).next().with_context(|| format!("no cost of {name}: {port}"))
        };
        ensure!(cost("/slow")? > cost("/fast")?, "{port}");
        Ok(())
    })?;
    // Without it one is as good as the other: in turn, so that it is no chance.
    mesh.edit("base.yaml", "loadBalancer: {type: PeakEWMA}", "rateLimits: {local: [{requests: 1000, per: 1s}]}")?;
    mesh.edit("base.yaml", "loadBalancer: {warmup: {duration: 1m}}", "loadBalancer: {simple: ROUND_ROBIN}")?;
    until("in turn the slow one gets half", || {
        let slow = slow(10)?;
        ensure!(slow == 5, "{slow} of 10");
        Ok(())
    })
}

/// A service that nothing is attached to.
const PLAIN: &str = r"
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop, labels: {app: plain}}
spec:
  nodeName: node2
  containers: [{name: c, command: [python3, -m, http.server, '8080'], readinessProbe: {tcpSocket: {port: 8080}}}]
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec: {selector: {app: plain}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// The waypoint's pod runs while its Gateway is there. Without it, a service with a route is refused, and one that nothing is
/// attached to is reached straight.
fn comes_and_goes() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let example = example()?;
    let is_gateway = |document: &&str| document.contains("\nkind: Gateway\n");
    let gateway = example.split("\n---\n").find(is_gateway).context("the example has a Gateway")?.to_owned();
    let rest: Vec<&str> = example.split("\n---\n").filter(|document| !is_gateway(document)).collect();
    let mesh = Mesh::up(&(rest.join("\n---\n") + PLAIN))?;
    // Nobody has a waypoint yet: what something is attached to is refused, the rest is not.
    let refused = || {
        ensure!(curl(&mesh, &["http://web/"]).is_err(), "it went around a waypoint that is not there");
        let (status, body) = curl(&mesh, &["http://plain/"])?;
        ensure!(status == "200", "{status} {body}");
        Ok(())
    };
    until("what a route is attached to is refused", refused)?;
    mesh.refused_because("shop/client", "http://web/", "ztunnel-node1", &["UNKNOWN_WAYPOINT"])?;
    // Nor at its pod's address, where a policy would be gone around.
    let direct = format!("http://{}:8080/", mesh.ip("shop/web-v1", false)?);
    mesh.refused_because("shop/client", &direct, "ztunnel-node1", &["ambit_waypoint_only_web"])?;
    mesh.apply("gateway.yaml", &gateway)?;
    mesh.pod_ready("shop/waypoint-1", false)?;
    until("the waypoint answers, and what goes to it is seen there", || {
        curl(&mesh, &["http://web-v1/"])?;
        mesh.logged("shop/waypoint-1", &["web-v1.shop"]).map(drop)
    })?;
    // For the same reason as before: one more line of it.
    let lines = || Ok::<_, anyhow::Error>(mesh.log("ztunnel-node1")?.matches("ambit_waypoint_only_web").count());
    let before = lines()?;
    ensure!(mesh.get("shop/client", &direct).is_err(), "it went around the waypoint to {direct}");
    until("the policy is why", || {
        ensure!(mesh.get("shop/client", &direct).is_err(), "it went around the waypoint to {direct}");
        ensure!(lines()? > before, "no new line says so");
        Ok(())
    })?;
    mesh.remove("gateway.yaml")?;
    mesh.pod_gone("shop/waypoint-1")?;
    until("what a route is attached to is refused again", refused)
}
