//! A mesh that several files share: two namespaces in the mesh, one outside of it, on two nodes.
use anyhow::Result;
use e2e::Mesh;
use e2e::harness::SharedMesh;
use e2e::yaml::{Pod, all, namespace, service, service_v6};

/// Started by the first trial that needs it, by `up`.
pub(crate) fn shared(up: fn(&str) -> Result<Mesh>) -> SharedMesh {
    SharedMesh::new(move || up(&yaml()))
}

fn yaml() -> String {
    let spread = |name: &str, node: &str| Pod::new("shop", name, node).label("app", "spread").http(8080, name).yaml();
    all(&[
        namespace("shop", true),
        namespace("other", true),
        namespace("outside", false),
        Pod::new("shop", "web", "node2").http(8080, "web").http(8081, "admin").peer().serves(9000, &HELLO).yaml(),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "thief", "node1").yaml(),
        Pod::new("shop", "neighbour", "node2").yaml(),
        Pod::new("other", "client", "node1").yaml(),
        Pod::new("outside", "client", "node1").yaml(),
        Pod::new("outside", "server", "node2").http(8080, "outside").yaml(),
        service("shop", "web", "web", 80, 8080),
        service_v6("shop", "web6", "web", 80, 8080),
        service("outside", "server", "server", 80, 8080),
        spread("spread-1", "node1"),
        spread("spread-2", "node2"),
        spread("spread-3", "node2"),
        service("shop", "spread", "spread", 80, 8080),
    ])
}

/// A server that speaks first.
const HELLO: [&str; 7] = ["ambit", "tool", "tcp-hello", "--port", "9000", "--text", "who is there"];
