//! Services and their endpoints are the same for everybody: for a pod in the mesh, which ztunnel serves, and for one outside
//! of it, which has a hosts file and its node's translation of service addresses.
//!
//! Each rule has a table of its own elsewhere (`istiod-lite/tests/services.rs`, `ztunnel/src/dns/answer/tests.rs`); here
//! they are seen to arrive.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::{SharedMesh, Suite, need_program};
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};
use std::collections::BTreeSet;

/// In the mesh, in another namespace than the services that give it.
const VAULT: &str = "10.244.2.30";
const WEB: &str = "10.244.2.20";
const CLIENTS: [&str; 2] = ["shop/client", "outside/client"];

/// Resolves a name as any program would.
const RESOLVE: &str = "
import socket, sys
print(*sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)}))
";

pub(crate) fn trials(suite: &mut Suite, start: fn(&str, &[&str]) -> Result<Mesh>) {
    let mesh = SharedMesh::new(move || up(start));
    suite.on(&mesh, "services::a_pod_has_its_name_below_a_headless_service", names);
    suite.on(&mesh, "services::a_name_that_is_another_name_is_followed", other_names);
    suite.on(&mesh, "services::a_given_address_of_a_pod_is_that_pod", given);
    suite.on(&mesh, "services::a_client_keeps_to_one_endpoint", affinity);
}

fn up(start: fn(&str, &[&str]) -> Result<Mesh>) -> Result<Mesh> {
    need_program("python3")?;
    let given = format!(
        r#"---
{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}, spec: {{clusterIP: None, ipFamilies: [IPv4], selector: {{app: web-0}}, ports: [{{name: http, port: 8080}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: other, namespace: shop}}, spec: {{type: ExternalName, externalName: front.shop.svc.cluster.local}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: given, namespace: shop}}, spec: {{ports: [{{name: http, port: 80}}]}}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: given-1, namespace: shop, labels: {{kubernetes.io/service-name: given}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [{VAULT}]}}, {{addresses: [{WEB}], conditions: {{ready: false}}}}]
---
{{apiVersion: v1, kind: Service, metadata: {{name: old, namespace: shop}}, spec: {{ports: [{{name: http, port: 80}}]}}}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: old, namespace: shop}}
subsets: [{{addresses: [{{ip: {VAULT}}}], ports: [{{name: http, port: 8080}}]}}]
---
{{apiVersion: v1, kind: Service, metadata: {{name: kept, namespace: shop}}, spec: {{sessionAffinity: ClientIP, selector: {{kept: "yes"}}, ports: [{{port: 80, targetPort: 8080}}]}}}}
"#
    );
    let kept = |name: &str, node| Pod::new("shop", name, node).label("kept", "yes").http(8080, name).yaml();
    let mesh = start(
        &all(&[
            namespace("shop", true),
            namespace("bank", true),
            namespace("outside", false),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("outside", "client", "node1").yaml(),
            Pod::new("shop", "web-0", "node2").named("web-0", "web").ip(WEB).http(8080, "web").yaml(),
            Pod::new("bank", "vault", "node2").ip(VAULT).http(8080, "vault").yaml(),
            kept("a", "node1"),
            kept("b", "node2"),
            kept("c", "node2"),
            service("shop", "front", "web-0", 80, 8080),
            given,
        ]),
        &[],
    )?;
    for pod in ["shop/client", "shop/web-0", "bank/vault", "shop/a", "shop/b", "shop/c"] {
        mesh.pod_known(pod, true)?;
    }
    Ok(mesh)
}

fn resolve(mesh: &Mesh, pod: &str, name: &str) -> Result<String> {
    let output = mesh.exec(pod, &["python3", "-c", RESOLVE, name])?;
    output.good().map(|text| text.trim().to_owned()).with_context(|| format!("{pod} resolves {name}"))
}

fn names(mesh: &Mesh) -> Result<()> {
    // A last dot keeps hosts files out of it: ztunnel answers.
    for name in
        ["web-0.web.shop.svc.cluster.local.", "web.shop.svc.cluster.local.", "10-244-2-20.web.shop.svc.cluster.local."]
    {
        let found = until("ztunnel answers", || resolve(mesh, "shop/client", name))?;
        ensure!(found == WEB, "{name}: {found}");
    }
    for (client, name) in
        [("shop/client", "web-0.web"), ("outside/client", "web-0.web.shop"), ("outside/client", "web.shop")]
    {
        let found = resolve(mesh, client, name)?;
        ensure!(found == WEB, "{client} finds {found} by {name}: the service has no other family");
    }
    let body = mesh.get_at_last("shop/client", "http://web-0.web:8080/")?;
    ensure!(body == "web", "{body}");
    let status = mesh.status()?;
    let web = status.services.iter().find(|s| s.name == "web").context("no service web")?;
    ensure!(web.endpoints == [WEB], "{web:?}");
    Ok(())
}

fn other_names(mesh: &Mesh) -> Result<()> {
    let front = resolve(mesh, "shop/client", "front")?;
    let found = until("ztunnel answers", || resolve(mesh, "shop/client", "other.shop.svc.cluster.local."))?;
    ensure!(found == front, "{found}, not {front}");
    for client in CLIENTS {
        let found = resolve(mesh, client, "other.shop")?;
        ensure!(found == front, "{client}: {found}, not {front}");
        let body = mesh.get_at_last(client, "http://other.shop/")?;
        ensure!(body == "web", "{client}: {body}");
    }
    Ok(())
}

fn given(mesh: &Mesh) -> Result<()> {
    for name in ["given", "old"] {
        for client in CLIENTS {
            for _ in 0..4 {
                let body = mesh.get_at_last(client, &format!("http://{name}.shop/"))?;
                ensure!(body == "vault", "{client} by {name}: {body}");
            }
        }
        let status = mesh.status()?;
        let service = status.services.iter().find(|s| s.name == name).context("no such service")?;
        ensure!(service.endpoints == [format!("{VAULT}:8080")], "{service:?}");
        let line = ["direction=\"inbound\"", "ns/shop/sa/client", "ns/bank/sa/vault", &format!("{name}.shop.svc")];
        mesh.log_line("ztunnel-node2", &line)?;
    }
    Ok(())
}

fn affinity(mesh: &Mesh) -> Result<()> {
    for client in CLIENTS {
        let mut answered = BTreeSet::new();
        for _ in 0..12 {
            answered.insert(mesh.get_at_last(client, "http://kept.shop/")?);
        }
        ensure!(answered.len() == 1, "{client} was answered by {answered:?}");
    }
    Ok(())
}
