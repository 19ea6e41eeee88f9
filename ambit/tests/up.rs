//! The machine as its user meets it: started, looked at, edited, ended; nothing left behind. Without the mesh, so that
//! what fails here is ours.
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const AMBIT: &str = env!("CARGO_BIN_EXE_ambit");
const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh of one test; ended with it.
struct Mesh {
    name: String,
    home: PathBuf,
    up: Child,
}

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: t, labels: {app: a}}
spec: {nodeName: node1, containers: [{name: c, command: [ambit, tool, wait]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: t, labels: {app: b}}
spec:
  nodeName: node2
  containers:
    - name: c
      command: [ambit, tool, http-server, --port, '8080', --text, hello from b]
      readinessProbe: {tcpSocket: {port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: b-service, namespace: t}
spec: {selector: {app: b}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 8080}]}
";

#[allow(clippy::print_stdout, reason = "what was not tested must be seen")]
fn skipped(test: &str, said: &str) {
    println!("SKIPPED {test}: this machine lacks what `ambit up` needs: {said}");
}

impl Mesh {
    /// `None`, said loudly, where namespaces cannot be had.
    fn start(test: &str, yaml: &str) -> Option<Mesh> {
        let name = format!("t-{test}-{}", std::process::id());
        let home = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(home.join("yaml")).unwrap();
        std::fs::write(home.join("yaml/all.yaml"), yaml).unwrap();
        let mut up = ambit(&home)
            .args(["up", "--no-mesh", "--quiet", "--name", &name, "-f"])
            .arg(home.join("yaml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        loop {
            if up.try_wait().unwrap().is_some() {
                let said = String::from_utf8_lossy(&up.wait_with_output().unwrap().stderr).into_owned();
                assert!(said.contains("cannot make") || said.contains("cannot run here"), "it did not start: {said}");
                skipped(test, &said);
                return None;
            }
            let output = ambit(&home).args(["status", "--wait", "1", "--name", &name]).output().unwrap();
            if output.status.success() {
                return Some(Mesh { name, home, up });
            }
            assert!(began.elapsed() < PATIENCE, "not ready: {}{}", text(&output.stdout), text(&output.stderr));
        }
    }

    fn exec(&self, pod: &str, command: &[&str]) -> Output {
        ambit(&self.home).args(["exec", "--name", &self.name, pod, "--"]).args(command).output().unwrap()
    }

    fn status(&self) -> Value {
        let output = ambit(&self.home).args(["status", "-o", "json", "--name", &self.name]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "waited for {what}: {status:#}");
        }
    }

    fn write(&self, file: &str, yaml: &str) {
        std::fs::write(self.home.join("yaml").join(file), yaml).unwrap();
    }

    fn run_dir(&self) -> PathBuf {
        self.home.join("ambit")
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.up.kill();
        let _ = self.up.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn ambit(home: &Path) -> Command {
    let mut command = Command::new(AMBIT);
    // Its own runtime directory: tests see nothing of other meshes.
    command.env("XDG_RUNTIME_DIR", home).env_remove("AMBIT_NAME");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pod<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["pods"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn pods_reach_each_other_by_service_name_over_both_families() {
    let Some(mesh) = Mesh::start("reach", PODS) else { return };
    for url in ["http://b-service/", "http://b-service.t.svc.cluster.local/"] {
        let output = mesh.exec("t/a", &["ambit", "tool", "http-get", url]);
        assert_eq!(text(&output.stdout), "hello from b\n", "{url}: {}", text(&output.stderr));
    }
    let status = mesh.status();
    let addresses = status["services"][0]["ips"].as_array().unwrap();
    assert_eq!(addresses.len(), 2, "dual stack: {status:#}");
    let ipv6 = format!("http://[{}]:80/", addresses[1].as_str().unwrap());
    let output = mesh.exec("t/a", &["ambit", "tool", "http-get", &ipv6]);
    assert_eq!(text(&output.stdout), "hello from b\n", "{ipv6}: {}", text(&output.stderr));
}

#[test]
fn exec_passes_the_exit_code_and_gives_a_pod_no_rights_over_its_network() {
    let Some(mesh) = Mesh::start("exec", PODS) else { return };
    assert_eq!(mesh.exec("t/a", &["sh", "-c", "exit 7"]).status.code(), Some(7));
    let status = text(&mesh.exec("t/a", &["cat", "/proc/self/status"]).stdout);
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap().trim();
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT,
    // MKNOD, AUDIT_WRITE, SETFCAP: what container runtimes give.
    assert_eq!(bounding, "00000000a80425fb");
    let run = mesh.run_dir().join(&mesh.name);
    assert!(run.join("control.sock").exists());
    let seen = mesh.exec("t/a", &["ls", "-A", run.to_str().unwrap()]);
    assert_eq!(text(&seen.stdout), "", "a pod must not see the mesh's own files");
    for (program, code) in [("no-such-program", 127), ("/etc/hosts", 126)] {
        let output = mesh.exec("t/a", &[program]);
        assert_eq!(output.status.code(), Some(code), "{program}: {}", text(&output.stderr));
    }
    let missing = mesh.exec("t/nobody", &["true"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("there is no pod nobody in namespace t"), "{}", text(&missing.stderr));
}

#[test]
fn edits_take_effect_and_bad_yaml_changes_nothing() {
    let Some(mesh) = Mesh::start("edit", PODS) else { return };
    let before = pod(&mesh.status(), "b")["uid"].clone();

    mesh.write("all.yaml", &format!("{PODS}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: [\n"));
    let status = mesh.wait("the bad document to be reported", |s| !s["rejected"].as_array().unwrap().is_empty());
    assert_eq!(status["rejected"][0]["file"], "all.yaml", "{status:#}");
    assert!(status["rejected"][0]["line"].is_u64() && status["rejected"][0]["column"].is_u64(), "{status:#}");
    assert_eq!(pod(&status, "b")["uid"], before, "what was good keeps running");

    // The address of a pod that goes is another's at once.
    let ip = "10.244.1.77";
    let fixed = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: t, annotations: {{ambit.dev/pod-ip: {ip}}}}},
             spec: {{nodeName: node1, containers: [{{name: c, command: [ambit, tool, http-server, --text, I am {name}],
             readinessProbe: {{tcpSocket: {{port: 8080}}}}}}]}}}}"
        )
    };
    mesh.write("fixed.yaml", &fixed("first"));
    mesh.wait("the first pod", |s| pod(s, "first")["ready"] == true);
    mesh.write("fixed.yaml", &fixed("second"));
    mesh.wait("the second pod", |s| pod(s, "second")["ready"] == true && pod(s, "first").is_null());
    let output = mesh.exec("t/a", &["ambit", "tool", "http-get", &format!("http://{ip}:8080/")]);
    assert_eq!(text(&output.stdout), "I am second\n", "{}", text(&output.stderr));

    mesh.write("all.yaml", PODS.split("---").next().unwrap());
    mesh.wait("b to be gone", |s| pod(s, "b").is_null() && s["services"].as_array().unwrap().is_empty());
    assert_ne!(mesh.exec("t/a", &["ambit", "tool", "http-get", "http://b-service/"]).status.code(), Some(0));
}

/// What a kubelet does around a pod's containers: sidecars first and last, hooks, probes, aliases.
#[test]
fn sidecars_begin_first_and_end_last_and_hooks_are_run() {
    const TOLD: &str = "while :; do sleep 0.05; done";
    let yaml = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: k, namespace: t}}
spec:
  hostname: another
  hostAliases: [{{ip: 10.9.9.9, hostnames: [far.example]}}]
  initContainers:
    - {{name: setup, command: [sh, -c, echo begins]}}
    - name: side
      restartPolicy: Always
      command: [sh, -c, 'echo begins; trap \"echo ends; exit 0\" TERM; {TOLD}']
      startupProbe: {{exec: {{command: [sh, -c, 'echo asked whether side has started']}}}}
  containers:
    - name: main
      command: [sh, -c, 'echo begins; trap \"echo ends; exit 0\" TERM; {TOLD}']
      lifecycle:
        postStart: {{exec: {{command: [sh, -c, echo after the start]}}}}
        preStop: {{exec: {{command: [sh, -c, echo before the end]}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: dead, namespace: t}}
spec:
  containers:
    - {{name: c, command: [sh, -c, '{TOLD}'], livenessProbe: {{exec: {{command: ['false']}}, failureThreshold: 1}}}}
"
    );
    let Some(mesh) = Mesh::start("kubelet", PODS) else { return };
    mesh.write("kubelet.yaml", &yaml);
    mesh.wait("the pod with a sidecar", |s| pod(s, "k")["ready"] == true);
    let status = mesh.wait("a pod that is not alive to be started again", |s| {
        pod(s, "dead")["restarts"].as_u64().is_some_and(|n| n > 0)
    });
    assert_eq!(pod(&status, "k")["restarts"], 0);
    assert_eq!(text(&mesh.exec("t/k", &["hostname"]).stdout), "another\n");
    assert!(text(&mesh.exec("t/k", &["cat", "/etc/hosts"]).stdout).contains("\n10.9.9.9 far.example\n"));

    mesh.write("kubelet.yaml", "");
    mesh.wait("the pod to be gone", |s| pod(s, "k").is_null());
    let log = std::fs::read_to_string(mesh.run_dir().join(&mesh.name).join("logs/pods/t_k.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    // The sidecar is started before its probe is asked; which of them is heard first is chance.
    for asked in ["[side] begins", "[probe] after the start"] {
        assert!(lines.contains(&asked), "{asked:?} is missing: {lines:#?}");
    }
    let expected = [
        "[setup] begins",
        "[probe] asked whether side has started",
        "[main] begins",
        "[probe] before the end",
        "[main] ends",
        "[side] ends",
    ];
    let mut at = 0;
    for line in expected {
        let found = lines[at..].iter().position(|l| *l == line);
        at += found.unwrap_or_else(|| panic!("{line:?} is not where it should be: {lines:#?}")) + 1;
    }
}

#[test]
fn a_killed_mesh_leaves_nothing_behind() {
    let Some(mut mesh) = Mesh::start("kill", PODS) else { return };
    let second = ambit(&mesh.home)
        .args(["up", "--no-mesh", "--name", &mesh.name, "-f"])
        .arg(mesh.home.join("yaml"))
        .output()
        .unwrap();
    assert!(text(&second.stderr).contains("is already running"), "{}", text(&second.stderr));

    mesh.up.kill().unwrap();
    mesh.up.wait().unwrap();
    // The machine ends when its outside does; the kernel needs a moment to take it all down.
    let marker = mesh.home.to_str().unwrap().to_owned();
    let began = Instant::now();
    while processes_with(&marker) > 0 {
        assert!(began.elapsed() < PATIENCE, "processes of the mesh are still there");
        std::thread::yield_now();
    }
    let status = ambit(&mesh.home).args(["status", "--name", &mesh.name]).output().unwrap();
    assert!(text(&status.stderr).contains("no mesh"), "{}", text(&status.stderr));
    let left: Vec<_> = std::fs::read_dir(mesh.run_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// How many processes were started for this mesh; all of them have its directory in their environment or arguments.
fn processes_with(marker: &str) -> usize {
    let has =
        |path: PathBuf| std::fs::read(path).is_ok_and(|b| b.windows(marker.len()).any(|w| w == marker.as_bytes()));
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| has(format!("/proc/{pid}/cmdline").into()))
        .count()
}
