//! The real program, and what it serves in its own network namespace: no node agent, no control plane.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const TABLES: &str = r#"
workloads:
- {uid: "Kubernetes//Pod/shop/client", name: client, namespace: shop, serviceAccount: client, workloadIps: ["10.77.1.10"], protocol: HBONE}
- {uid: "Kubernetes//Pod/shop/page", name: page, namespace: shop, serviceAccount: page, workloadIps: ["127.0.0.1"], protocol: TCP,
   services: {"shop/page.shop.svc.cluster.local": {80: 15021}}}
services:
- {name: page, namespace: shop, hostname: page.shop.svc.cluster.local, vips: ["/10.96.0.10"], ports: {80: 15021}}
"#;

/// ztunnel, and the namespace that ends with it.
struct Ztunnel(Child);

/// A namespace in which somebody else is first.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Beside {
    fn new() -> Option<Self> {
        if !possible() {
            return None;
        }
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo && exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut beside = Self(child);
        std::io::Read::read_exact(&mut beside.0.stdout.take().unwrap(), &mut [0]).unwrap();
        Some(beside)
    }

    /// Holds a port as a program there would.
    fn hold(&self, port: u16) -> TcpListener {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let thread = std::thread::spawn(move || {
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
            TcpListener::bind(("0.0.0.0", port)).unwrap()
        });
        thread.join().unwrap()
    }

    /// What to begin ztunnel's command line with, to start it there.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string()]);
        command
    }
}

/// False, said loudly, where there are no rights or programs for it.
#[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
fn possible() -> bool {
    for (program, argument) in [("curl", "--version"), ("ip", "-V"), ("nsenter", "--version")] {
        if Command::new(program).arg(argument).output().is_err() {
            eprintln!("SKIPPED: there is no {program}");
            return false;
        }
    }
    let namespace = Command::new("unshare").args(["--net", "true"]).output();
    let made = namespace.is_ok_and(|made| made.status.success());
    if !made {
        eprintln!("SKIPPED: this user may not make network namespaces");
    }
    made
}

impl Ztunnel {
    fn start(settings: &[(&str, &str)]) -> Option<Self> {
        if !possible() {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\"", env!("CARGO_BIN_EXE_ztunnel")]);
        Some(Self::run(command, settings))
    }

    fn beside(beside: &Beside, settings: &[(&str, &str)]) -> Self {
        let mut command = beside.enter();
        command.arg(env!("CARGO_BIN_EXE_ztunnel"));
        Self::run(command, settings)
    }

    fn run(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let child = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs([("XDS_ADDRESS", ""), ("LOCAL_XDS", TABLES), ("CONNECTION_TERMINATION_DEADLINE", "1s")])
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGTERM; how it ended, and its log.
    fn terminate(self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended()
    }

    /// Waits for its end; how it ended, and its log.
    fn ended(mut self) -> (ExitStatus, String) {
        let log = self.0.stdout.take().unwrap();
        let reader = std::thread::spawn(move || std::io::read_to_string(log).unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match self.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        (status, reader.join().unwrap())
    }

    /// curl, in ztunnel's namespace.
    fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), "curl", "-sS", "--max-time", "10"]);
        command.args(arguments).env_remove("http_proxy").output().unwrap()
    }

    fn get(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.curl(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// What it says when it is ready.
    fn ready(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let got = self.get(&["--fail", "http://127.0.0.1:15021/healthz/ready"]);
            match got {
                Ok(text) => return text,
                Err(error) => assert!(Instant::now() < deadline, "ztunnel does not get ready: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until somebody takes connections on a port; says what curl said of them.
    fn listens(&self, port: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = self.get(&[&format!("http://127.0.0.1:{port}/")]).unwrap_or_else(|error| error);
            if !said.contains("(7)") {
                return said;
            }
            assert!(Instant::now() < deadline, "nobody listens on {port}: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it, and gives its log.
    fn end(mut self) -> String {
        let stopped = self.get(&["-X", "POST", "http://127.0.0.1:15000/quitquitquit"]);
        let mut log = String::new();
        if stopped.is_err() {
            self.0.kill().unwrap();
        }
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut log).unwrap();
        self.0.wait().unwrap();
        log
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        // Of one that has ended, nothing is left to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Contract 12.1, `PROXY_MODE=dedicated`: one workload, its listeners where ztunnel lives, ready without a node agent.
#[test]
fn one_workload_is_served_where_ztunnel_lives() {
    let settings = [
        ("PROXY_MODE", "dedicated"),
        ("PROXY_WORKLOAD_INFO", "shop/client/client"),
        ("UNSTABLE_ENABLE_SOCKS5", "true"),
        // The page sees who asks.
        ("ENABLE_ORIG_SRC", "false"),
    ];
    let Some(ztunnel) = Ztunnel::start(&settings) else { return };
    assert_eq!(ztunnel.ready(), "ready\n");
    let dump = ztunnel.get(&["http://127.0.0.1:15000/config_dump"]).unwrap();
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let states: Vec<_> = dump["workloadState"].as_object().unwrap().values().collect();
    assert_eq!((states.len(), &states[0]["info"]["name"]), (1, &"client".into()), "{states:?}");
    // By name: its DNS; to a service of the tables; through its outbound listener.
    let page = ztunnel.get(&["--socks5-hostname", "127.0.0.1:15080", "http://page/healthz/ready"]);
    assert_eq!(page.as_deref(), Ok("ready\n"));
    // Pages that send elsewhere, or say what to use.
    let admin = |path: &str| format!("http://127.0.0.1:15000{path}");
    let counted = ztunnel.get(&["--location", "--fail", &admin("/stats/prometheus")]).unwrap();
    assert!(counted.contains("istio_tcp_connections_opened_total{reporter=\"source\""), "{counted}");
    let profile = ztunnel.get(&["--write-out", "%{http_code}", &admin("/debug/pprof/profile?seconds=1")]).unwrap();
    assert!(profile.contains("perf record") && profile.ends_with("501"), "{profile}");
    // What is ours is no destination, at whichever listener: closed without a word.
    for port in [15001, 15006] {
        let error = ztunnel.get(&[&format!("http://127.0.0.1:{port}/")]).unwrap_err();
        assert!(error.contains("(52)") || error.contains("(56)"), "{port}: {error}");
    }
    let log = ztunnel.end();
    let line = log.lines().find(|line| line.contains("page.shop.svc.cluster.local")).expect(&log);
    assert!(line.contains("src.workload=\"client\"") && line.contains("outbound"), "{line}");
    assert!(log.matches("RECURSIVE_CALL").count() == 2, "{log}");
}

/// `ENABLE_PROXY=false`: names are answered, and nothing is carried.
#[test]
fn without_the_proxy_there_is_dns() {
    let settings =
        [("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "shop/client/client"), ("ENABLE_PROXY", "false")];
    let Some(ztunnel) = Ztunnel::start(&settings) else { return };
    ztunnel.ready();
    for port in [15001, 15006, 15008] {
        let error = ztunnel.get(&[&format!("http://127.0.0.1:{port}/")]).unwrap_err();
        assert!(error.contains("(7)"), "nobody listens on {port}: {error}");
    }
    // DNS over TCP: what is no DNS is not answered, but it is listened to.
    let error = ztunnel.get(&["http://127.0.0.1:15053/"]).unwrap_err();
    assert!(!error.contains("(7)"), "{error}");
}

/// Contract 1.1: HBONE to ztunnel itself, where it knows who it is; a node agent is not waited for.
#[test]
fn its_own_pod_has_one_door() {
    let who = [("POD_NAME", "client"), ("POD_NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "client")];
    let Some(ztunnel) = Ztunnel::start(&who) else { return };
    ztunnel.listens(15008);
    for port in [15001, 15006] {
        let error = ztunnel.get(&[&format!("http://127.0.0.1:{port}/")]).unwrap_err();
        assert!(error.contains("(7)"), "nobody listens on {port}: {error}");
    }
    let log = ztunnel.end();
    assert!(log.contains("shop/client") && log.contains("our own metrics"), "{log}");
    // Not all of it known: not served. When its pages answer, it has begun with nothing.
    let Some(ztunnel) = Ztunnel::start(&who[..2]) else { return };
    ztunnel.listens(15020);
    let log = ztunnel.end();
    assert!(!log.contains("our own metrics"), "{log}");
}

/// Ports of its own that another program has: it is ready without them, takes them over when they are free, and ends
/// when it is told to. (It drained, and then waited for the port for ever.)
#[test]
fn ports_that_somebody_else_has_hold_it_up_neither_at_start_nor_at_the_end() {
    let settings = [("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "shop/client/client")];
    let Some(beside) = Beside::new() else { return };
    let held: Vec<TcpListener> = [15000, 15020].map(|port| beside.hold(port)).into();
    let ztunnel = Ztunnel::beside(&beside, &settings);
    assert_eq!(ztunnel.ready(), "ready\n");
    let (status, log) = ztunnel.terminate();
    assert!(status.success(), "{status}: {log}");
    for setting in ["ADMIN_PORT", "STATS_PORT"] {
        let line = log.lines().find(|line| line.contains(setting) && line.contains("port in use"));
        assert!(line.is_some(), "{setting}: {log}");
    }
    assert!(log.contains("drained"), "{log}");

    // Given free while it runs: served then.
    let ztunnel = Ztunnel::beside(&beside, &settings);
    ztunnel.ready();
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(20);
    while ztunnel.get(&["--fail", "http://127.0.0.1:15000/config_dump"]).is_err() {
        assert!(Instant::now() < deadline, "it does not take its port over");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, log) = ztunnel.terminate();
    assert!(status.success(), "{status}: {log}");

    // A port that pods' connections come in by is another matter: who serves one workload cannot do without.
    let taken = beside.hold(15008);
    let ztunnel = Ztunnel::beside(&beside, &settings);
    let (status, log) = ztunnel.ended();
    assert!(!status.success() && log.contains("15008"), "{status}: {log}");
    drop(taken);
}
