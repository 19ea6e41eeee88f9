//! Names resolve inside pods by ztunnel's DNS proxy, asked by the C library's resolver: those of the mesh are answered,
//! all others reach the name server that the node has, and its answer comes back.
//!
//! Names of services are in the pods' hosts files as well; the trials ask in forms that no hosts file has.
//!
//! The second trial was seen red when forwarded answers kept the id that ztunnel had asked with; the third without the
//! rule that gives ztunnel's own queries a conntrack zone of their own (Trap 9).
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::folder::Folder;
use e2e::harness::{SharedMesh, Suite, need_program};
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};
use std::time::Duration;

/// A name server in a pod, asked by name: `www.example.org` has an address, nothing else is there. Nothing it says may
/// be remembered.
const SERVER: &str = r"
import socket, socketserver, struct, threading

def answer(query, peer, by):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    name, kind = '.'.join(labels), query[at + 2]
    print('asked for', name, kind, 'by', peer, 'over', by, flush=True)
    known = name == 'www.example.org'
    records = b'\xc0\x0c\0\1\0\1\0\0\0\0\0\4\xc0\0\2\7' if known and kind == 1 else b''
    return (query[:2] + bytes([0x81, 0x80 if known else 0x83])
        + struct.pack('!HHHH', 1, 1 if records else 0, 0, 0) + query[12:at + 5] + records)

class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        length = self.rfile.read(2)
        if len(length) == 2:
            said = answer(self.rfile.read(struct.unpack('!H', length)[0]), self.client_address[0], 'tcp')
            self.wfile.write(struct.pack('!H', len(said)) + said)

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('0.0.0.0', 53))
socketserver.ThreadingTCPServer.allow_reuse_address = True
tcp = socketserver.ThreadingTCPServer(('0.0.0.0', 53), Tcp)
threading.Thread(target=tcp.serve_forever, daemon=True).start()
while True:
    query, peer = udp.recvfrom(4096)
    udp.sendto(answer(query, peer[0], 'udp'), peer)
";

/// Its address.
const SERVER_IP: &str = "10.244.2.53";

/// Resolves a name as any program would.
const RESOLVE: &str = "
import socket, sys
print(*sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)}))
";

/// Asks from every port that ztunnel could ask from, so that the kernel has a captured flow for each of them. Then asks
/// for what ztunnel must forward, to the same server.
const EVERY_PORT: &str = r"
import socket, sys
low, high = map(int, open('/proc/sys/net/ipv4/ip_local_port_range').read().split())
query = b'\x12\x34\1\0\0\1\0\0\0\0\0\0\6server\4shop\0\0\1\0\1'
used = 0
for port in range(low, high + 1):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
        try:
            ask.bind(('', port))
        except OSError:
            continue
        ask.settimeout(5)
        ask.connect((sys.argv[1], 53))
        ask.send(query)
        used += ask.recv(512)[7]
for _ in range(20):
    found = socket.getaddrinfo('www.example.org.', 80, socket.AF_INET, socket.SOCK_STREAM)
    assert found[0][4][0] == '192.0.2.7', found
print(used, 'of', high - low + 1)
";

pub(crate) fn trials(suite: &mut Suite, start: fn(&str, &[&str]) -> Result<Mesh>) {
    let mesh = SharedMesh::new(move || up(start));
    suite.on(&mesh, "names::a_service_is_found_by_the_names_that_a_resolver_makes", of_the_mesh);
    suite.on(&mesh, "names::what_the_mesh_does_not_know_is_asked_of_the_nodes_server", foreign);
    suite.on(&mesh, "names::ztunnels_own_queries_are_not_taken_for_the_pods", every_port);
}

fn up(start: fn(&str, &[&str]) -> Result<Mesh>) -> Result<Mesh> {
    need_program("python3")?;
    // Of use only until the mesh is up.
    let files = Folder::with("")?;
    files.write("resolv.conf", &format!("nameserver {SERVER_IP}\n"))?;
    let resolv_conf = files.file("resolv.conf").display().to_string();
    let mesh = start(
        &all(&[
            namespace("shop", true),
            namespace("outside", false),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("shop", "server", "node2").http(8080, "from the server").yaml(),
            Pod::new("outside", "dns", "node2").ip(SERVER_IP).serves(53, &["python3", "-c", SERVER]).yaml(),
            Pod::new("outside", "client", "node1").yaml(),
            service("shop", "server", "server", 80, 8080),
        ]),
        &["--resolv-conf", &resolv_conf],
    )?;
    mesh.pod_known("shop/client", true)?;
    Ok(mesh)
}

fn resolve(mesh: &Mesh, pod: &str, name: &str) -> Result<String> {
    let output = mesh.exec(pod, &["python3", "-c", RESOLVE, name])?;
    output.good().map(|text| text.trim().to_owned()).with_context(|| format!("{pod} resolves {name}"))
}

/// Captured queries of the client's node, and those of them that were forwarded.
fn counted(mesh: &Mesh) -> Result<(f64, f64)> {
    let metrics = mesh.metrics("node1")?;
    let sum = |name: &str| metrics.sum(name, &[]);
    Ok((sum("istio_dns_requests_total"), sum("istio_dns_upstream_requests_total")))
}

fn of_the_mesh(mesh: &Mesh) -> Result<()> {
    // From the hosts file: what the others must agree with.
    let address = resolve(mesh, "shop/client", "server")?;
    let before = counted(mesh)?;
    // In full; and as the search list makes it of `server.shop`, which is answered with an alias.
    for name in
        ["server.shop.svc.cluster.local.", "SERVER.shop.svc.cluster.local.", "server.shop.shop.svc.cluster.local."]
    {
        let found = until("ztunnel answers", || resolve(mesh, "shop/client", name))?;
        ensure!(found == address, "{name} is {found}, not {address}");
    }
    let body = mesh.get("shop/client", "http://server.shop.shop.svc.cluster.local/")?;
    ensure!(body == "from the server", "{body}");
    let after = counted(mesh)?;
    ensure!(after.0 >= before.0 + 4.0, "not by ztunnel: {before:?} {after:?}");
    ensure!(after.1 == before.1, "the family that it has no address of was asked for elsewhere: {before:?} {after:?}");
    // Who is not in the mesh has no part in this.
    ensure!(resolve(mesh, "outside/client", "server.shop.svc.cluster.local.").is_err());
    Ok(())
}

fn foreign(mesh: &Mesh) -> Result<()> {
    // Through the search list: four names that nobody has, then the name itself.
    let found = resolve(mesh, "shop/client", "www.example.org")?;
    ensure!(found == "192.0.2.7", "{found}");
    ensure!(resolve(mesh, "shop/client", "no.example.org").is_err(), "an absence is passed on");
    let client = mesh.ip("shop/client", false)?;
    // The server is asked from the pod's own address, as if there were no mesh.
    mesh.log_line("outside/dns", &["asked for www.example.org 1 by", &client.to_string(), "over udp"])?;
    if need_program("dig").is_ok() {
        let output = mesh.exec("shop/client", &["dig", "+tcp", "+short", "www.example.org"])?.good()?;
        ensure!(output.trim() == "192.0.2.7", "{output}");
        mesh.log_line("outside/dns", &["asked for www.example.org 1 by", &client.to_string(), "over tcp"])?;
        let all = mesh.exec("shop/client", &["dig", "+noall", "+comments", "server.shop.svc.cluster.local"])?.good()?;
        ensure!(all.contains("status: NOERROR") && all.contains("flags: qr aa rd ra;"), "{all}");
        ensure!(!all.contains("Malformed") && all.contains("EDNS: version: 0"), "{all}");
    }
    Ok(())
}

fn every_port(mesh: &Mesh) -> Result<()> {
    let limit = Duration::from_secs(120);
    let output = mesh.exec_within(limit, "shop/client", &["python3", "-c", EVERY_PORT, SERVER_IP])?.good()?;
    let words: Vec<&str> = output.split_whitespace().collect();
    let (used, ports): (u32, u32) = (words[0].parse()?, words[2].parse()?);
    // Each of the proxy's queries then met a port that the pod had asked from.
    ensure!(used * 10 > ports * 9, "{output}");
    Ok(())
}
