//! A node: containerd, kubelet and kube-proxy on a machine.
use super::control::{server, spawn};
use super::keys::{INSIDE, Keys};
use super::machine::Machine;
use super::network;
use super::programs::Programs;
use crate::process;
use crate::until::until;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The image that keeps a pod's namespaces.
pub(super) const PAUSE: &str = "localhost/pause:kit";
/// The address of the cluster's DNS, which `e2e/cluster/dns.yaml` asks for.
const DNS: &str = "10.96.0.10";
/// What does not outlive a node's power.
const LOSE: &str = r#"
shopt -s nullglob
awk '$5 ~ "^/(run/(netns|containerd|ztunnel|istio-cni)|var/lib/kubelet/pods)/" { print $5 }' /proc/self/mountinfo | tac |
    while read -r mount; do umount -l $mount || true; done
rm -rf /run/containerd /run/netns/* /run/ztunnel /run/istio-cni
find /sys/fs/cgroup -depth -type d -path '*/kubepods/*' -exec rmdir {} + 2>/dev/null || true
nft flush ruleset
ip -o link show type veth | sed -nE 's/^[0-9]+: (veth[0-9a-f]+)@.*//p' | while read -r link; do ip link delete $link || true; done
"#;
const SOCKET: &str = "/run/containerd/containerd.sock";
/// The plugins that pods are connected with are copied there, as an installer of others expects it.
const PLUGINS: &str = "/opt/cni/bin";
const PLUGIN_CONFIGURATION: &str = "/etc/cni/net.d";

/// The way in which kube-proxy leads to services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// With rules of nftables.
    Nftables,
    /// With rules of iptables.
    Iptables,
}

impl ProxyMode {
    fn name(self) -> &'static str {
        match self {
            ProxyMode::Nftables => "nftables",
            ProxyMode::Iptables => "iptables",
        }
    }
}

/// Issues what a node's programs need.
pub(super) fn issue(keys: &Keys, name: &str, number: u8) -> Result<()> {
    let address = network::node(number).to_string();
    keys.issue(name, &format!("system:node:{name}"), Some("system:nodes"), &[name, &address])?;
    keys.kubeconfig(name, name, INSIDE, &server())?;
    keys.client("kube-proxy", "system:kube-proxy", None, &server())
}

/// The Node, as it is before its kubelet knows of it: with the addresses of its pods, which the kit lays routes to.
pub(super) fn object(name: &str, number: u8) -> Value {
    let pods = format!("{}/24", network::pods(number));
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
    })
}

/// Starts containerd, with the kit's images.
pub(super) fn start_runtime(machine: &Machine, number: u8, programs: &Programs) -> Result<()> {
    machine.write("/etc/containerd/config.toml", &runtime_configuration())?;
    machine.write(&format!("{PLUGIN_CONFIGURATION}/10-kit.conflist"), &plugin_configuration(number).to_string())?;
    let copy = format!("mkdir -p {PLUGINS} && cp {}/{{ptp,bridge,host-local,loopback}} {PLUGINS}", programs.plugins());
    machine.run(&["bash", "-ec", &copy])?.good()?;
    run_runtime(machine)?;
    programs.images()?.iter().try_for_each(|image| import(machine, image))
}

fn run_runtime(machine: &Machine) -> Result<()> {
    machine.spawn("containerd", &[])?;
    until("containerd answers", || {
        ensure!(machine.file(SOCKET).exists(), "no socket yet");
        machine.run(&["ctr", "version"])?.good()
    })
    .map(drop)
}

/// Kills all that runs, and takes away what no reboot would leave: what is in `/run`, network namespaces, the mounts of containers, control
/// groups, and what leads to pods.
pub(super) fn lose_power(machine: &Machine) -> Result<()> {
    until("nothing runs", || {
        let left = process::descendants(machine.init());
        for one in &left {
            // It may be gone already.
            let _ = process::signal(one.pid, Signal::KILL);
        }
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    machine.run(&["bash", "-ec", LOSE])?.good().map(drop)
}

/// Starts a node that has lost its power.
pub(super) fn start_again(machine: &Machine, number: u8, proxy: ProxyMode) -> Result<()> {
    run_runtime(machine)?;
    start_kubelet(machine, number)?;
    start_proxy(machine, proxy)
}

/// Gives a node the image of an archive, a path as the node sees it.
pub(super) fn import(machine: &Machine, archive: &str) -> Result<()> {
    machine.run(&["ctr", "--namespace", "k8s.io", "images", "import", archive])?.good().map(drop)
}

/// Starts kubelet.
pub(super) fn start_kubelet(machine: &Machine, number: u8) -> Result<()> {
    let name = machine.name();
    machine.write("/etc/kubernetes/kubelet.yaml", &kubelet_configuration(name).to_string())?;
    spawn(
        machine,
        "kubelet",
        &[
            ("config", "/etc/kubernetes/kubelet.yaml"),
            ("kubeconfig", &format!("{INSIDE}/{name}.kubeconfig")),
            ("hostname-override", name),
            ("node-ip", &network::node(number).to_string()),
            ("v", "2"),
        ],
    )
}

/// Starts kube-proxy.
pub(super) fn start_proxy(machine: &Machine, mode: ProxyMode) -> Result<()> {
    spawn(
        machine,
        "kube-proxy",
        &[
            ("kubeconfig", &format!("{INSIDE}/kube-proxy.kubeconfig")),
            ("hostname-override", machine.name()),
            ("proxy-mode", mode.name()),
            ("cluster-cidr", network::PODS),
            // Connection tracking's size and times belong to all machines.
            ("conntrack-max-per-core", "0"),
            ("conntrack-tcp-timeout-established", "0"),
            ("conntrack-tcp-timeout-close-wait", "0"),
        ],
    )
}

fn runtime_configuration() -> String {
    format!(
        r#"version = 2
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Without CAP_SYS_RESOURCE nobody becomes less likely to be killed than before.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{PLUGIN_CONFIGURATION}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// A veth to each pod and a route to it: what goes between pods of a node is routed, and kube-proxy sees it.
fn plugin_configuration(number: u8) -> Value {
    let pods = format!("{}/24", network::pods(number));
    json!({
        "cniVersion": "1.0.0", "name": "kit",
        "plugins": [{
            "type": "ptp", "ipMasq": false,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

fn kubelet_configuration(name: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{INSIDE}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{INSIDE}/{name}.crt"),
        "tlsPrivateKeyFile": format!("{INSIDE}/{name}.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS],
        "resolvConf": "/etc/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        // Its usual place is below /usr, where nobody writes.
        "volumePluginDir": "/var/lib/kubelet/plugins/volume",
        // Nodes are in memory, of which there is as much as there is: nothing is evicted for want of disk.
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        // Tests wait for these.
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
        "serializeImagePulls": false,
    })
}
