//! Real programs of the machine run as pods: nginx, python3, curl.
//!
//! Seen red when every policy allowed.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::folder::Folder;
use e2e::harness::{Suite, need_program};
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("programs::curl_asks_nginx", nginx);
    suite.trial("programs::curl_asks_python", python);
}

const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: door, namespace: shop}
spec:
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
";

fn world(server: Pod, text: &str) -> Result<()> {
    need_program("curl")?;
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "thief", "node1").yaml(),
        server.yaml(),
        service("shop", "server", "server", 80, 8080),
    ]))?;
    asks(&mesh, text).map_err(|e| e.context(mesh.report()))
}

fn asks(mesh: &Mesh, text: &str) -> Result<()> {
    let curl = |pod: &str| {
        mesh.exec(pod, &["curl", "-sS", "--max-time", "5", "http://server.shop.svc.cluster.local/file.txt"])?.good()
    };
    for pod in ["shop/client", "shop/thief"] {
        let body = until("curl is answered", || curl(pod))?;
        ensure!(body == text, "{pod}: {body}");
    }
    mesh.apply("policy.yaml", POLICY)?;
    let refused = until("the thief is refused", || curl("shop/thief").err().context("it still is answered"))?;
    ensure!(refused.to_string().contains("curl:"), "{refused:#}");
    ensure!(curl("shop/client")? == text);
    Ok(())
}

fn nginx() -> Result<()> {
    need_program("nginx")?;
    let folder = Folder::with("")?;
    folder.write("file.txt", "from nginx\n")?;
    let directory = folder.path().display();
    folder.write(
        "nginx.conf",
        &format!(
            "user root root; daemon off; master_process off; pid {directory}/pid; error_log stderr;\nevents {{}}\n\
             http {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;\n\
             fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n\
             server {{ listen 8080; listen [::]:8080; root {directory}; }} }}\n"
        ),
    )?;
    let config = folder.file("nginx.conf").display().to_string();
    world(Pod::new("shop", "server", "node2").serves(8080, &["nginx", "-c", &config]), "from nginx\n")
}

fn python() -> Result<()> {
    need_program("python3")?;
    let folder = Folder::with("")?;
    folder.write("file.txt", "from python\n")?;
    let directory = folder.path().display().to_string();
    let command = ["python3", "-m", "http.server", "8080", "--bind", "::", "--directory", &directory];
    world(Pod::new("shop", "server", "node2").serves(8080, &command), "from python\n")
}
