//! The whole agent in real namespaces, with a ztunnel's end of the socket: what happens to pods as the list changes.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use common::{CLIENT_V4, Netns, PATIENCE, POD_V4, POD_V6, Pair, accept, is_dialled, talk};
use mesh_handoff::{Request, ZtunnelEnd};
use mesh_runtime::config::Env;
use mesh_runtime::shutdown::{Reason, Shutdown};
use node_agent::cni::{AddRequest, IpConfig, IpNet};
use node_agent::config::Config;
use node_agent::plugin_client::{self, CmdAddError};
use node_agent::redirect::{ProbePorts, Settings, apply};
use node_agent::sandboxes::{Sandboxes, Sought};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

fn main() {
    common::main(vec![
        ("labels_bring_pods_in_and_out", || wait(labels_bring_pods_in_and_out())),
        ("a_pod_is_captured_only_when_everybody_knows", || wait(a_pod_is_captured_only_when_everybody_knows())),
        ("what_left_while_the_agent_was_away_is_let_go", || wait(what_left_while_the_agent_was_away_is_let_go())),
        ("a_new_pod_starts_only_when_enrolled", || wait(a_new_pod_starts_only_when_enrolled())),
        ("one_bad_pod_holds_up_nobody", || wait(one_bad_pod_holds_up_nobody())),
        ("a_pod_may_be_replaced_at_once", || wait(a_pod_may_be_replaced_at_once())),
        ("restart_and_stop_leave_pods_alone", || wait(restart_and_stop_leave_pods_alone())),
        ("what_ztunnel_refuses_is_pending_and_tried_again", || {
            wait(what_ztunnel_refuses_is_pending_and_tried_again());
        }),
        ("tampering_is_repaired", || wait(tampering_is_repaired())),
        ("probes_of_the_node_reach_strict_pods", || wait(probes_of_the_node_reach_strict_pods())),
        ("namespaces_are_found_by_the_nodes_processes", namespaces_are_found_by_the_nodes_processes),
        ("the_plugin_speaks_cni", || wait(the_plugin_speaks_cni())),
    ]);
}

fn wait(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// One node: its directory and its agent.
struct Node {
    dir: tempfile::TempDir,
    shutdown: Shutdown,
    agent: Option<JoinHandle<anyhow::Result<()>>>,
    host_probes: bool,
    /// Serves `/readyz` and `/metrics`, on the ports that it has by default.
    observed: bool,
    /// How many lists [`Self::tell`] has written.
    told: usize,
}

impl Node {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            shutdown: Shutdown::new(),
            agent: None,
            host_probes: false,
            observed: false,
            told: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self) {
        let path = |name| self.path(name).display().to_string();
        let env: Env = [
            ("PODS_FILE", path("pods.json")),
            ("ENROLLED_FILE", path("enrolled.json")),
            ("ZTUNNEL_UDS_ADDRESS", path("ztunnel.sock")),
            ("CNI_EVENT_ADDRESS", path("pluginevent.sock")),
            ("AMBIENT_HOST_PROBES", self.host_probes.to_string()),
            ("HEALTH_PORT", if self.observed { "8000" } else { "0" }.to_owned()),
            ("MONITORING_PORT", if self.observed { "15014" } else { "0" }.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
        self.shutdown = Shutdown::new();
        let run = node_agent::app::run(Config::from_env(&env).unwrap(), self.shutdown.clone());
        self.agent = Some(tokio::spawn(run));
    }

    async fn stop(&mut self) {
        self.shutdown.request(Reason::Terminate);
        self.agent.take().unwrap().await.unwrap().unwrap();
    }

    fn write(&self, pods: &[Value]) {
        let new = self.path("pods.json.new");
        std::fs::write(&new, json!({ "pods": pods }).to_string()).unwrap();
        std::fs::rename(new, self.path("pods.json")).unwrap();
    }

    /// Writes the list, and waits until the agent has taken it in: with it comes another pod each time, outside of the mesh.
    async fn tell(&mut self, pods: &[Value]) {
        self.told += 1;
        let uid = format!("marker-{}", self.told);
        self.write(&[pods, &[labelled(pod(&uid, "marker", None), "none")]].concat());
        self.state(&uid, "disabled").await;
    }

    /// Connects as ztunnel does and takes the snapshot; returns the UIDs it named.
    async fn ztunnel(&self) -> (ZtunnelEnd, Vec<String>) {
        let socket = self.path("ztunnel.sock");
        let mut end = patiently("the agent listens", async || ZtunnelEnd::connect(&socket).await.ok()).await;
        let mut named = Vec::new();
        loop {
            let request = next(&mut end).await;
            end.ack(Ok(())).await.unwrap();
            match request {
                Request::Add { uid, .. } => named.push(uid),
                Request::Keep { uid } => named.push(format!("keep {uid}")),
                Request::SnapshotSent => return (end, named),
                Request::Del { .. } => panic!("a del in a snapshot"),
            }
        }
    }

    fn states(&self) -> BTreeMap<String, String> {
        let Ok(json) = std::fs::read(self.path("enrolled.json")) else { return BTreeMap::new() };
        let json: Value = serde_json::from_slice(&json).unwrap();
        let pods = json["pods"].as_object().unwrap();
        pods.iter().map(|(uid, state)| (uid.clone(), state["redirection"].as_str().unwrap().to_owned())).collect()
    }

    async fn state(&self, uid: &str, expected: &str) {
        patiently(&format!("{uid} is {expected}"), async || {
            (self.states().get(uid).map(String::as_str) == Some(expected)).then_some(())
        })
        .await;
    }
}

async fn next(end: &mut ZtunnelEnd) -> Request {
    tokio::time::timeout(PATIENCE, end.next()).await.expect("the agent says something").unwrap()
}

async fn expect_add(end: &mut ZtunnelEnd, expected: &str) {
    match next(end).await {
        Request::Add { uid, .. } => assert_eq!(uid, expected),
        other => panic!("{other:?}"),
    }
    end.ack(Ok(())).await.unwrap();
}

async fn expect_del(end: &mut ZtunnelEnd, expected: &str) {
    match next(end).await {
        Request::Del { uid } => assert_eq!(uid, expected),
        other => panic!("{other:?}"),
    }
    end.ack(Ok(())).await.unwrap();
}

/// Asks again until there is an answer.
async fn patiently<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never seen: {what}"))
}

/// A pod of an ambient namespace. Its namespace is a descriptor of this process, which has a path.
fn pod(uid: &str, name: &str, netns: Option<&Netns>) -> Value {
    use std::os::fd::AsRawFd as _;
    let path = netns.map(|netns| format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd()));
    json!({
        "uid": uid, "name": name, "namespace": "ns", "serviceAccount": "sa", "phase": "Running",
        "namespaceLabels": { "istio.io/dataplane-mode": "ambient" }, "ips": [POD_V4, POD_V6], "netns": path,
        "probePorts": [8080],
    })
}

fn labelled(mut pod: Value, value: &str) -> Value {
    pod["labels"] = json!({ "istio.io/dataplane-mode": value });
    pod
}

async fn missing(netns: &Netns) -> Vec<String> {
    let settings = Settings {
        ipv6: true,
        inbound_capture: true,
        dns_capture: true,
        outbound_interfaces: Vec::new(),
        probe_ports: ProbePorts::Only(vec![8080]),
    };
    apply::missing(netns.as_fd(), &settings).await.unwrap()
}

async fn labels_bring_pods_in_and_out() {
    let (netns, mut node) = (Netns::new(), Node::new());
    let web = || pod("u1", "web", Some(&netns));
    node.write(&[labelled(web(), "none")]);
    node.start();
    let (mut ztunnel, named) = node.ztunnel().await;
    assert_eq!(named, Vec::<String>::new());
    node.state("u1", "disabled").await;

    node.write(&[web()]);
    match next(&mut ztunnel).await {
        Request::Add { uid, pod, netns: descriptor } => {
            assert_eq!((uid.as_str(), pod.name.as_str()), ("u1", "web"));
            assert_eq!((pod.namespace.as_str(), pod.service_account.as_str()), ("ns", "sa"));
            let ino = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
            assert_eq!(ino(descriptor.as_fd()), ino(netns.as_fd()));
        }
        other => panic!("{other:?}"),
    }
    // Until ztunnel agrees nothing leads to it, and nobody is told.
    assert!(!missing(&netns).await.is_empty());
    assert_eq!(node.states()["u1"], "pending");
    ztunnel.ack(Ok(())).await.unwrap();
    node.state("u1", "enabled").await;
    assert_eq!(missing(&netns).await, Vec::<String>::new());

    node.write(&[labelled(web(), "none")]);
    expect_del(&mut ztunnel, "u1").await;
    node.state("u1", "disabled").await;
    assert!(!missing(&netns).await.is_empty());

    // In again, then gone from the node.
    node.write(&[web()]);
    expect_add(&mut ztunnel, "u1").await;
    node.write(&[]);
    expect_del(&mut ztunnel, "u1").await;
    patiently("nothing is said of pods that are gone", async || node.states().is_empty().then_some(())).await;
}

/// What everybody's tables hold of a pod.
fn known_as(mut pod: Value, protocol: &str) -> Value {
    pod["knownAs"] = protocol.into();
    pod
}

/// The order in which a pod joins and leaves where somebody tells what the tables hold.
async fn a_pod_is_captured_only_when_everybody_knows() {
    let (netns, mut node) = (Netns::new(), Node::new());
    let web = || pod("u1", "web", Some(&netns));
    node.write(&[]);
    node.start();
    let (mut ztunnel, _) = node.ztunnel().await;
    let redirects = || async { apply::redirects(netns.as_fd()).await.unwrap() };
    let needed = ["istio-ambient-mangle", "ip rule", "ip route"];
    let served = || async {
        let missing = missing(&netns).await;
        !missing.iter().any(|line| needed.iter().any(|needed| line.starts_with(needed)))
    };

    node.write(&[known_as(web(), "TCP")]);
    expect_add(&mut ztunnel, "u1").await;
    node.state("u1", "joining").await;
    assert!(served().await && !redirects().await, "{:?}", missing(&netns).await);
    // Its program does not start yet.
    let socket = node.path("pluginevent.sock");
    let request = AddRequest {
        netns: web()["netns"].as_str().unwrap().into(),
        pod_name: "web".to_owned(),
        pod_namespace: "ns".to_owned(),
        pod_uid: None,
        ips: Vec::new(),
    };
    // Who calls asks again, as often as it takes.
    let mut call = tokio::spawn(async move { while plugin_client::cmd_add(&socket, &request).await.is_err() {} });
    node.tell(&[known_as(web(), "unsettled")]).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut call).await.is_err(), "not everybody knows");
    assert_eq!((node.states()["u1"].as_str(), redirects().await), ("joining", false));
    node.write(&[known_as(web(), "HBONE")]);
    node.state("u1", "enabled").await;
    tokio::time::timeout(PATIENCE, call).await.expect("the pod may start").unwrap();
    assert_eq!(missing(&netns).await, Vec::<String>::new());

    // A control plane that starts again knows nothing; what is captured stays so.
    node.tell(&[known_as(web(), "unsettled")]).await;
    node.tell(&[known_as(labelled(web(), "ambient"), "unsettled")]).await;
    assert_eq!((node.states()["u1"].as_str(), redirects().await), ("enabled", true));

    // Out: redirected no more, and served for those who do not know, even if it comes back.
    node.write(&[known_as(labelled(web(), "none"), "HBONE")]);
    node.state("u1", "leaving").await;
    assert!(served().await && !redirects().await);
    node.tell(&[known_as(web(), "HBONE")]).await;
    node.tell(&[known_as(labelled(web(), "none"), "unsettled")]).await;
    assert_eq!((node.states()["u1"].as_str(), served().await), ("leaving", true));
    node.write(&[known_as(labelled(web(), "none"), "TCP")]);
    expect_del(&mut ztunnel, "u1").await;
    node.state("u1", "disabled").await;
    assert!(!served().await, "nothing is left");
}

async fn what_left_while_the_agent_was_away_is_let_go() {
    let (netns, mut node) = (Netns::new(), Node::new());
    let web = || pod("u1", "web", Some(&netns));
    node.write(&[web()]);
    node.start();
    let (ztunnel, _) = node.ztunnel().await;
    node.state("u1", "enabled").await;
    node.stop().await;
    drop(ztunnel);
    node.write(&[labelled(web(), "none")]);
    node.start();
    patiently("its rules are gone", async || (!apply::redirects(netns.as_fd()).await.unwrap()).then_some(())).await;
    node.state("u1", "disabled").await;
    node.stop().await;
}

/// Trap 13: it fails to start rather than start outside the mesh.
async fn a_new_pod_starts_only_when_enrolled() {
    let (netns, mut node) = (Netns::new(), Node::new());
    node.write(&[]);
    node.start();
    let socket = node.path("pluginevent.sock");
    patiently("the plugin's socket", async || socket.exists().then_some(())).await;
    let listed = pod("u1", "web", Some(&netns));
    let request = AddRequest {
        netns: listed["netns"].as_str().unwrap().into(),
        pod_name: "web".to_owned(),
        pod_namespace: "ns".to_owned(),
        pod_uid: None,
        ips: vec![IpConfig { interface: None, address: IpNet::new(POD_V4.into(), 24), gateway: None }],
    };
    let refused = |outcome: Result<(), CmdAddError>, part: &str| match outcome {
        Err(CmdAddError::Refused { status, reason }) => {
            assert_eq!(status, 500);
            assert!(reason.contains(part), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    // A pod nobody knows, then one that no ztunnel serves: neither may start.
    refused(plugin_client::cmd_add(&socket, &request).await, "no pod ns/web");
    node.write(std::slice::from_ref(&listed));
    refused(plugin_client::cmd_add(&socket, &request).await, "no ztunnel");
    node.state("u1", "pending").await;

    // With a ztunnel it may, even when the list is later than the call.
    let (mut ztunnel, named) = node.ztunnel().await;
    assert_eq!(named, ["u1"]);
    let serving = tokio::spawn(async move {
        loop {
            let request = ztunnel.next().await.unwrap();
            ztunnel.ack(Ok(())).await.unwrap();
            drop(request);
        }
    });
    plugin_client::cmd_add(&socket, &request).await.unwrap();
    let later = Netns::new();
    let listed_later = pod("u2", "late", Some(&later));
    let early = AddRequest {
        netns: listed_later["netns"].as_str().unwrap().into(),
        pod_name: "late".to_owned(),
        ..request.clone()
    };
    let (outcome, ()) = tokio::join!(plugin_client::cmd_add(&socket, &early), async {
        node.write(&[listed.clone(), listed_later.clone()]);
    });
    outcome.unwrap();
    assert_eq!(missing(&later).await, Vec::<String>::new());
    // A pod outside the mesh may start as it is.
    node.write(&[labelled(listed, "none"), listed_later]);
    plugin_client::cmd_add(&socket, &request).await.unwrap();
    serving.abort();
}

/// Never silently outside: each pod is told of, by name, with why and what to do; and none of them holds up the others.
async fn one_bad_pod_holds_up_nobody() {
    let (netns, good, mut node) = (Netns::new(), Netns::new(), Node::new());
    common::own().routing().set_loopback_up().unwrap();
    node.observed = true;
    let mut bad = pod("u1", "bad", None);
    bad["netns"] = json!("/nonexistent");
    let mut odd = pod("u2", "odd", None);
    odd["netns"] = json!("/dev/null");
    node.write(&[bad, odd, pod("u3", "sandboxless", None), pod("u4", "good", Some(&good))]);
    node.start();
    let (mut ztunnel, _) = node.ztunnel().await;
    let json = || -> Value { serde_json::from_slice(&std::fs::read(node.path("enrolled.json")).unwrap()).unwrap() };
    for uid in ["u1", "u2", "u3"] {
        node.state(uid, "pending").await;
    }
    let reason = |uid: &str| json()["pods"][uid]["reason"].as_str().unwrap().to_owned();
    assert!(reason("u1").contains("/nonexistent"), "{}", reason("u1"));
    assert!(reason("u2").contains("not a namespace"), "{}", reason("u2"));
    assert!(reason("u3").contains("no network namespace yet"), "{}", reason("u3"));
    node.state("u4", "enabled").await;
    let told = get(8000, "/readyz").await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("ready\n"), "{told}");
    assert!(
        told.contains("3 pods should be in the mesh and are not: ns/bad because ") && !told.contains("good"),
        "{told}"
    );
    assert!(told.contains("/nonexistent") && told.contains("(to do: delete the pod"), "{told}");
    assert!(told.contains("ns/sandboxless because the pod has no network namespace yet"), "{told}");
    let metric = |name: &str, reason: &str| {
        format!("ambit_pod_not_captured{{pod_namespace=\"ns\",pod_name=\"{name}\",reason=\"{reason}\"}} 1\n")
    };
    let lines = [metric("bad", "netns"), metric("odd", "netns"), metric("sandboxless", "no_netns")];
    let metrics = get(15014, "/metrics").await;
    assert!(lines.iter().all(|line| metrics.contains(line)) && metrics.contains("ambit_enrolled 1\n"), "{metrics}");
    assert!(!metrics.contains("pod_name=\"good\"") && metrics.contains("ambit_enrolled_not_captured 3\n"), "{metrics}");

    let mut fixed = pod("u1", "bad", Some(&netns));
    fixed["phase"] = json!("Running");
    node.write(&[fixed, pod("u4", "good", Some(&good))]);
    expect_add(&mut ztunnel, "u1").await;
    node.state("u1", "enabled").await;
    patiently("nothing is told of pods that are well or gone", async || {
        let metrics = get(15014, "/metrics").await;
        let well = !metrics.contains("ambit_pod_not_captured{") && metrics.contains("ambit_enrolled_not_captured 0\n");
        (well && get(8000, "/readyz").await.ends_with("ready\n")).then_some(())
    })
    .await;
    node.stop().await;
}

async fn get(port: u16, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn a_pod_may_be_replaced_at_once() {
    let (first, second, mut node) = (Netns::new(), Netns::new(), Node::new());
    node.write(&[pod("u1", "web", Some(&first))]);
    node.start();
    let (mut ztunnel, _) = node.ztunnel().await;
    node.state("u1", "enabled").await;
    // The same name and addresses, another pod: both are said, in whichever order.
    node.write(&[pod("u2", "web", Some(&second))]);
    let mut said = Vec::new();
    while said.len() < 2 {
        match next(&mut ztunnel).await {
            Request::Add { uid, .. } if said.contains(&format!("add {uid}")) => {}
            Request::Add { uid, .. } if uid == "u2" => said.push("add u2".to_owned()),
            Request::Del { uid } => said.push(format!("del {uid}")),
            other => panic!("{other:?}"),
        }
        ztunnel.ack(Ok(())).await.unwrap();
    }
    said.sort();
    assert_eq!(said, ["add u2", "del u1"]);
    node.state("u2", "enabled").await;
    assert_eq!(missing(&second).await, Vec::<String>::new());
}

/// Trap 13.
async fn restart_and_stop_leave_pods_alone() {
    let (pair, mut node) = (Pair::new(), Node::new());
    node.write(&[pod("u1", "web", Some(&pair.pod))]);
    node.start();
    let (ztunnel, _) = node.ztunnel().await;
    node.state("u1", "enabled").await;
    let outbound = pair.pod.listen_as_ztunnel(15001);
    let mut dialled = pair.pod.dial(SocketAddr::new(CLIENT_V4.into(), 9000)).unwrap();
    let (mut accepted, _) = accept(&outbound);

    node.stop().await;
    drop(ztunnel);
    assert_eq!(missing(&pair.pod).await, Vec::<String>::new());
    assert_eq!(node.states()["u1"], "enabled");
    talk(&mut dialled, &mut accepted);

    // While it was away: the namespace of one pod became impossible to find, which is not the pod's fault.
    let mut lost = pod("u2", "lost", None);
    lost["netns"] = json!("/nonexistent");
    std::fs::write(
        node.path("enrolled.json"),
        r#"{"pods":{"u1":{"redirection":"enabled","reason":""},"u2":{"redirection":"enabled","reason":""}}}"#,
    )
    .unwrap();
    node.write(&[pod("u1", "web", Some(&pair.pod)), lost]);
    node.start();
    let (_ztunnel, named) = node.ztunnel().await;
    assert_eq!(named, ["u1", "keep u2"]);
    assert_eq!(node.states()["u1"], "enabled", "peers must not be told otherwise by a restart");
    talk(&mut dialled, &mut accepted);
    node.stop().await;
}

/// Trap 7.
async fn what_ztunnel_refuses_is_pending_and_tried_again() {
    let (netns, mut node) = (Netns::new(), Node::new());
    node.write(&[]);
    node.start();
    let (mut ztunnel, _) = node.ztunnel().await;
    node.write(&[pod("u1", "web", Some(&netns))]);
    for _ in 0..3 {
        assert!(matches!(next(&mut ztunnel).await, Request::Add { .. }));
        assert_eq!(node.states()["u1"], "pending");
        ztunnel.ack(Err("port 15008 is taken".to_owned())).await.unwrap();
    }
    expect_add(&mut ztunnel, "u1").await;
    node.state("u1", "enabled").await;
}

async fn tampering_is_repaired() {
    let (netns, mut node) = (Netns::new(), Node::new());
    node.write(&[pod("u1", "web", Some(&netns))]);
    node.start();
    let (_ztunnel, _) = node.ztunnel().await;
    node.state("u1", "enabled").await;
    apply::remove(netns.as_fd()).await.unwrap();
    patiently("the rules are back", async || missing(&netns).await.is_empty().then_some(())).await;
}

/// Trap 10.
async fn probes_of_the_node_reach_strict_pods() {
    // The agent runs in this process' own namespace, so that is the node.
    let (netns, mut node) = (Netns::new(), Node::new());
    let host = common::own();
    host.routing().add_veth("veth0", "eth0", netns.as_fd(), None).unwrap();
    host.settle("veth0", CLIENT_V4, common::CLIENT_V6);
    netns.settle("eth0", POD_V4, POD_V6);
    netns.route_by(CLIENT_V4, common::CLIENT_V6);

    node.host_probes = true;
    node.write(&[pod("u1", "web", Some(&netns))]);
    node.start();
    let (mut ztunnel, _) = node.ztunnel().await;
    node.state("u1", "enabled").await;
    let (app, inbound) = (netns.listen("[::]:8080"), netns.listen_as_ztunnel(15006));
    for address in [SocketAddr::new(POD_V4.into(), 8080), SocketAddr::new(POD_V6.into(), 8080)] {
        let mut probe = std::net::TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        talk(&mut probe, &mut accept(&app).0);
        assert!(!is_dialled(&inbound));
        // Where nobody probes, the node is one like any other.
        let mut other = std::net::TcpStream::connect_timeout(&SocketAddr::new(address.ip(), 9090), PATIENCE).unwrap();
        talk(&mut other, &mut accept(&inbound).0);
    }
    // A pod that left the mesh is probed like any other, from the node's own address.
    node.write(&[labelled(pod("u1", "web", Some(&netns)), "none")]);
    expect_del(&mut ztunnel, "u1").await;
    let _probe = std::net::TcpStream::connect_timeout(&SocketAddr::new(POD_V4.into(), 8080), PATIENCE).unwrap();
    assert_eq!(accept(&app).1.ip(), CLIENT_V4);
}

async fn the_plugin_speaks_cni() {
    let (netns, mut node) = (Netns::new(), Node::new());
    let listed = pod("u1", "web", Some(&netns));
    // The plugin is another process: for it the path must be this one's.
    let path = listed["netns"].as_str().unwrap().to_owned();
    node.write(&[listed]);
    node.start();
    let (_ztunnel, _) = node.ztunnel().await;
    node.state("u1", "enabled").await;
    patiently("the plugin's socket", async || node.path("pluginevent.sock").exists().then_some(())).await;

    let previous = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.9.0.2/24" }], "dns": {} });
    let config = json!({
        "cniVersion": "1.0.0", "name": "k8s", "type": "istio-cni", "prevResult": previous,
        "cni_agent_run_dir": node.dir.path(),
    });
    let ok = plugin("ADD", &path, "web", &config).await;
    assert_eq!(ok, (true, previous.clone()));
    let (fine, error) = plugin("ADD", &path, "nobody", &config).await;
    assert!(!fine);
    assert_eq!(error["code"], 11, "{error}");
    assert_eq!(plugin("DEL", &path, "web", &config).await, (true, Value::Null));
    let (fine, versions) = plugin("VERSION", "", "", &json!({})).await;
    assert!(fine && versions["supportedVersions"].as_array().unwrap().contains(&json!("1.0.0")));
    // Without an agent, pods do not start.
    node.stop().await;
    let (fine, error) = plugin("ADD", &path, "web", &config).await;
    assert!(!fine && error["details"].as_str().unwrap().contains("is it running?"), "{error}");
}

/// `/proc` of a node, as far as it is looked at: real namespaces, and processes that are not there.
struct Processes(tempfile::TempDir);

impl Processes {
    fn new(node: &Netns) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.add(1, 1, "/init.scope", node);
        this
    }

    fn add(&self, pid: u32, started: u64, cgroup: &str, netns: &Netns) {
        let dir = self.0.path().join(pid.to_string());
        std::fs::create_dir_all(dir.join("ns")).unwrap();
        std::fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        let fields = "0 ".repeat(18);
        std::fs::write(dir.join("stat"), format!("{pid} (a (b) c) S {fields}{started} 0 0\n")).unwrap();
        std::os::unix::fs::symlink(fd_path(netns), dir.join("ns/net")).unwrap();
    }
}

fn fd_path(netns: &Netns) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd()).into()
}

fn namespaces_are_found_by_the_nodes_processes() {
    use node_agent::netns::Netns as Opened;
    const UIDS: [&str; 4] = [
        "aaaaaaaa-d0e2-4706-8787-57d52c03ddf2",
        "bbbbbbbb-d0e2-4706-8787-57d52c03ddf2",
        "cccccccc-d0e2-4706-8787-57d52c03ddf2",
        "dddddddd-d0e2-4706-8787-57d52c03ddf2",
    ];
    let [node, pod, inner, other] = std::array::from_fn(|_| Netns::new());
    for (netns, address) in [(&pod, POD_V4), (&inner, POD_V4), (&node, CLIENT_V4), (&other, CLIENT_V4)] {
        netns.routing().add_address(1, address.into(), 32).unwrap();
    }
    let processes = Processes::new(&node);
    let cgroup = |uid: &str| format!("/kubepods/burstable/pod{uid}/container");
    // The first process of a pod comes last in the directory, and its last one has made a namespace of its own.
    processes.add(30, 500, &cgroup(UIDS[0]), &pod);
    processes.add(20, 900, &cgroup(UIDS[0]), &inner);
    // On the node's network, at an address of another pod, and gone.
    processes.add(40, 500, &cgroup(UIDS[1]), &node);
    processes.add(50, 500, &cgroup(UIDS[2]), &other);
    let sandboxes = Sandboxes::new(processes.0.path());
    let id = |netns: &Netns| Opened::open(&fd_path(netns)).unwrap().id();
    let find = |known| {
        let ips = |uid| vec![if uid == UIDS[1] { CLIENT_V4.into() } else { POD_V4.into() }];
        let sought = UIDS.map(|uid| (uid.to_owned(), Sought { ips: ips(uid), known })).into();
        let found = sandboxes.find(&sought).into_iter();
        found.map(|(uid, netns)| (uid, netns.id())).collect::<Vec<_>>()
    };
    assert_eq!(find(None), [(UIDS[0].to_owned(), id(&pod))]);
    assert_eq!(find(Some(id(&pod))), [], "where it was known to be");
    // The sandbox was made anew.
    assert_eq!(find(Some(id(&other))), [(UIDS[0].to_owned(), id(&pod))]);
    assert!(sandboxes.find(&[(UIDS[0].to_owned(), Sought::default())].into()).is_empty(), "a pod without addresses");
}

async fn plugin(command: &str, netns: &str, pod: &str, config: &Value) -> (bool, Value) {
    use tokio::io::AsyncWriteExt as _;
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .arg0(node_agent::cni::NAME)
        .env("CNI_COMMAND", command)
        .env("CNI_NETNS", netns)
        .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=ns;K8S_POD_NAME={pod}"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // VERSION does not read its input.
    let _ = stdin.write_all(config.to_string().as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}
