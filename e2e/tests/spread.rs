//! A waypoint that gets more pods gets its clients' long connections onto them, so that scaling helps.
//!
//! Seen red while ztunnel chose a pod by chance alone and connections moved by chance: after a minute one of three pods still had
//! more than 45 % of them.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("spread::more_pods_of_a_waypoint_get_their_part_of_long_connections", spread);
}

const MESH: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: waypoint-size}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: waypoint-size, namespace: shop}
data: {deployment: "{spec: {replicas: 1}}"}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: node1
  containers: [{name: client, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node2
  containers:
    - name: web
      command: [python3, -u, -c]
      args:
        - |
          import http.server
          # Says who asks: the waypoint's pod, by its address.
          class Answer(http.server.BaseHTTPRequestHandler):
              protocol_version = "HTTP/1.1"
              disable_nagle_algorithm = True
              wbufsize = -1
              def do_GET(self):
                  text = b"from %s\n" % self.client_address[0].encode()
                  self.send_response(200)
                  self.send_header("Content-Length", str(len(text)))
                  self.end_headers()
                  self.wfile.write(text)
              def log_message(self, *_):
                  pass
          class Server(http.server.ThreadingHTTPServer):
              request_queue_size = 128
          Server(("", 8080), Answer).serve_forever()
      readinessProbe: {tcpSocket: {port: 8080}}
"#;

/// 32 connections of HTTP/1.1 and 32 of HTTP/2, on each of which something is asked five times a second, and which are made anew
/// only when the other end has said that they end. It ends when it has seen three pods of the waypoint, of which none has more than
/// 45 %, or after a minute; and says how long it took since it was told of more pods, what each has, and what failed.
const CLIENT: &str = r#"
import http.client, socket, struct, sys, threading, time
EACH, LIMIT = 32, 60
at, failed, over = [None] * (2 * EACH), [], False

class Two:
    """HTTP/2 as far as it takes to ask for one thing at a time (RFC 9113). Headers of answers are not read."""
    def __init__(self):
        self.socket = socket.create_connection(("web", 80), 20)
        self.stream, self.next = self.socket.makefile("rb"), 1
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0))
    def frame(self, kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
    def get(self, path):
        text = lambda value: bytes([len(value)]) + value
        # Indexed: GET, http. Literal: the path and the authority (RFC 7541 6.2.2).
        block = b"\x82\x86" + b"\x04" + text(path) + b"\x01" + text(b"web")
        self.socket.sendall(self.frame(1, 5, self.next, block))
        body, ends = b"", False
        while True:
            head = self.stream.read(9)
            if len(head) < 9:
                raise ConnectionError("cut")
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream, payload = int.from_bytes(head[5:], "big"), self.stream.read(length)
            if kind == 0:
                body += payload
            elif kind == 3:
                raise ConnectionError("reset")
            elif kind == 4 and not flags & 1:
                self.socket.sendall(self.frame(4, 1, 0))
            elif kind == 6 and not flags & 1:
                self.socket.sendall(self.frame(6, 1, 0, payload))
            elif kind == 7:
                ends = True
                if int.from_bytes(payload[:4], "big") < self.next:
                    raise ConnectionError("refused")
            if kind in (0, 1) and stream == self.next and flags & 1:
                self.next += 2
                return body, ends

class One:
    def __init__(self):
        self.connection = http.client.HTTPConnection("web", 80, timeout=20)
    def get(self, path):
        self.connection.request("GET", path.decode())
        answer = self.connection.getresponse()
        return answer.read(), answer.headers.get("Connection") == "close"

def run(number, new):
    connection = new()
    while not over:
        try:
            body, ends = connection.get(b"/ask")
            if not body.startswith(b"from "):
                raise ValueError(body)
            at[number] = body[5:].strip().decode()
            if ends:
                connection = new()
        except Exception as error:
            failed.append(f"{number}: {error!r}")
            connection = new()
        time.sleep(0.2)

threads = [threading.Thread(target=run, args=(n, One if n < EACH else Two)) for n in range(2 * EACH)]
[thread.start() for thread in threads]
while None in at and len(failed) < 10:
    time.sleep(0.05)
One().get(b"/all-are-open")
begin = time.time()
while True:
    pods = {pod: at.count(pod) for pod in set(at)}
    even = len(pods) == 3 and max(pods.values()) <= 0.45 * len(at)
    if even or failed or time.time() - begin > LIMIT:
        break
    time.sleep(0.1)
over = True
[thread.join() for thread in threads]
print("even" if even else "uneven", f"after {time.time() - begin:.1f} s: {sorted(pods.values())}", *failed[:5])
"#;

fn spread() -> Result<()> {
    need_program("python3")?;
    let mesh = Mesh::up(MESH)?;
    spread_of(&mesh).map_err(|error| error.context(mesh.report()))
}

fn spread_of(mesh: &Mesh) -> Result<()> {
    until("the waypoint answers", || {
        mesh.get("shop/client", "http://web/seen")?;
        mesh.logged("shop/waypoint-1", &["/seen"]).map(drop)
    })?;
    std::thread::scope(|scope| {
        let client =
            scope.spawn(|| mesh.exec_within(Duration::from_secs(120), "shop/client", &["python3", "-u", "-c", CLIENT]));
        until("all connections are open", || mesh.logged("shop/waypoint-1", &["/all-are-open"]).map(drop))?;
        mesh.edit("base.yaml", "replicas: 1", "replicas: 3")?;
        for pod in ["shop/waypoint-2", "shop/waypoint-3"] {
            mesh.pod_ready(pod, false)?;
        }
        let output = client.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(output.stdout.starts_with("even "), "{}{}", output.stdout, output.stderr);
        Ok(())
    })
}
