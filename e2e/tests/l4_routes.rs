//! A waypoint sends what is no HTTP where TCPRoutes and TLSRoutes say, and reads no more of it than the name that is asked for.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("l4_routes::a_tcp_route_splits_connections", tcp);
    suite.trial("l4_routes::a_tls_route_follows_the_server_name", tls);
}

fn up(name: &str) -> Result<Mesh> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}/{name}.yaml"));
    let mesh = Mesh::up(&std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    Ok(mesh)
}

/// Connects many times, one after the other, says a word on each and prints what comes back until the server has ended.
const DIAL: &str = r#"
import socket, sys
for _ in range(int(sys.argv[1])):
    try:
        with socket.create_connection(("db", 5432), 10) as db:
            db.sendall(b"hello\n")
            db.shutdown(socket.SHUT_WR)
            said = b""
            while more := db.recv(4096):
                said += more
            print(said.decode().replace("\n", "|") or "closed")
    except OSError:
        print("closed")
"#;

/// How many of 60 connections of a pod came to each version, and how many were closed without a word.
fn versions(mesh: &Mesh, pod: &str) -> Result<[usize; 3]> {
    let output = mesh.exec(pod, &["python3", "-c", DIAL, "60"])?.good()?;
    let count = |line: &str| output.lines().filter(|one| *one == line).count();
    let counts = ["db-v1 ready|hello|", "db-v2 ready|hello|", "closed"].map(count);
    ensure!(counts.iter().sum::<usize>() == 60, "{output}");
    Ok(counts)
}

fn tcp() -> Result<()> {
    need_program("python3")?;
    let mesh = up("tcp-route")?;
    // Before the route is followed, connections go to the service itself: to either version, as it comes.
    mesh.edit("base.yaml", "port: 5432, weight: 20}", "port: 5432, weight: 0}")?;
    until("all connections go to the one backend that has a weight", || {
        let [old, new, closed] = versions(&mesh, "shop/client")?;
        ensure!((old, new, closed) == (60, 0, 0), "{old} to v1, {new} to v2, {closed} closed");
        Ok(())
    })?;
    mesh.log_line("shop/waypoint-1", &["connection complete", "dst.workload=\"db-v1\""])?;
    mesh.edit("base.yaml", "port: 5432, weight: 80}", "port: 5432, weight: 1}")?;
    mesh.edit("base.yaml", "port: 5432, weight: 0}", "port: 5432, weight: 1}")?;
    until("both versions have their share", || {
        let [old, new, closed] = versions(&mesh, "shop/client")?;
        // By chance: fewer than 10 of 60 once in 10^7 times.
        ensure!(old >= 10 && new >= 10 && closed == 0, "{old} to v1, {new} to v2, {closed} closed");
        Ok(())
    })?;
    // The share of the backend that a policy keeps him from is closed to him.
    let [old, new, closed] = versions(&mesh, "shop/intern")?;
    ensure!(old >= 10 && new == 0 && closed >= 10, "{old} to v1, {new} to v2, {closed} closed");
    mesh.log_line("shop/waypoint-1", &["POLICY_DENIED", "shop/not-the-intern"])?;
    // So is the share of one that is not there; and the route's author is told.
    mesh.edit("base.yaml", "{name: db-v2, port: 5432, weight: 1}", "{name: db-v3, port: 5432, weight: 1}")?;
    until("the share of a backend that is not there is closed", || {
        let [old, new, closed] = versions(&mesh, "shop/client")?;
        ensure!(old >= 10 && new == 0 && closed >= 10, "{old} to v1, {new} to v2, {closed} closed");
        Ok(())
    })?;
    mesh.log_line("shop/waypoint-1", &["NO_BACKEND", "canary of route shop/db", "there is no Service shop/db-v3"])?;
    until("the route's author is told", || {
        let status = format!("{:?}", mesh.status()?.policies);
        ensure!(status.contains("there is no Service shop/db-v3: its share of the connections is refused"), "{status}");
        Ok(())
    })?;
    // Without it, to the service itself again.
    mesh.edit("base.yaml", "kind: Service, name: db, port: 5432}]", "kind: Service, name: db-v1, port: 5432}]")?;
    until("without a route connections go to the service itself", || {
        let [old, new, closed] = versions(&mesh, "shop/client")?;
        ensure!(old > 0 && new > 0 && closed == 0, "{old} to v1, {new} to v2, {closed} closed");
        Ok(())
    })
}

/// What a server says that speaks TLS itself: body and exit code.
fn curl(mesh: &Mesh, arguments: &[&str]) -> Result<(i32, String)> {
    let command = [&["curl", "-sSk", "-m", "10", "--connect-to", "::front:443"], arguments].concat();
    let output = mesh.exec("shop/client", &command)?;
    Ok((output.code, output.stdout.trim_end().to_owned()))
}

fn tls() -> Result<()> {
    for program in ["python3", "openssl", "curl"] {
        need_program(program)?;
    }
    let mesh = up("tls-route")?;
    until("the routes are followed", || {
        let answer = curl(&mesh, &["https://orders.example.com/"])?;
        ensure!(answer == (0, "orders answers for orders.example.com".to_owned()), "{answer:?}");
        Ok(())
    })?;
    for (name, server) in [("stock", "rest"), ("a.b", "rest"), ("ORDERS", "orders")] {
        let (code, body) = curl(&mesh, &[&format!("https://{name}.example.com/")])?;
        ensure!(code == 0 && body.starts_with(&format!("{server} answers for ")), "{name}: {code} {body}");
    }
    // The server's own certificate, not one of the mesh.
    let shown = ["openssl", "s_client", "-connect", "front:443", "-servername", "orders.example.com", "-brief"];
    let output = mesh.exec("shop/client", &["sh", "-c", &format!("{} < /dev/null", shown.join(" "))])?;
    let said = output.stdout + &output.stderr;
    ensure!(said.contains("CN = orders") || said.contains("CN=orders"), "{said}");
    for (what, arguments, words) in [
        ("a name of no route", &["https://example.org/"][..], ["NO_ROUTE", "is for the server name example.org"]),
        ("no name", &["https://192.0.2.1/"], ["NO_ROUTE", "has no server name (SNI)"]),
        ("no TLS", &["http://orders.example.com/"], ["NO_CLIENT_HELLO", "what came is no ClientHello"]),
    ] {
        let (code, body) = curl(&mesh, arguments)?;
        ensure!(code != 0 && body.is_empty(), "{what}: {code} {body}");
        mesh.log_line("shop/waypoint-1", &words)?;
    }
    // An edit is followed.
    mesh.edit("base.yaml", "hostnames: [orders.example.com]", "hostnames: [example.org]")?;
    until("the edited names are followed", || {
        for (name, server) in [("example.org", "orders"), ("orders.example.com", "rest")] {
            let answer = curl(&mesh, &[&format!("https://{name}/")])?;
            ensure!(answer == (0, format!("{server} answers for {name}")), "{answer:?}");
        }
        Ok(())
    })
}
