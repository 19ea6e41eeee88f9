//! Waypoints with programs of other people's making, as `e2e/partners/build FOLDER` puts them into `AMBIT_TEST_PARTNERS`: whom a waypoint
//! asks, and whom it reports to.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program, skip};
use e2e::until::until;
use std::path::Path;

/// Names the folder.
const FOLDER: &str = "AMBIT_TEST_PARTNERS";

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("partners::istio_s_sample_authorizer_decides_over_grpc_and_http", authorizer);
    suite.trial("partners::envoy_s_rate_limit_service_counts_in_redis", rate_limits);
    suite.trial("partners::the_opentelemetry_collector_takes_spans", spans);
}

/// Where the programs are.
///
/// # Errors
/// [`skip`], where nobody says.
pub(crate) fn partner_folder() -> Result<String> {
    std::env::var(FOLDER).map_err(|_| skip(&format!("{FOLDER} names no folder: e2e/partners/build FOLDER")))
}

/// One of the programs.
///
/// # Errors
/// [`skip`], as [`partner_folder`]; it is not there.
pub(crate) fn partner(name: &str) -> Result<String> {
    let folder = partner_folder()?;
    let program = Path::new(&folder).join(name);
    ensure!(program.is_file(), "{} is not there: e2e/partners/build {folder}", program.display());
    Ok(program.display().to_string())
}

fn example(name: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}/{name}.yaml"));
    std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))
}

/// An example whose pod of this name is another.
fn with_pod(example: &str, name: &str, pod: &str) -> Result<String> {
    let is_it = |one: &&str| one.contains("kind: Pod\n") && one.contains(&format!("metadata: {{name: {name},"));
    ensure!(example.split("\n---\n").filter(is_it).count() == 1, "the example has no pod {name}");
    let documents = example.split("\n---\n").filter(|document| !is_it(document));
    Ok(documents.chain([pod]).collect::<Vec<_>>().join("\n---\n"))
}

/// A pod of one program, ready when it takes connections.
fn pod(namespace: &str, name: &str, command: &[&str], environment: &[(&str, &str)], port: u16) -> String {
    let variables: Vec<String> =
        environment.iter().map(|(name, value)| format!("{{name: {name}, value: {value:?}}}")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec:\n  \
         nodeName: node1\n  containers:\n    - name: {name}\n      command: {command:?}\n      env: [{}]\n      \
         readinessProbe: {{tcpSocket: {{port: {port}}}}}\n",
        variables.join(", ")
    )
}

/// Status, what the authorizer says of itself, and the body of an answer to the client.
fn ask(mesh: &Mesh, path: &str, with: &[&str]) -> Result<(String, String, String)> {
    let url = format!("http://web{path}");
    let format = "\n%{http_code}|%header{x-ext-authz-check-result}";
    let mut command = vec!["curl", "-sS", "-m", "10", "-w", format];
    command.extend(with);
    command.push(&url);
    let output = mesh.exec("shop/client", &command)?;
    let (body, rest) = output.stdout.rsplit_once('\n').unwrap_or_default();
    let (status, result) = rest.split_once('|').unwrap_or_default();
    ensure!(status != "000" && !status.is_empty(), "no answer: {}", output.stderr);
    Ok((status.to_owned(), result.to_owned(), body.trim_end().to_owned()))
}

fn authorizer() -> Result<()> {
    const MALLORY: [&str; 2] = ["-H", "x-user: mallory"];
    const ALLOWED: [&str; 4] = ["-H", "x-user: mallory", "-H", "x-ext-authz: allow"];
    need_program("curl")?;
    let program = partner("extauthz")?;
    let example = example("external-authorization")?;
    let mesh = Mesh::up(&with_pod(&example, "ext-authz", &pod("shop", "ext-authz", &[&program], &[], 9000))?)?;
    let expect = |path: &str, with: &[&str], expected: (&str, &str, &str)| {
        let (status, result, body) = ask(&mesh, path, with)?;
        let body = if expected.2.is_empty() { "" } else { &*body };
        ensure!((&*status, &*result, body) == expected, "{path} {with:?}: {status} {result:?} {body}");
        Ok(())
    };
    let denied = "denied by ext_authz for not found header `x-ext-authz: allow` in the request";
    until("it is asked over HTTP", || expect("/admin", &ALLOWED, ("200", "", "/admin for mallory")))?;
    expect("/admin", &MALLORY, ("403", "denied", denied))?;
    expect("/", &MALLORY, ("200", "", "/ for mallory"))?;
    // And over gRPC: Envoy's Check, of which it allows whatever service account `a` asks, too.
    let http = &example[example.find("      envoyExtAuthzHttp:").context("a provider in the example")?..];
    let http = &http[..http.find("---").context("its end")?];
    let grpc = "      envoyExtAuthzGrpc: {service: ext-authz.shop.svc.cluster.local, port: 9000}\n";
    mesh.edit("base.yaml", http, grpc)?;
    until("it is asked over gRPC", || {
        expect("/admin", &ALLOWED, ("200", "", ""))?;
        mesh.logged("shop/ext-authz", &["[gRPCv3][allowed]", "/sa/default"]).map(drop)
    })?;
    expect("/admin", &MALLORY, ("403", "denied", denied))?;
    expect("/", &MALLORY, ("200", "", "/ for mallory"))
}

/// Three a day for each caller, as the service's own configuration says.
const LIMITS: &str = "\
domain: shop
descriptors:
  - key: caller
    rate_limit: {unit: day, requests_per_unit: 3}
";

const SERVICES: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: limits, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: ratelimit, namespace: limits}
spec:
  selector: {app: ratelimit}
  ports: [{name: grpc, port: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: redis, namespace: limits}
spec:
  selector: {app: redis}
  ports: [{name: tcp, port: 6379}]
";

/// How many pass is said there, and counted in redis, by the identity that the caller has proven to the waypoint.
fn rate_limits() -> Result<()> {
    need_program("curl")?;
    let (service, redis) = (partner("ratelimit")?, partner("redis-server")?);
    let runtime = tempfile::tempdir()?;
    std::fs::create_dir(runtime.path().join("config"))?;
    std::fs::write(runtime.path().join("config/shop.yaml"), LIMITS)?;
    let environment = [
        ("USE_STATSD", "false"),
        ("LOG_LEVEL", "debug"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", "redis.limits.svc.cluster.local:6379"),
        ("RUNTIME_ROOT", &*runtime.path().display().to_string()),
        ("RUNTIME_WATCH_ROOT", "false"),
    ];
    let example = example("rate-limit")?;
    let local = &example[example.find("    local:\n").context("a limit in the example")?..];
    let local = &local[..local.find("---").context("its end")?];
    let global = "    global:\n      - name: daily\n        service: {name: ratelimit, namespace: limits, port: 8081}\n        \
                  domain: shop\n        timeout: 2s\n        failureMode: Deny\n        descriptors:\n          \
                  - entries: [{key: caller, type: CallerIdentity}]\n";
    let yaml = [
        &*example.replacen(local, global, 1),
        SERVICES,
        &pod(
            "limits",
            "redis",
            &[&redis, "--port", "6379", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"],
            &[],
            6379,
        ),
        &pod("limits", "ratelimit", &[&service], &environment, 8081),
    ];
    let mesh = Mesh::up(&yaml.join("\n---\n"))?;
    let status = |who: &str| -> Result<String> {
        let format = "%{http_code} %header{x-envoy-ratelimited}";
        let command = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", format, "http://web/"];
        Ok(mesh.exec(&format!("shop/{who}"), &command)?.stdout.trim().to_owned())
    };
    let mut passed = 0;
    until("the caller is over its limit", || match &*status("busy")? {
        "200" => {
            passed += 1;
            ensure!(false, "{passed} have passed");
            Ok(())
        }
        "429 true" => Ok(()),
        other => anyhow::bail!("{other}"),
    })?;
    ensure!(passed == 3, "{passed} passed, not 3");
    mesh.log_line(
        "shop/waypoint-1",
        &["response_code=429", "reason=\"RATE_LIMITED\"", "daily of TrafficPolicy shop/fair"],
    )?;
    mesh.log_line("limits/ratelimit", &["spiffe://cluster.local/ns/shop/sa/busy"])?;
    ensure!(status("calm")? == "200", "the other identity is limited, too");
    Ok(())
}

/// Both spans of a request are in the collector's log, with the trace that the application was told of.
fn spans() -> Result<()> {
    for program in ["python3", "curl"] {
        need_program(program)?;
    }
    let program = partner("collector")?;
    let configuration = "yaml:{receivers: {otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317'}}}}, \
                         exporters: {debug: {verbosity: detailed}}, \
                         service: {telemetry: {metrics: {level: none}}, \
                         pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}}";
    let collector = pod("telemetry", "collector", &[&program, "--config", configuration], &[], 4317);
    let mesh = Mesh::up(&with_pod(&example("tracing")?, "collector", &collector)?)?;
    let mut trace = String::new();
    until("the application is told of a trace", || {
        let told = mesh.exec("shop/client", &["curl", "-sS", "-m", "10", "-H", "x-user: ann", "http://web/"])?.stdout;
        let parent = told.lines().find_map(|line| line.strip_prefix("traceparent: 00-")).context("no traceparent")?;
        trace = parent.split('-').next().unwrap_or_default().to_owned();
        Ok(())
    })?;
    until("the collector has both spans", || {
        let log = mesh.log("telemetry/collector")?;
        let spans: Vec<&str> = log.split("\nSpan #").filter(|span| span.contains(&trace)).collect();
        for kind in ["Kind           : Server", "Kind           : Client"] {
            ensure!(spans.iter().any(|span| span.contains(kind)), "no {kind} of {trace}: {log}");
        }
        for attribute in
            ["-> istio.source_principal: Str(spiffe://cluster.local/ns/shop/sa/default)", "-> user: Str(ann)"]
        {
            ensure!(spans.iter().any(|span| span.contains(attribute)), "no {attribute}: {log}");
        }
        Ok(())
    })
}
