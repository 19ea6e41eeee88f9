//! A real API server with its etcd, on loopback, for one test. What it runs ends with it, however the test ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;

/// Names the folder of `etcd`, `kube-apiserver` and `kubectl` (in `bin`), and of Istio's definitions (in `crds`).
const FOLDER: &str = "AMBIT_TEST_CLUSTER";
/// What the API server logs of requests: who writes what.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, verbs: [create, update, patch, delete]}]
";
/// How long the API server may take: it fills an empty etcd first, on a machine that is busy.
const START: Duration = Duration::from_secs(180);

/// The API server. Dropped, it is gone.
pub(crate) struct ApiServer {
    programs: PathBuf,
    pub(crate) files: tempfile::TempDir,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    server: Option<Child>,
}

impl ApiServer {
    /// Starts it. None, and said loudly, where its programs are not.
    #[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
    pub(crate) fn start() -> Option<Self> {
        let programs = std::env::var_os(FOLDER).map(PathBuf::from);
        let Some(programs) = programs.filter(|folder| folder.join("bin/kube-apiserver").exists()) else {
            eprintln!("SKIPPED: {FOLDER} names no folder with bin/kube-apiserver, bin/etcd and bin/kubectl");
            return None;
        };
        let files = tempfile::tempdir().unwrap();
        let [port, etcd_port, peer_port] = ports();
        keys(files.path(), port);
        let (clients, peers) = (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{peer_port}"));
        let etcd = spawn(
            &programs.join("bin/etcd"),
            files.path(),
            &[
                format!("--data-dir={}", files.path().join("etcd").display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                // What is lost with the test need not be on a disk.
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ],
        );
        let mut api = Self { programs, files, port, etcd_port, etcd, server: None };
        api.resume();
        Some(api)
    }

    /// Credentials of the administrator, where the API server is meant to be.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }

    /// The API server's log of writes, one in JSON in each line.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.files.path().join("audit.log")
    }

    /// Kills the API server; what it knows stays in etcd.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Starts it (again), where it was.
    pub(crate) fn resume(&mut self) {
        self.resume_at(self.port);
    }

    /// Starts it somewhere else: whoever knows where it was does not find it. `kubectl` does.
    pub(crate) fn resume_elsewhere(&mut self) {
        let [port] = ports();
        self.resume_at(port);
    }

    fn resume_at(&mut self, port: u16) {
        let file = |name: &str| self.files.path().join(name).display().to_string();
        fs::write(file("kubectl.config"), kubeconfig(self.files.path(), port)).unwrap();
        fs::write(file("audit.yaml"), AUDIT).unwrap();
        self.server = Some(spawn(
            &self.programs.join("bin/kube-apiserver"),
            self.files.path(),
            &[
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={port}"),
                "--advertise-address=127.0.0.1".into(),
                "--endpoint-reconciler-type=none".into(),
                format!("--tls-cert-file={}", file("server.crt")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--audit-policy-file={}", file("audit.yaml")),
                format!("--audit-log-path={}", file("audit.log")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", file("accounts.pub")),
                format!("--service-account-signing-key-file={}", file("accounts.key")),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                "--authorization-mode=RBAC".into(),
                // Would mount a token into each pod, which has no kubelet to do so.
                "--disable-admission-plugins=ServiceAccount".into(),
                // What is killed is gone at once.
                "--shutdown-delay-duration=0s".into(),
            ],
        ));
        let begun = Instant::now();
        while self.try_kubectl(&["get", "--raw=/readyz"], "").is_err() {
            assert!(begun.elapsed() < START, "the API server is not ready after {START:?}: {}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Forgets every state before the current one, as etcd does every few minutes.
    pub(crate) fn compact(&self) {
        let ask = |path: &str, body: &str| -> Value {
            let mut stream = TcpStream::connect(("127.0.0.1", self.etcd_port)).unwrap();
            let head = format!(
                "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + body).as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|_| panic!("etcd: {answer}"))
        };
        let revision = ask("/v3/kv/range", r#"{"key": "AA=="}"#)["header"]["revision"].as_str().unwrap().to_owned();
        let done = ask("/v3/kv/compaction", &format!(r#"{{"revision": "{revision}", "physical": true}}"#));
        assert!(done["header"].is_object(), "{done}");
    }

    /// Runs `kubectl`, as administrator.
    pub(crate) fn kubectl(&self, args: &[&str], input: &str) -> String {
        self.try_kubectl(args, input).unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    pub(crate) fn try_kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(self.programs.join("bin/kubectl"))
            .args(args)
            .env("KUBECONFIG", self.files.path().join("kubectl.config"))
            .env("KUBECACHEDIR", self.files.path().join("cache"))
            .env("KUBERC", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end before it has read all.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Applies objects.
    pub(crate) fn apply(&self, yaml: &str) {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], yaml);
    }

    /// An object.
    pub(crate) fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"], "")).unwrap()
    }

    /// What the control plane's own account may do, as its chart says: None, and said loudly, where there is no `helm`.
    pub(crate) fn chart_rights(&self) -> Option<String> {
        self.chart("rbac")
    }

    /// What a template of the control plane's chart makes: None, and said loudly, where there is no `helm`.
    pub(crate) fn chart(&self, template: &str) -> Option<String> {
        self.chart_set(template, &[])
    }

    /// [`Self::chart`], with values that are set.
    pub(crate) fn chart_set(&self, template: &str, values: &[&str]) -> Option<String> {
        let values = values.iter().map(|value| format!("--set={value}"));
        let all: Vec<String> = values.chain([format!("--show-only=templates/{template}.yaml")]).collect();
        self.rendered("istiod-lite", &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Our chart's own definitions of kinds, and the roles of users: None, and said loudly, where there is no `helm`.
    pub(crate) fn chart_kinds(&self) -> Option<String> {
        self.rendered("crds", &[])
    }

    #[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
    fn rendered(&self, chart: &str, more: &[&str]) -> Option<String> {
        let helm = self.programs.join("bin/helm");
        if !helm.exists() {
            eprintln!("SKIPPED: {} is not there, so the control plane runs as administrator", helm.display());
            return None;
        }
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm").join(chart);
        let mut command = Command::new(helm);
        command.args(["template", "istiod", "--namespace=istio-system", "--kube-version=1.36.1"]).arg(chart).args(more);
        // Nothing of it in anybody's home.
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.files.path());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    /// Credentials of a service account, in a file.
    pub(crate) fn account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "-n", namespace], "");
        let file = self.files.path().join(name);
        let admin = kubeconfig(self.files.path(), self.port);
        let (before, rest) = admin.split_once("user: {").unwrap();
        let (_, after) = rest.split_once('}').unwrap();
        fs::write(&file, format!("{before}user: {{token: {}}}{after}", token.trim())).unwrap();
        file
    }

    /// Istio's definition of a kind.
    pub(crate) fn definition(&self, name: &str) -> String {
        // Gateway API's are each in a file of its own.
        if let Some((plural, group)) = name.split_once('.').filter(|(_, group)| group.starts_with("gateway.")) {
            return fs::read_to_string(self.programs.join(format!("crds/{group}_{plural}.yaml"))).unwrap();
        }
        let all = fs::read_to_string(self.programs.join("crds/crd-all.gen.yaml")).unwrap();
        let line = format!("\n  name: {name}\n");
        all.split("\n---").find(|document| document.contains(&line)).unwrap_or_else(|| panic!("no {name}")).to_owned()
    }

    fn logs(&self) -> String {
        let of = |name: &str| fs::read_to_string(self.files.path().join(name)).unwrap_or_default();
        let all = of("etcd.log") + &of("kube-apiserver.log");
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.kill();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

/// Ends with this process: a test that is killed leaves nothing.
fn spawn(program: &Path, files: &Path, args: &[String]) -> Child {
    let name = program.file_name().unwrap().to_str().unwrap();
    let log = fs::OpenOptions::new().create(true).append(true).open(files.join(format!("{name}.log"))).unwrap();
    // The shell asks for it, and the program takes its place.
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg("--").arg(program).args(args);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Ports of loopback that are free.
fn ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn keys(files: &Path, port: u16) {
    let write = |name: &str, text: &str| fs::write(files.join(name), text).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write("ca.crt", &ca.pem());
    let issue = |name: &str, group: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.crt"), &params.signed_by(&key, &ca).unwrap().pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    };
    issue("server", "", &["127.0.0.1", "localhost"]);
    issue("admin", "system:masters", &[]);
    let accounts = KeyPair::generate().unwrap();
    write("accounts.pub", &accounts.public_key_pem());
    write("accounts.key", &accounts.serialize_pem());
    write("kubeconfig", &kubeconfig(files, port));
}

fn kubeconfig(files: &Path, port: u16) -> String {
    let file = |name: &str| files.join(name).display().to_string();
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', \
         certificate-authority: '{}'}}}}]\nusers: [{{name: a, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: a}}}}]\ncurrent-context: c\n",
        file("ca.crt"),
        file("admin.crt"),
        file("admin.key")
    )
}
