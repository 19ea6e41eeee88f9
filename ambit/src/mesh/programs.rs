//! Which of the mesh's programs run, where, and with which settings.
use super::readiness::Readiness;
use super::supervise::{GRACE, Instance, Program, Supervised};
use super::token::{self, Bearer, Issuer};
use super::{overlay, setting, waypoints};
use crate::exe;
use crate::machine::MachineArgs;
use crate::manifest::Key;
use crate::net::addressing;
use crate::net::links::Fabric;
use crate::node::Node;
use crate::pods::output::Log;
use crate::run_dir::{RunDir, write_atomically};
use crate::status::ProgramStatus;
use crate::sys::children::Children;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use mesh_runtime::config::Env;
use node_agent::config::Config;
use node_agent::pods::Pods;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};

/// Port of istiod-lite on the fabric.
const ISTIOD_PORT: u16 = 15012;
/// The service account that ztunnels' tokens are for.
const NAMESPACE: &str = "istio-system";
const ACCOUNT: &str = "ztunnel";

const ISTIOD_READY: Readiness = Readiness { port: 15021, path: "/healthz/ready" };
/// Two, because an old and a new ztunnel run side by side while one is replaced.
const ZTUNNEL_READY: [Readiness; 2] =
    [Readiness { port: 15021, path: "/healthz/ready" }, Readiness { port: 15022, path: "/healthz/ready" }];
/// Not the agent's default, 8000, which pods on the node's network may want.
const AGENT_READY: Readiness = Readiness { port: 15025, path: "/readyz" };

/// What a ztunnel needs to end, after the last connection that it cut.
const PAST_DRAIN: Duration = Duration::from_secs(5);

/// The mesh's programs; none in a machine without a mesh.
pub(crate) struct Programs {
    supervised: Vec<Supervised>,
    ztunnels: Vec<Ztunnel>,
    /// Signs what they prove themselves with; None without a mesh.
    issuer: Option<Arc<Issuer>>,
    /// Waypoints that run, as pods.
    waypoints: Arc<Mutex<BTreeMap<Key, Waypoint>>>,
    /// What each node's agent was told, by the node's name.
    agents: BTreeMap<String, Config>,
    stop: watch::Sender<Option<Duration>>,
    renewal: Option<tokio::task::JoinHandle<()>>,
}

/// A ztunnel as the pod it would be.
#[derive(Debug, Clone)]
struct Ztunnel {
    name: String,
    uid: String,
    node: String,
    node_uid: String,
}

/// A waypoint as the pod it is.
#[derive(Debug, Clone)]
struct Waypoint {
    service_account: String,
    uid: String,
    node: String,
    node_uid: String,
}

impl Programs {
    /// Starts them all. They find each other by themselves, in any order.
    pub(crate) async fn start(
        args: &MachineArgs,
        run: &RunDir,
        fabric: &Fabric,
        nodes: &[Node],
        children: &Arc<Children>,
        changed: &Arc<Notify>,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(None);
        if args.no_mesh {
            let (supervised, ztunnels, agents, waypoints) = Default::default();
            return Ok(Programs { supervised, ztunnels, issuer: None, waypoints, agents, stop, renewal: None });
        }
        let issuer = Arc::new(Issuer::new()?);
        let waypoints = Arc::default();
        std::fs::create_dir_all(run.waypoint_tokens()).context("cannot make the directory of waypoints' tokens")?;
        std::fs::write(run.token_issuer(), issuer.public_pem()).context("cannot write the key that verifies tokens")?;
        let ztunnels: Vec<Ztunnel> = nodes
            .iter()
            .map(|n| Ztunnel {
                name: format!("ztunnel-{}", n.name),
                uid: crate::uid::new(),
                node: n.name.clone(),
                node_uid: n.uid.clone(),
            })
            .collect();
        write_tokens(&issuer, run, &ztunnels)?;
        let mut programs = vec![istiod(args, run, fabric)?];
        for (node, ztunnel) in nodes.iter().zip(&ztunnels) {
            programs.push(node_agent(run, node)?);
            programs.push(self::ztunnel(args, run, node, ztunnel)?);
        }
        for program in &mut programs {
            program.env.extend(setting::of(&args.settings, &program.name));
        }
        if let Some(stray) = args.settings.iter().find(|s| !programs.iter().any(|p| s.is_for(&p.name))) {
            let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
            bail!("--set {stray}: there is no such program; there are: {}", names.join(", "));
        }
        let agents = nodes.iter().map(|node| Ok((node.name.clone(), agent(&programs, node)?)));
        let agents = agents.collect::<Result<_>>()?;
        let supervised = programs
            .into_iter()
            .map(|p| Supervised::start(p, Arc::clone(children), Arc::clone(changed), stopped.clone()))
            .collect();
        let renewing = renew_tokens(Arc::clone(&issuer), run.clone(), ztunnels.clone(), Arc::clone(&waypoints));
        let (issuer, renewal) = (Some(issuer), Some(tokio::spawn(renewing)));
        Ok(Programs { supervised, ztunnels, issuer, waypoints, agents, stop, renewal })
    }

    /// Whether there is a mesh at all.
    pub(crate) fn take_part(&self) -> bool {
        !self.ztunnels.is_empty()
    }

    /// The settings that the agent of a node was started with; None without a mesh.
    pub(crate) fn agent(&self, node: &str) -> Option<&Config> {
        self.agents.get(node)
    }

    /// The programs as pods, and the service account that their tokens are of, for the control plane.
    pub(crate) fn pods(&self, nodes: &[Node]) -> Vec<Value> {
        let pods = self.ztunnels.iter().filter_map(|z| {
            let node = nodes.iter().find(|n| n.name == z.node)?;
            Some(overlay::ztunnel(&z.name, &z.uid, &z.node, node.ips()[0]))
        });
        let account = overlay::service_account(NAMESPACE, ACCOUNT, &token::account_uid(NAMESPACE, ACCOUNT));
        pods.chain([account]).collect()
    }

    /// Gives a waypoint's pod what it proves itself with, and goes on renewing it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn prove(&self, run: &RunDir, key: &Key, pod: &Pod, uid: &str, node: &Node) -> Result<()> {
        let Some(issuer) = &self.issuer else { return Ok(()) };
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let waypoint = Waypoint {
            service_account: account.unwrap_or_default(),
            uid: uid.to_owned(),
            node: node.name.clone(),
            node_uid: node.uid.clone(),
        };
        write_waypoint_token(issuer, run, key, &waypoint)?;
        self.waypoints.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), waypoint);
        Ok(())
    }

    /// A pod is gone; if it was a waypoint's, nobody needs its token.
    pub(crate) fn forget(&self, run: &RunDir, key: &Key) {
        let known = self.waypoints.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if known.is_some()
            && let Err(e) = std::fs::remove_file(waypoints::token(&run.waypoint_tokens(), key))
        {
            tracing::warn!("cannot remove the token of {}/{}: {e}", key.0, key.1);
        }
    }

    /// How they are.
    ///
    /// `given_up` are the pods, NAMESPACE/NAME, that the control plane no longer waits for.
    pub(crate) fn status(&self, given_up: &[String]) -> Vec<ProgramStatus> {
        let older_tables = |name: &str| {
            given_up.contains(&format!("{NAMESPACE}/{name}")).then(|| {
                format!(
                    "it has not acknowledged what is published, and is not waited for any longer: its pods may be served \
                     by older tables. See `ambit logs {name}`, or `ambit restart {name}`"
                )
            })
        };
        self.supervised
            .iter()
            .map(|s| {
                let state = s.state();
                ProgramStatus {
                    name: s.name.clone(),
                    pid: state.pid,
                    ready: state.ready,
                    not_ready: state.not_ready,
                    restarts: state.restarts,
                    last_end: state.last_end,
                    draining: state.draining,
                    not_replaced: state.not_replaced,
                    older_tables: older_tables(&s.name),
                }
            })
            .collect()
    }

    /// Asks for a new instance of one of them, which then takes the place of the one that runs.
    ///
    /// # Errors
    /// There is no such program.
    pub(crate) fn replace(&self, name: &str) -> Result<()> {
        let names = || self.supervised.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        let one = self.supervised.iter().find(|s| s.name == name);
        one.with_context(|| format!("there is no program {name}; there are: {}", names()))?.replace();
        Ok(())
    }

    /// Ends them all; each may take `patience` to finish what it is doing.
    pub(crate) async fn stop(self, patience: Duration) {
        self.stop.send_replace(Some(patience));
        for supervised in self.supervised {
            supervised.stopped().await;
        }
        if let Some(renewal) = self.renewal {
            renewal.abort();
        }
    }
}

async fn renew_tokens(
    issuer: Arc<Issuer>,
    run: RunDir,
    ztunnels: Vec<Ztunnel>,
    waypoints: Arc<Mutex<BTreeMap<Key, Waypoint>>>,
) {
    loop {
        tokio::time::sleep(token::RENEWAL).await;
        if let Err(e) = write_tokens(&issuer, &run, &ztunnels) {
            tracing::error!("cannot renew tokens: {e:#}");
        }
        for (key, waypoint) in &*waypoints.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Err(e) = write_waypoint_token(&issuer, &run, key, waypoint) {
                tracing::error!("cannot renew tokens: {e:#}");
            }
        }
    }
}

fn write_waypoint_token(issuer: &Issuer, run: &RunDir, key: &Key, waypoint: &Waypoint) -> Result<()> {
    let bearer = Bearer {
        namespace: &key.0,
        service_account: &waypoint.service_account,
        pod: &key.1,
        pod_uid: &waypoint.uid,
        node: &waypoint.node,
        node_uid: &waypoint.node_uid,
    };
    let text = issuer.token(&bearer, SystemTime::now())?;
    let file = waypoints::token(&run.waypoint_tokens(), key);
    write_atomically(&file, text.as_bytes()).with_context(|| format!("cannot write the token of {}/{}", key.0, key.1))
}

fn write_tokens(issuer: &Issuer, run: &RunDir, ztunnels: &[Ztunnel]) -> Result<()> {
    for z in ztunnels {
        let bearer = Bearer {
            namespace: NAMESPACE,
            service_account: ACCOUNT,
            pod: &z.name,
            pod_uid: &z.uid,
            node: &z.node,
            node_uid: &z.node_uid,
        };
        let text = issuer.token(&bearer, SystemTime::now())?;
        write_atomically(&run.token(&z.node), text.as_bytes())
            .with_context(|| format!("cannot write the token of {}", z.name))?;
    }
    Ok(())
}

/// Settings every program gets.
fn common_env(run: &RunDir) -> Vec<(String, String)> {
    let mut env = vec![("AMBIT_MESH".to_owned(), run.name().to_owned()), ("RUST_BACKTRACE".to_owned(), "1".to_owned())];
    for name in ["RUST_LOG", "LOG_FORMAT", "PATH"] {
        if let Ok(value) = std::env::var(name) {
            env.push((name.to_owned(), value));
        }
    }
    if let Some(path) = exe::overridden().and_then(|p| p.into_string().ok()) {
        env.push((exe::OVERRIDE.to_owned(), path));
    }
    env
}

fn log(run: &RunDir, name: &str) -> Result<Log> {
    let path = run.program_log(name);
    Log::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

fn istiod(args: &MachineArgs, run: &RunDir, fabric: &Fabric) -> Result<Program> {
    let name = "istiod-lite".to_owned();
    let mut env = common_env(run);
    env.extend(
        [
            ("OVERLAY", path(&run.status())),
            ("STATE_DIR", path(&run.istiod())),
            ("LISTEN_ADDRESS", format!("{}:{ISTIOD_PORT}", addressing::FABRIC_V4)),
            ("STATUS_FILE", path(&run.istiod_status())),
            ("ACKNOWLEDGED_FILE", path(&run.acknowledged())),
            ("TOKEN_PUBLIC_KEY", path(&run.token_issuer())),
            ("TOKEN_ISSUER", token::ISSUER.to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v)),
    );
    let netns = Arc::new(fabric.netns().try_clone()?);
    Ok(Program {
        args: vec!["istiod-lite".into(), path(&args.folder)],
        env,
        netns,
        instances: vec![ISTIOD_READY.into()],
        log: log(run, &name)?,
        grace: GRACE,
        title: title(run, &name),
        name,
    })
}

fn agent_name(node: &Node) -> String {
    format!("node-agent-{}", node.name)
}

/// What the agent of a node makes of the settings that it is started with.
fn agent(programs: &[Program], node: &Node) -> Result<Config> {
    let name = agent_name(node);
    let program = programs.iter().find(|program| program.name == name).context("every node has an agent")?;
    let settings: Env = program.env.iter().cloned().collect();
    Config::from_env(&settings).with_context(|| format!("the settings of {name}"))
}

fn node_agent(run: &RunDir, node: &Node) -> Result<Program> {
    let name = agent_name(node);
    // An empty list: without the file the agent would wait for it.
    let nobody = serde_json::to_vec(&Pods::default())?;
    write_atomically(&run.pods_file(&node.name), &nobody).context("cannot write a node's list of pods")?;
    let mut env = common_env(run);
    env.extend(
        [
            ("NODE_NAME", node.name.clone()),
            ("ZTUNNEL_UDS_ADDRESS", path(&run.ztunnel_socket(&node.name))),
            ("PODS_FILE", path(&run.pods_file(&node.name))),
            ("ENROLLED_FILE", path(&run.enrolled_file(&node.name))),
            ("CNI_EVENT_ADDRESS", path(&run.plugin_socket(&node.name))),
            ("HEALTH_PORT", AGENT_READY.port.to_string()),
            ("AMBIENT_IPV6", node.ipv6.to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v)),
    );
    let netns = Arc::clone(&node.netns);
    Ok(Program {
        args: vec!["node-agent".into()],
        env,
        netns,
        instances: vec![AGENT_READY.into()],
        log: log(run, &name)?,
        grace: GRACE,
        title: title(run, &name),
        name,
    })
}

/// What every waypoint is told; None without a mesh.
pub(crate) fn waypoints(args: &MachineArgs, run: &RunDir) -> Option<waypoints::Settings> {
    let mut env = common_env(run);
    env.extend(control_plane(run));
    env.push(("CLUSTER_ID".into(), "Kubernetes".into()));
    env.extend(args.secret_ttl.iter().map(|ttl| ("SECRET_TTL".to_owned(), ttl.clone())));
    (!args.no_mesh).then(|| waypoints::Settings { env, tokens: run.waypoint_tokens() })
}

/// Where the control plane is, and how it proves itself.
fn control_plane(run: &RunDir) -> Vec<(String, String)> {
    let istiod = format!("https://{}:{ISTIOD_PORT}", addressing::FABRIC_V4);
    let root = path(&run.istiod().join("root-cert.pem"));
    [
        ("XDS_ADDRESS", istiod.clone()),
        ("CA_ADDRESS", istiod),
        ("XDS_ROOT_CA", root.clone()),
        ("CA_ROOT_CA", root),
        ("ALT_XDS_HOSTNAME", "istiod.istio-system.svc".into()),
        ("ALT_CA_HOSTNAME", "istiod.istio-system.svc".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn ztunnel(args: &MachineArgs, run: &RunDir, node: &Node, pod: &Ztunnel) -> Result<Program> {
    let name = pod.name.clone();
    let mut env = common_env(run);
    env.extend(control_plane(run));
    env.extend(
        [
            ("INPOD_UDS", path(&run.ztunnel_socket(&node.name))),
            ("AUTH_TOKEN", path(&run.token(&node.name))),
            ("NODE_NAME", node.name.clone()),
            ("POD_NAME", pod.name.clone()),
            ("POD_NAMESPACE", "istio-system".into()),
            ("SERVICE_ACCOUNT", "ztunnel".into()),
            ("INSTANCE_IP", node.ips()[0].to_string()),
            ("CLUSTER_ID", "Kubernetes".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v)),
    );
    if let Some(ttl) = &args.secret_ttl {
        env.push(("SECRET_TTL".into(), ttl.clone()));
    }
    let netns = Arc::clone(&node.netns);
    let instances = ZTUNNEL_READY
        .map(|readiness| Instance { env: vec![("READINESS_PORT".to_owned(), readiness.port.to_string())], readiness });
    Ok(Program {
        args: vec!["ztunnel".into()],
        env,
        netns,
        instances: instances.into(),
        log: log(run, &name)?,
        grace: grace(&setting::of(&args.settings, &name).collect())?,
        title: title(run, &name),
        name,
    })
}

/// Longer than a ztunnel with these settings gives its connections.
fn grace(settings: &Env) -> Result<Duration> {
    Ok(GRACE.max(ztunnel::config::check(settings)?.drain + PAST_DRAIN))
}

fn title(run: &RunDir, program: &str) -> String {
    format!("ambit@{}/{program}", run.name())
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ztunnel_is_not_killed_before_its_drain_is_over() {
        for (set, expected) in [
            (&[][..], 30),
            (&[("CONNECTION_TERMINATION_DEADLINE", "40s")], 45),
            (&[("TERMINATION_GRACE_PERIOD_SECONDS", "120")], 120),
        ] {
            assert_eq!(grace(&set.iter().copied().collect()).unwrap().as_secs(), expected, "{set:?}");
        }
    }
}
