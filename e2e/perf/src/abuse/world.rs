//! The mesh that is attacked, with a CA of the run's own.
use super::attacker::SERVICE_PORT;
use super::attacks::At;
use crate::processes;
use crate::wire::{ECHO_PORT, HTTP_PORT, WEB_PORT};
use crate::world::certificates::Authority;
use crate::world::child::Child;
use crate::world::{self, Pod};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where the control plane of every mesh of `ambit up` is.
pub(super) const CONTROL_PLANE: &str = "https://172.30.0.1:15012";
/// The namespace of the good pods.
pub(super) const NAMESPACE: &str = "abuse";
/// The waypoint in front of two services of [`NAMESPACE`].
const WAYPOINT: &str = "waypoint";
/// The attacked one of these.
const ATTACKED: &str = "attacked";
/// The other one.
const BESIDE: &str = "beside";
/// The keys of an issuer who has signed nothing.
const JWKS: &str = r#"{"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "2026", "n": "zaR6LzeI1w9IrgzOZ7QJEWTST1N4Lf2MLFZBJ4pifu4E8Yl0tYGYRe0Mh0JEV_wWYbmY0gMOXST4sIhEUe1e0WAlLMuk_Kj2DuLYBchK5Qt8qmMo13d_RlOJN-TPcLmWoEiP0sLJ7w_9w6PdS25UgED6FQfC8GR7o5kH_emeWtn5X8g6nacV6EAU7-xWfv5UrNXoKJCfU_2u_Zs1cGqLlgEuCt6Yo_B7qwZdK9diI-llK8joIhv204zNsElP7snM7X7hoqK8wJbswJGmNquVZ9zH1ptJ-7sjB2ryYk7QVbfHbWWR8E2SuXZx61GCVO4ZWivLO6cWPAYZme40S2b26w", "e": "AQAB"}]}"#;
/// Rules of the attacked service's routes: four objects of sixteen, which is as many as one may have.
const ROUTES: [usize; 2] = [4, 16];
/// Who calls.
pub(super) const CLIENT: &str = "client";
/// The attackers' certificates.
pub(super) const CHAIN: &str = "attacker.pem";
/// And their key.
pub(super) const KEY: &str = "attacker.key";

/// A mesh that runs; it ends when this is dropped.
pub(super) struct World {
    pub(super) client: Pod,
    pub(super) victim: Pod,
    pub(super) other: Pod,
    pub(super) attacker: Pod,
    /// Who attacks what it may call.
    pub(super) tenant: Pod,
    /// The waypoint's pod.
    pub(super) waypoint: IpAddr,
    /// The address of the service that is attacked through it.
    pub(super) attacked: IpAddr,
    /// Of the other service.
    beside: IpAddr,
    /// Process of the ztunnel on the callers' node: whoever enters its network is on that node.
    pub(super) near_ztunnel: u32,
    /// Of the attacked node.
    ztunnel: u32,
    istiod: u32,
    waypoint_process: u32,
    /// What the control plane's certificate is checked with.
    pub(super) root: PathBuf,
    /// What a ztunnel proves itself with.
    pub(super) token: PathBuf,
    /// Files for the attackers.
    pub(super) files: PathBuf,
    directory: PathBuf,
    _up: Child,
}

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) ztunnel: f64,
    pub(crate) istiod: f64,
    pub(crate) waypoint: f64,
}

impl Memory {
    pub(super) fn most(self, other: Self) -> Self {
        Self {
            ztunnel: self.ztunnel.max(other.ztunnel),
            istiod: self.istiod.max(other.istiod),
            waypoint: self.waypoint.max(other.waypoint),
        }
    }
}

impl World {
    /// `hold`: for so many seconds the server that does not read keeps a connection.
    pub(super) fn start(own: &Path, directory: &Path, hold: f64) -> Result<Self> {
        let (folder, files) = (directory.join("yaml"), directory.join("files"));
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&files)?;
        let authority = Authority::new()?;
        for (name, text) in [
            ("ca-cert.pem", authority.root_pem()),
            ("root-cert.pem", authority.root_pem()),
            ("ca-key.pem", authority.key_pem()),
        ] {
            fs::write(files.join(name), text)?;
        }
        let leaf = authority.leaf(&format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/attacker"))?;
        fs::write(files.join(CHAIN), leaf.chain_pem)?;
        fs::write(files.join(KEY), leaf.key_pem)?;
        fs::write(folder.join("pods.yaml"), yaml(own, hold))?;
        fs::write(folder.join("waypoint.yaml"), behind_a_waypoint())?;
        let name = format!("abuse-{}", std::process::id());
        let plugged = format!("istiod-lite:PLUGGED_CA={}", files.display());
        let (up, status) = world::up(own, own, &name, directory, &folder, &["--set", &plugged])?;
        let tree = processes::descendants(up.id())?;
        let pod = |name| world::pod(&status, &tree, NAMESPACE, name);
        let program = |title: &str| {
            let found = tree.iter().find(|(_, words)| words.first().is_some_and(|word| word.ends_with(title)));
            found.map(|(pid, _)| *pid).with_context(|| format!("found no process {title}"))
        };
        let service = |name: &str| {
            let mut all = status.services.iter().filter(|service| service.namespace == NAMESPACE);
            let found =
                all.find(|service| service.name == name).and_then(|service| service.ips.iter().find(|ip| ip.is_ipv4()));
            found.copied().with_context(|| format!("service {name} has no IPv4 address"))
        };
        let waypoint = status.pod(NAMESPACE, &format!("{WAYPOINT}-1")).context("there is no waypoint")?;
        let is_waypoint = |words: &[String]| words.get(1).is_some_and(|word| word == WAYPOINT);
        let waypoint_process = tree.iter().find(|(_, words)| is_waypoint(words)).map(|(pid, _)| *pid);
        let run = ambit::files_of(&name)?;
        let world = World {
            client: pod(CLIENT)?,
            victim: pod("victim")?,
            other: pod("other")?,
            attacker: world::pod(&status, &tree, "outside", "attacker")?,
            tenant: world::pod(&status, &tree, "tenants", "tenant")?,
            waypoint: *waypoint.ips.iter().find(|ip| ip.is_ipv4()).context("the waypoint has no IPv4 address")?,
            attacked: service(ATTACKED)?,
            beside: service(BESIDE)?,
            near_ztunnel: program("/ztunnel-node1")?,
            ztunnel: program("/ztunnel-node2")?,
            istiod: program("/istiod-lite")?,
            waypoint_process: waypoint_process.context("found no process of the waypoint")?,
            root: files.join("root-cert.pem"),
            token: run.join("nodes/node1/token"),
            files,
            directory: directory.to_owned(),
            _up: up,
        };
        ensure!(world.token.exists(), "there is no token at {}", world.token.display());
        Ok(world)
    }

    /// What good callers call, beside attacks at `at`: what is attacked, and another one.
    pub(super) fn called(&self, at: At) -> [SocketAddr; 2] {
        match at {
            At::Waypoint => [self.attacked, self.beside].map(|ip| SocketAddr::new(ip, SERVICE_PORT)),
            At::Pod | At::ControlPlane => [&self.victim, &self.other].map(|pod| SocketAddr::new(pod.ip, ECHO_PORT)),
        }
    }

    /// What is held now.
    pub(super) fn memory(&self) -> Result<Memory> {
        let resident = |pid| anyhow::Ok(processes::memory(pid)?.resident);
        Ok(Memory {
            ztunnel: resident(self.ztunnel)?,
            istiod: resident(self.istiod)?,
            waypoint: resident(self.waypoint_process)?,
        })
    }

    pub(super) fn last_words(&self) -> String {
        world::last_words(&self.directory)
    }
}

fn yaml(own: &Path, hold: f64) -> String {
    let mut yaml = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{istio.io/dataplane-mode: ambient}}}}}}\n\
         ---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: tenants, labels: {{istio.io/dataplane-mode: ambient}}}}}}\n\
         ---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: outside}}}}\n"
    );
    let pods = [
        (NAMESPACE, CLIENT, "node1"),
        (NAMESPACE, "victim", "node2"),
        (NAMESPACE, "other", "node2"),
        ("outside", "attacker", "node1"),
        // Not on the callers' node: what it holds of that node's ztunnel is not what is looked at.
        ("tenants", "tenant", "node2"),
    ];
    for (namespace, name, node) in pods {
        yaml += &format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  serviceAccountName: {name}
  containers:
    - name: {name}
      command: [{own}, serve, {name}, --hold, '{hold}']
      readinessProbe: {{tcpSocket: {{port: {HTTP_PORT}}}, periodSeconds: 1}}
",
            // A JSON string is a YAML string, whatever is in it.
            own = serde_json::Value::from(own.to_string_lossy()),
        );
    }
    yaml
}

/// A waypoint in front of two services; of the attacked one it has much to look at.
fn behind_a_waypoint() -> String {
    let mut yaml = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {WAYPOINT}, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
"
    );
    for (service, pod) in [(ATTACKED, "victim"), (BESIDE, "other")] {
        yaml += &format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: {service}, namespace: {NAMESPACE}, labels: {{istio.io/use-waypoint: {WAYPOINT}}}}}
spec:
  selector: {{app: {pod}}}
  ports: [{{name: http, port: {SERVICE_PORT}, targetPort: {WEB_PORT}}}]
"
        );
    }
    for route in 0..ROUTES[0] {
        yaml += &format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {ATTACKED}-{route}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: {ATTACKED}}}]
  rules:
"
        );
        for rule in 0..ROUTES[1] {
            yaml += &format!(
                "    - matches: [{{path: {{type: RegularExpression, value: '/r/(A|[.~])+x{route}{rule}'}}, headers: [{{name: x-1, type: \
                 RegularExpression, value: 'y+z'}}], queryParams: [{{name: name, value: v{rule}}}]}}]\n      \
                 backendRefs: [{{name: {ATTACKED}, port: {SERVICE_PORT}}}]\n"
            );
        }
    }
    yaml + &format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {ATTACKED}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: {ATTACKED}}}]
  rules:
    - backendRefs: [{{name: {ATTACKED}, port: {SERVICE_PORT}}}]
      retry: {{codes: [503], attempts: 3, backoff: 10ms}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {ATTACKED}, namespace: {NAMESPACE}}}
spec:
  host: {ATTACKED}
  trafficPolicy: {{connectionPool: {{http: {{maxRetries: 16}}}}}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: {ATTACKED}, namespace: {NAMESPACE}}}
spec:
  targetRefs: [{{group: '', kind: Service, name: {ATTACKED}}}]
  jwtRules:
    - issuer: https://issuer.example
      jwks: '{JWKS}'
"
    )
}
