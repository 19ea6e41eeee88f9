//! Requests through a waypoint while everything about it changes: routes edited a hundred times, backends replaced, the control
//! plane killed, the namespace taken away from the waypoint and given back. Not one fails, and none is tried twice.
//!
//! Seen red when a waypoint refused at once what it did not serve any more: 23 of 18,355 requests (WRONG_DESTINATION).
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use rustix::process::Signal;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("route_churn::ten_thousand_requests_and_not_one_fails", churn);
}

/// Edits of the route while requests are made.
const EDITS: usize = 100;
/// How long the requests may take, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(150);

/// A server that takes leave as one should: it says that its connections end, and ends when nobody is left.
pub(crate) fn server(name: &str, version: &str, node: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: web, version: {version}}}}}
spec:
  nodeName: {node}
  serviceAccountName: web
  containers:
    - name: web
      command: [python3, -u, -c]
      args:
        - |
          import http.server, os, signal, threading
          leaving = threading.Event()
          class Answer(http.server.BaseHTTPRequestHandler):
              protocol_version = "HTTP/1.1"
              disable_nagle_algorithm = True
              wbufsize = -1
              def do_GET(self):
                  body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                  text = b"%s %d\n" % (b"{name}", len(body))
                  self.send_response(200)
                  self.send_header("Content-Length", str(len(text)))
                  if leaving.is_set():
                      self.send_header("Connection", "close")
                  self.end_headers()
                  self.wfile.write(text)
              do_POST = do_GET
              def log_message(self, *_):
                  pass
          def leave(*_):
              leaving.set()
              threading.Timer(4, lambda: os._exit(0)).start()
          signal.signal(signal.SIGTERM, leave)
          class Server(http.server.ThreadingHTTPServer):
              request_queue_size = 128
          Server(("", 8080), Answer).serve_forever()
      readinessProbe: {{tcpSocket: {{port: 8080}}}}
"#
    )
}

const REST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-v2, namespace: shop}
spec: {selector: {app: web, version: v2}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: node1
  containers: [{name: client, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: web-v1, namespace: shop}
spec: {selector: {app: web, version: v1}, ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

fn route(weight: usize) -> String {
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs: [{{group: "", kind: Service, name: web}}]
  rules:
    - name: all
      backendRefs: [{{name: web-v1, port: 80, weight: {weight}}}, {{name: web-v2, port: 80, weight: 10}}]
"#
    )
}

/// Sixteen connections that ask one request after the other, every fourth a POST of 20 KB, until they have asked so many and
/// for so long, or until a file is there. It prints how many, and each that failed. Connections that the other end ends in order are made anew.
pub(crate) const CLIENT: &str = r#"
import http.client, os, sys, threading, time
least, seconds, until = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
end, asked, failed, lock = time.time() + seconds, 0, [], threading.Lock()
def run(number):
    global asked
    connection = http.client.HTTPConnection("web", 80, timeout=20)
    turn = 0
    more = lambda: asked < least or not os.path.exists(until) if until else asked < least or time.time() < end
    while more() and len(failed) < 10:
        turn += 1
        try:
            if turn % 4:
                connection.request("GET", f"/{number}/{turn}")
            else:
                connection.request("POST", f"/{number}/{turn}", b"x" * 20_000)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or not body.startswith(b"web-v") or (turn % 4 == 0 and not body.endswith(b" 20000\n")):
                failed.append(f"{number}/{turn}: {answer.status} {body[:200]}")
        except Exception as error:
            failed.append(f"{number}/{turn}: {error!r}")
            connection.close()
        with lock:
            asked += 1
threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(asked, len(failed), *failed[:10], sep="\n")
"#;

fn churn() -> Result<()> {
    for program in ["python3", "curl", "h2load"] {
        need_program(program)?;
    }
    let mesh = Mesh::up(&[REST, &server("web-v1", "v1", "node1")].join("\n---\n"))?;
    churn_of(&mesh).map_err(|error| error.context(mesh.report()))
}

fn churn_of(mesh: &Mesh) -> Result<()> {
    mesh.apply("second.yaml", &server("web-v2", "v2", "node2"))?;
    mesh.apply("route.yaml", &route(90))?;
    mesh.pod_ready("shop/web-v2", true)?;
    uses(mesh, true)?;
    until("the waypoint answers", || {
        mesh.get("shop/client", "http://web/seen")?;
        mesh.logged("shop/waypoint-1", &["web.shop", "/seen"]).map(drop)
    })?;
    let over = mesh.folder.file("over");
    let over_there = over.to_str().context("its name is no text")?;
    std::thread::scope(|scope| {
        let http1 = scope.spawn(|| {
            let asked = ["python3", "-c", CLIENT, "10000", "0", over_there];
            mesh.exec_within(LIMIT, "shop/client", &asked)
        });
        let changed = changes(mesh);
        let early = http1.is_finished();
        std::fs::write(&over, "")?;
        let output = http1.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        let mut lines = output.stdout.lines();
        let mut number = || lines.next().and_then(|line| line.parse::<usize>().ok()).context("no number");
        let (asked, failed) = (number()?, number()?);
        ensure!(failed == 0 && asked >= 10_000, "{failed} of {asked} failed: {}{}", output.stdout, output.stderr);
        changed?;
        ensure!(!early, "the requests were over before the changes were: they prove too little");
        Ok(())
    })
}

/// All that is changed while they ask. HTTP/2 is asked for by a client that ends by itself, for a part of it.
fn changes(mesh: &Mesh) -> Result<()> {
    let mut weight = 90;
    let mut edit = |times: usize| -> Result<()> {
        for _ in 0..times {
            weight = if weight == 90 { 10 } else { 90 };
            mesh.apply("route.yaml", &route(weight))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let http2 = scope.spawn(|| {
            // Each of four connections asks two requests at a time.
            let asked = ["h2load", "-D", "12", "-c", "4", "-m", "2", "http://web/two"];
            mesh.exec_within(LIMIT, "shop/client", &asked)
        });
        edit(EDITS / 2)?;
        mesh.restart("istiod-lite", Signal::KILL)?;
        // A backend is replaced as a Deployment does it: the new one is ready before the old one leaves.
        mesh.apply("third.yaml", &server("web-v2b", "v2", "node1"))?;
        mesh.pod_ready("shop/web-v2b", true)?;
        mesh.remove("second.yaml")?;
        let output = http2.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        let says = |words: &str| output.stdout.lines().any(|line| line.contains(words));
        let (good, all) = (says("0 failed, 0 errored, 0 timeout"), says(" 2xx, 0 3xx, 0 4xx, 0 5xx"));
        ensure!(good && all && !says("codes: 0 2xx"), "HTTP/2: {}{}", output.stdout, output.stderr);
        anyhow::Ok(())
    })?;
    uses(mesh, false)?;
    edit(EDITS / 4)?;
    uses(mesh, true)?;
    edit(EDITS / 4)?;
    mesh.restart("istiod-lite", Signal::TERM)
}

/// Gives the namespace to the waypoint, or takes it away.
fn uses(mesh: &Mesh, on: bool) -> Result<()> {
    let (from, to) = ("mode: ambient}", "mode: ambient, istio.io/use-waypoint: waypoint}");
    if on { mesh.edit("base.yaml", from, to) } else { mesh.edit("base.yaml", to, from) }
}
