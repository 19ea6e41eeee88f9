//! HTTP/1, HTTP/2, gRPC and WebSocket as other people's programs speak them, from ztunnel to waypoint to ztunnel: go-httpbin, fortio, grpcurl,
//! gRPC's own interop cases in Go, Python's grpcio, Node's grpc-js and ws. `e2e/partners/build FOLDER` makes them.
//!
//! Servers of gRPC are asked by address: Go's client and Node's ask DNS for more than addresses, and wait as long as a machine without name
//! servers makes them.
use crate::partners::{partner, partner_folder};
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::command::Output;
use e2e::harness::{SharedMesh, Suite, need_program, skip};
use e2e::observe::Metrics;
use e2e::until::until;
use serde_json::Value;
use std::path::Path;

pub(crate) fn trials(suite: &mut Suite) {
    let mesh = SharedMesh::new(start);
    suite.on(&mesh, "partners::grpc_s_interop_cases_pass", interop);
    suite.on(&mesh, "partners::grpcurl_asks_a_server_what_it_has", grpcurl);
    suite.on(&mesh, "partners::grpcio_and_grpc_js_call_each_other", echo);
    suite.on(&mesh, "partners::go_httpbin_is_asked_by_curl", httpbin);
    suite.on(&mesh, "partners::a_websocket_of_ws_is_echoed", websocket);
    suite.on(&mesh, "partners::fortio_loads_http1_http2_and_grpc", fortio);
}

const NAMESPACE: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("partners").join(name).display().to_string()
}

/// A pod whose programs find their libraries; with a port it is a server behind a service of its name. `port` is the service's name of it.
fn pod(name: &str, node: &str, command: &[&str], port: Option<(&str, u16)>) -> Result<String> {
    let folder = partner_folder()?;
    let probe =
        port.map(|(_, port)| format!("\n      readinessProbe: {{tcpSocket: {{port: {port}}}}}")).unwrap_or_default();
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
         containers:\n    - name: {name}\n      command: {command:?}\n      env: [{{name: PYTHONPATH, value: \"{folder}/python\"}}, \
         {{name: NODE_PATH, value: \"{folder}/node_modules\"}}]{probe}\n"
    );
    let Some((spoken, port)) = port else { return Ok(pod) };
    // Port 81 does not say what it speaks.
    Ok(format!(
        "{pod}---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: {name}}}\n  \
         ports: [{{name: {spoken}, port: 80, targetPort: {port}}}, {{name: any, port: 81, targetPort: {port}}}]\n"
    ))
}

fn start() -> Result<Mesh> {
    for program in ["curl", "python3", "node"] {
        need_program(program)?;
    }
    for library in ["python", "node_modules"] {
        let folder = Path::new(&partner_folder()?).join(library);
        if !folder.is_dir() {
            return Err(skip(&format!("{} is not there: e2e/partners/build found no pip or no npm", folder.display())));
        }
    }
    let (python, node) = (script("python/echo.py"), script("node/echo.js"));
    let (go, httpbin, fortio) = (partner("interop-server")?, partner("go-httpbin")?, partner("fortio")?);
    let yaml = [
        NAMESPACE.to_owned(),
        pod("client", "node1", &["sleep", "infinity"], None)?,
        pod("go", "node2", &[&go, "-listen", ":10000"], Some(("grpc", 10000)))?,
        pod("python", "node2", &["python3", &python, "serve", "5999"], Some(("grpc", 5999)))?,
        pod("node", "node2", &["node", &node, "serve", "5998"], Some(("grpc", 5998)))?,
        pod("httpbin", "node2", &[&httpbin, "-host", "0.0.0.0", "-port", "8080"], Some(("http", 8080)))?,
        pod("fortio", "node2", &[&fortio, "server", "-ui-path", ""], Some(("http", 8080)))?,
    ];
    let mesh = Mesh::up(&yaml.join("\n---\n"))?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    until("what is asked goes through the waypoint", || {
        mesh.get("shop/client", "http://httpbin/get")?;
        mesh.logged("shop/waypoint-1", &["httpbin.shop", "response_code=200"]).map(drop)
    })?;
    Ok(mesh)
}

fn exec(mesh: &Mesh, command: &[&str]) -> Result<Output> {
    mesh.exec("shop/client", command)
}

/// The address of a service.
fn address(mesh: &Mesh, service: &str) -> Result<String> {
    let services = mesh.status()?.services;
    let service = services.iter().find(|one| one.name == service).with_context(|| format!("no service {service}"))?;
    let address = service.ips.iter().find(|ip| ip.is_ipv4()).context("it has no address")?;
    Ok(address.to_string())
}

/// Requests to a service, as the waypoint counts them, with these labels.
fn counted(mesh: &Mesh, service: &str, labels: &[(&str, &str)]) -> Result<usize> {
    let metrics = Metrics::parse(&mesh.get("shop/waypoint-1", "http://127.0.0.1:15020/metrics")?);
    let labels: Vec<_> = labels.iter().copied().chain([("destination_service_name", service)]).collect();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is a whole number")]
    Ok(metrics.sum("istio_requests_total", &labels) as usize)
}

/// Each case, with the calls that end with 0, 2 (UNKNOWN, asked for), 12 (UNIMPLEMENTED), and those that their caller takes back.
const CASES: [(&str, [usize; 4]); 14] = [
    ("empty_unary", [1, 0, 0, 0]),
    ("large_unary", [1, 0, 0, 0]),
    ("client_streaming", [1, 0, 0, 0]),
    ("server_streaming", [1, 0, 0, 0]),
    ("ping_pong", [1, 0, 0, 0]),
    ("empty_stream", [1, 0, 0, 0]),
    ("rpc_soak", [10, 0, 0, 0]),
    ("channel_soak", [10, 0, 0, 0]),
    ("custom_metadata", [2, 0, 0, 0]),
    ("status_code_and_message", [0, 2, 0, 0]),
    ("special_status_message", [0, 1, 0, 0]),
    ("unimplemented_method", [0, 0, 1, 0]),
    ("unimplemented_service", [0, 0, 1, 0]),
    ("cancel_after_first_response", [0, 0, 0, 1]),
];

fn interop(mesh: &Mesh) -> Result<()> {
    let client = partner("interop-client")?;
    let go = address(mesh, "go")?;
    let case = |port: &str, case: &str| -> Result<()> {
        let output = exec(mesh, &[&client, "-server_host", &go, "-server_port", port, "-test_case", case])?;
        output.good().map(drop).with_context(|| format!("{case} at port {port}"))
    };
    let counts = || -> Result<[usize; 4]> {
        let of = |labels: &[(&str, &str)]| counted(mesh, "go", &[&[("request_protocol", "grpc")], labels].concat());
        let status = |status| of(&[("grpc_response_status", status), ("response_code", "200")]);
        Ok([status("0")?, status("2")?, status("12")?, of(&[("response_flags", "DC")])?])
    };
    let mut expected = counts()?;
    for port in ["80", "81"] {
        for (name, calls) in CASES {
            case(port, name)?;
            for (expected, calls) in expected.iter_mut().zip(calls) {
                *expected += calls;
            }
        }
    }
    until("the waypoint has counted how each call ended", || {
        let now = counts()?;
        ensure!(now == expected, "0, 2, 12, taken back: {now:?}, not {expected:?}");
        Ok(())
    })?;
    // How far these get before they are taken back is a race between client and server.
    case("80", "timeout_on_sleeping_server")?;
    // Go's client may be answered before it looks at its own cancellation: then the case says so, and proves nothing.
    until("a call is cancelled at its beginning", || case("80", "cancel_after_begin"))
}

fn grpcurl(mesh: &Mesh) -> Result<()> {
    let program = partner("grpcurl")?;
    let go = address(mesh, "go")? + ":80";
    let ask = |arguments: &[&str]| exec(mesh, &[&[&*program, "-plaintext"], arguments].concat());
    let listed = ask(&[&go, "list"])?.good()?;
    ensure!(listed.lines().any(|line| line == "grpc.testing.TestService"), "{listed}");
    let health = ask(&[&go, "grpc.health.v1.Health/Check"])?.good()?;
    ensure!(health.contains("\"SERVING\""), "{health}");
    let said = r#"{"responseStatus": {"code": 9, "message": "no \u00e9\n%"}}"#;
    let failed = ask(&["-format-error", "-d", said, &go, "grpc.testing.TestService/UnaryCall"])?;
    let status: Value = serde_json::from_str(&failed.stderr).with_context(|| failed.stderr.clone())?;
    ensure!(status["code"] == 9 && status["message"] == "no \u{e9}\n%", "{status}");
    Ok(())
}

/// What a client that checks for itself says that it has checked.
fn checks(output: Output) -> Result<usize> {
    let said = output.good()?;
    said.trim().strip_suffix(" checks").and_then(|n| n.parse().ok()).with_context(|| format!("it says {said:?}"))
}

fn echo(mesh: &Mesh) -> Result<()> {
    let cancelled = |server: &str| anyhow::Ok(mesh.log(&format!("shop/{server}"))?.matches("sleep: cancelled").count());
    for server in ["python", "node"] {
        let to = address(mesh, server)? + ":80";
        let before = cancelled(server)?;
        for command in [["python3", &*script("python/echo.py")], ["node", &*script("node/echo.js")]] {
            let output = exec(mesh, &[&command[..], &["call", &to]].concat())?;
            let checks = checks(output).with_context(|| format!("{} asks {server}", command[0]))?;
            ensure!(checks >= 40, "{checks} checks of {} at {server}", command[0]);
        }
        // A cancellation of each reaches the server. Of a deadline it knows by itself, and grpcio's does not always tell its method.
        until("the server knows of calls that were taken back", || {
            let now = cancelled(server)? - before;
            ensure!(now == 2, "{now} of 2 at {server}");
            Ok(())
        })?;
    }
    Ok(())
}

fn websocket(mesh: &Mesh) -> Result<()> {
    let output = exec(
        mesh,
        &["node", &script("node/websocket.js"), &format!("ws://{}/websocket/echo", address(mesh, "httpbin")?)],
    )?;
    ensure!(checks(output)? == 106);
    mesh.log_line("shop/waypoint-1", &["/websocket/echo", "response_code=101"]).map(drop)
}

/// Status line and headers of the last answer in small letters, and its body.
fn curl(mesh: &Mesh, arguments: &[&str]) -> Result<(String, String)> {
    let output = exec(mesh, &[&["curl", "-sS", "-m", "20", "-i"], arguments].concat())?;
    let said = output.good().with_context(|| format!("{arguments:?}"))?.replace("\r\n", "\n");
    let mut rest = &*said;
    loop {
        let (head, body) = rest.split_once("\n\n").with_context(|| format!("{arguments:?}: {said}"))?;
        if body.starts_with("HTTP/") {
            rest = body;
            continue;
        }
        return Ok((head.to_lowercase(), body.to_owned()));
    }
}

fn httpbin(mesh: &Mesh) -> Result<()> {
    let big = mesh.folder.file("big.bin");
    std::fs::write(&big, vec![b'x'; 10_000_000])?;
    let big = format!("@{}", big.display());
    let sent = ["-H", "X-Thing: a, b", "-H", "x-thing: c", "-d", "hi", "http://httpbin/anything?q=%20a"];
    let (head, body) = curl(mesh, &sent)?;
    let seen: Value = serde_json::from_str(&body).with_context(|| format!("{head}\n{body}"))?;
    let expected = (serde_json::json!(["a, b", "c"]), "hi", " a");
    let got = (seen["headers"]["X-Thing"].clone(), seen["data"].as_str(), seen["args"]["q"][0].as_str());
    ensure!(got == (expected.0, Some(expected.1), Some(expected.2)), "{seen}");
    // (what, more of the command, what the head begins with, what it has, bytes of the body or what it has)
    let te = "te: trailers";
    for (what, arguments, status, has, body) in [
        (
            "expected",
            &["-H", "Expect: 100-continue", "-d", "hi", "http://httpbin/post"][..],
            "http/1.1 200",
            "",
            "\"hi\"",
        ),
        ("closed", &["-H", "Connection: close", "http://httpbin/get"], "http/1.1 200", "connection: close", "origin"),
        ("HTTP/1.0", &["--http1.0", "http://httpbin/stream/2"], "http/1.", "", "\"id\":1"),
        ("no content", &["http://httpbin/status/204"], "http/1.1 204", "", ""),
        ("not modified", &["http://httpbin/status/304"], "http/1.1 304", "", ""),
        ("head", &["-I", "http://httpbin/bytes/100"], "http/1.1 200", "content-length: 100", ""),
        (
            "head over HTTP/2",
            &["--http2-prior-knowledge", "-I", "http://httpbin/bytes/100"],
            "http/2 200",
            "content-length: 100",
            "",
        ),
        ("redirected", &["-L", "http://httpbin/redirect/3"], "http/1.1 200", "", "http://httpbin/get"),
        ("redirect", &["http://httpbin/redirect/3"], "http/1.1 302", "location: /relative-redirect/2", ""),
        (
            "compressed",
            &["--compressed", "http://httpbin/gzip"],
            "http/1.1 200",
            "content-encoding: gzip",
            "\"gzipped\": true",
        ),
        ("chunks", &["http://httpbin/stream/3"], "http/1.1 200", "transfer-encoding: chunked", "\"id\":2"),
        (
            "drops",
            &["http://httpbin/drip?duration=1&numbytes=10&delay=0"],
            "http/1.1 200",
            "content-length: 10",
            "**********",
        ),
        (
            "trailers",
            &["--raw", "-H", te, "http://httpbin/trailers?some=thing"],
            "http/1.1 200",
            "trailer: some",
            "\nsome: thing",
        ),
        (
            "trailers over HTTP/2",
            &["--http2-prior-knowledge", "-H", te, "http://httpbin/trailers?some=thing"],
            "http/2 200",
            "",
            "\nsome: thing",
        ),
        (
            "an early answer",
            &["-H", "Expect:", "--data-binary", &big, "http://httpbin/status/413"],
            "http/1.1 413",
            "",
            "",
        ),
        ("a teapot", &["http://httpbin/status/418"], "http/1.1 418", "", "teapot"),
    ] {
        let (head, got) = curl(mesh, arguments).context(what)?;
        ensure!(head.starts_with(status) && head.contains(has), "{what}: {head}\n{got}");
        ensure!(
            if body.is_empty() { got.trim().is_empty() || what == "redirect" } else { got.contains(body) },
            "{what}: {head}\n{got}"
        );
    }
    // What ended with trailers has ended: nobody was gone.
    until("all are reported as they ended", || {
        mesh.logged("shop/waypoint-1", &["/status/418", "response_code=418"])?;
        let gone = counted(mesh, "httpbin", &[("response_flags", "DC")])?;
        ensure!(gone == 0, "{gone} are said to have lost their callers");
        Ok(())
    })
}

/// What fortio was answered, and how often: all of it well.
fn load(mesh: &Mesh, arguments: &[&str], answered: &str) -> Result<usize> {
    let program = partner("fortio")?;
    let command = [&[&*program, "load", "-json", "-", "-quiet", "-t", "2s", "-qps", "0"], arguments].concat();
    let output = exec(mesh, &command)?;
    let report: Value = serde_json::from_str(&output.clone().good()?).with_context(|| output.stderr.clone())?;
    let asked = report["DurationHistogram"]["Count"].as_u64().context("no count")?;
    let well = report["RetCodes"] == serde_json::json!({answered: asked});
    ensure!(well && asked >= 100 && report["ErrorsDurationHistogram"]["Count"] == 0, "{arguments:?}: {report}");
    Ok(usize::try_from(asked)?)
}

fn fortio(mesh: &Mesh) -> Result<()> {
    let go = address(mesh, "go")? + ":80";
    for (service, protocol, arguments, answered) in [
        ("fortio", "HTTP/1.1", &["-c", "8", "http://fortio/one?size=2000"][..], "200"),
        ("fortio", "HTTP/1.1", &["-c", "4", "-keepalive=false", "http://fortio/fresh"], "200"),
        ("fortio", "HTTP/1.1", &["-c", "4", "-stdclient", "-payload-size", "5000", "http://fortio/std"], "200"),
        ("fortio", "HTTP/2", &["-c", "4", "-h2", "-stdclient", "http://fortio:81/two"], "200"),
        ("go", "HTTP/2", &["-c", "2", "-s", "4", "-grpc", &go], "SERVING"),
    ] {
        let [all, well]: [&[(&str, &str)]; 2] = match service {
            "go" => [&[], &[("grpc_response_status", "0"), ("response_code", "200"), ("response_flags", "-")]],
            _ => [&[], &[("response_code", "200"), ("response_flags", "-")]],
        };
        let counts = || anyhow::Ok((counted(mesh, service, all)?, counted(mesh, service, well)?));
        let before = counts()?;
        let asked = load(mesh, arguments, answered)?;
        until("the waypoint has counted all of them, and no failure", || {
            let now = counts()?;
            let (all, well) = (now.0 - before.0, now.1 - before.1);
            // Each connection asks once more, before it is counted.
            ensure!(all == well && (asked..=asked + 8).contains(&well), "{asked} asked: {all} counted, {well} well");
            Ok(())
        })?;
        let path = arguments.last().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
        let path = if service == "go" { "Health/Check" } else { path };
        mesh.logged("shop/waypoint-1", &[path, &format!("protocol=\"{protocol}\"")])?;
    }
    Ok(())
}
