//! The machine of the control plane: etcd, the API server, the controllers, the scheduler.
use super::keys::{INSIDE, Keys};
use super::machine::Machine;
use super::network;
use anyhow::Result;

/// The addresses of services; the first is the API server's own.
pub const SERVICES: &str = "10.96.0.0/16";
const API_SERVER_SERVICE: &str = "10.96.0.1";
/// The API server's port.
pub(super) const PORT: u16 = 6443;

/// Where machines reach the API server.
pub(super) fn server() -> String {
    format!("{}:{PORT}", network::CONTROL)
}

/// Issues what the control plane's programs need.
pub(super) fn issue(keys: &Keys) -> Result<()> {
    let address = network::CONTROL.to_string();
    let names = [
        &address,
        API_SERVER_SERVICE,
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    keys.issue("kube-apiserver", "kube-apiserver", None, &names)?;
    keys.client("admin", "admin", Some("system:masters"), &server())?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        keys.client(name, &format!("system:{name}"), None, &server())?;
    }
    Ok(())
}

const ETCD: &str = "http://127.0.0.1:2379";

/// Starts etcd.
pub(super) fn start_etcd(machine: &Machine) -> Result<()> {
    let peers = "http://127.0.0.1:2380";
    spawn(
        machine,
        "etcd",
        &[
            ("data-dir", "/var/lib/etcd"),
            ("listen-client-urls", ETCD),
            ("advertise-client-urls", ETCD),
            ("listen-peer-urls", peers),
            ("initial-advertise-peer-urls", peers),
            ("initial-cluster", &format!("default={peers}")),
            // It is in memory anyway.
            ("unsafe-no-fsync", "true"),
        ],
    )
}

/// Starts the API server, which waits for etcd.
pub(super) fn start_api_server(machine: &Machine) -> Result<()> {
    let key = |file: &str| format!("{INSIDE}/{file}");
    spawn(
        machine,
        "kube-apiserver",
        &[
            ("etcd-servers", ETCD),
            ("secure-port", &PORT.to_string()),
            ("advertise-address", &network::CONTROL.to_string()),
            ("tls-cert-file", &key("kube-apiserver.crt")),
            ("tls-private-key-file", &key("kube-apiserver.key")),
            ("client-ca-file", &key("ca.crt")),
            ("kubelet-certificate-authority", &key("ca.crt")),
            ("kubelet-client-certificate", &key("admin.crt")),
            ("kubelet-client-key", &key("admin.key")),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            ("service-account-key-file", &key("accounts.pub")),
            ("service-account-signing-key-file", &key("accounts.key")),
            ("service-cluster-ip-range", SERVICES),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("allow-privileged", "true"),
            // No kube-proxy runs on this machine: webhooks are called at the addresses of their pods.
            ("enable-aggregator-routing", "true"),
        ],
    )
}

/// Starts the controllers and the scheduler.
pub(super) fn start_controllers(machine: &Machine) -> Result<()> {
    let key = |file: &str| format!("{INSIDE}/{file}");
    let kubeconfig = key("kube-controller-manager.kubeconfig");
    spawn(
        machine,
        "kube-controller-manager",
        &[
            ("kubeconfig", &kubeconfig),
            ("authentication-kubeconfig", &kubeconfig),
            ("authorization-kubeconfig", &kubeconfig),
            ("service-account-private-key-file", &key("accounts.key")),
            ("root-ca-file", &key("ca.crt")),
            ("cluster-signing-cert-file", &key("ca.crt")),
            ("cluster-signing-key-file", &key("ca.key")),
            ("use-service-account-credentials", "true"),
            // Nodes have theirs from the kit, which lays the routes.
            ("allocate-node-cidrs", "false"),
            ("leader-elect", "false"),
        ],
    )?;
    let kubeconfig = key("kube-scheduler.kubeconfig");
    spawn(machine, "kube-scheduler", &[("kubeconfig", &kubeconfig), ("leader-elect", "false")])
}

/// Starts a program with its flags.
pub(super) fn spawn(machine: &Machine, program: &str, flags: &[(&str, &str)]) -> Result<()> {
    let flags: Vec<String> = flags.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    machine.spawn(program, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}
