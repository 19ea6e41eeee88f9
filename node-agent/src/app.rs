//! Wiring, in the order in which parts need each other. No decisions.

use std::sync::Arc;

use anyhow::Context as _;
use http::{Method, StatusCode};
use mesh_handoff::AgentEnd;
use mesh_runtime::drain;
use mesh_runtime::http_server::{self, Listeners, Router, response};
use mesh_runtime::metrics::Metrics;
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::agent::{Agent, Inputs, Policy};
use crate::config::{Config, Source};
use crate::kubernetes::report::Told;
use crate::metrics::AgentMetrics;
use crate::netns::Netns;
use crate::node::Node;
use crate::operations::Tools;
use crate::probes::Probes;
use crate::{enrolled, kubernetes, plugin_server, pods};

/// CNI calls that may wait for the loop.
const CALLS: usize = 64;

/// Runs the agent until it is asked to end. Nothing it made is taken away then: enrolled pods stay enrolled, and new
/// pods cannot start, until the next agent is there. Only an agent that is [uninstalled](crate::kubernetes::owner) leaves
/// pods and node as they were before.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    // Tasks end with this function.
    let mut tasks = JoinSet::new();

    // 1. Be observed, from the first moment.
    let mut metrics = Metrics::new("node-agent", env!("CARGO_PKG_VERSION"));
    let agent_metrics = AgentMetrics::register(&mut metrics);
    let metrics = Arc::new(metrics);
    let readiness = Readiness::new();
    let [pods_known, handoff_open, plugin_open, enrolment] =
        ["pods", "handoff", "plugin", "enrolment"].map(|part| readiness.register(part));
    let (_drain, watch_drain) = drain::new();
    for (port, routes) in [(config.health_port, health(&readiness)), (config.monitoring_port, metrics.routes())] {
        if let Some(port) = port {
            let listeners = Listeners::wildcard(port).with_context(|| format!("cannot listen on port {port}"))?;
            tasks.spawn(discard(http_server::serve(listeners, routes, watch_drain.clone())));
        }
    }

    // 2. Learn the pods. Without a list there is nothing to say to a ztunnel that would not be wrong.
    let refresh = Arc::new(Notify::new());
    let (sender, mut pods) = watch::channel(None);
    let (told_sender, told) = watch::channel(Told::default());
    let mut node = match &config.source {
        Source::File(file) => {
            tasks.spawn(pods::follow(file.clone(), refresh.clone(), sender));
            None
        }
        Source::Kubernetes(kubernetes) => {
            let node = Node::new(kubernetes, &config.node_name).await?;
            tasks.spawn(kubernetes::pods::follow(node.client.clone(), config.node_name.clone(), sender));
            Some(node)
        }
    };
    let first = tokio::select! {
        first = pods::known(&mut pods) => first,
        _ = shutdown.requested() => return Ok(()),
    };
    pods_known.ready();

    // 3. Make the node's own rules, then take up the pods a predecessor left.
    let handoff = AgentEnd::new();
    let probes = match config.kubelet_uid {
        Some(uid) => {
            let netns = match &node {
                Some(node) => node.sandboxes.of_node(),
                None => Netns::own(),
            };
            let netns = netns.context("cannot open the node's own network namespace")?;
            Some(Probes::install(netns, uid).await.context("set AMBIENT_HOST_PROBES=false to go without")?)
        }
        None => None,
    };
    let policy = Policy {
        selection: config.selection.clone(),
        defaults: config.redirection,
        enrolled_file: config.enrolled_file.clone(),
        told: told_sender,
    };
    let before = enrolled::read(&config.enrolled_file).unwrap_or_else(|error| {
        tracing::warn!(%error, "what the last agent had reached is not known");
        enrolled::States::default()
    });
    let sandboxes = node.as_ref().map(|node| node.sandboxes.clone());
    let tools = Arc::new(Tools::new(handoff.clone(), probes, sandboxes));
    let mut agent = Agent::new(tools.clone(), policy, agent_metrics, enrolment);
    agent.restore(&first, &before).await;

    // 4. Only now the snapshot is true: answer ztunnels, then CNI plugins.
    let (events_sender, events) = mpsc::unbounded_channel();
    let listening = handoff
        .listen(&config.ztunnel_socket)
        .with_context(|| format!("cannot listen for ztunnel at {}", config.ztunnel_socket.display()))?;
    tasks.spawn(listening.serve(events_sender));
    handoff_open.ready();
    let (calls_sender, calls) = mpsc::channel(CALLS);
    let listener = plugin_server::listen(&config.plugin_socket)
        .with_context(|| format!("cannot listen for the CNI plugin at {}", config.plugin_socket.display()))?;
    tasks.spawn(plugin_server::serve(listener, calls_sender));
    plugin_open.ready();

    // 5. Now that it is answered, the plugin may ask; and users are told.
    if let Some(node) = &mut node {
        node.keep_plugin(&readiness);
        node.report(&config.node_name, pods.clone(), told);
    }

    tracing::info!(node = config.node_name, pods = first.len(), "the node agent is ready");
    let inputs = Inputs { pods, refresh, calls, events };
    tokio::select! {
        () = agent.run(inputs) => anyhow::bail!("the list of pods is no longer followed; this is a bug"),
        reason = shutdown.requested() => tracing::info!(?reason, "leaving"),
    }
    match node {
        Some(mut node) if node.is_uninstalled().await => {
            node.take_plugin_out().await;
            agent.let_all_go().await;
            drop(agent);
            if let Some(probes) = &tools.probes {
                probes.uninstall().await?;
            }
            node.told_all().await;
            for path in [&config.ztunnel_socket, &config.plugin_socket, &config.enrolled_file] {
                let _ = std::fs::remove_file(path);
            }
            tracing::info!("uninstalled: the node is as it was before");
        }
        _ => tracing::info!("pods stay enrolled, and new ones wait for the next agent"),
    }
    Ok(())
}

/// `/healthz` (alive) and `/readyz` (new pods can be enrolled), as Istio's node agent has them.
fn health(readiness: &Readiness) -> Router {
    let readiness = readiness.clone();
    Router::new()
        .route(Method::GET, "/healthz", "Whether this process is alive", |_| {
            std::future::ready(response(StatusCode::OK, "text/plain", "ok\n"))
        })
        .route(Method::GET, "/readyz", "Whether new pods can be enrolled", move |_| {
            let pending: Vec<String> = readiness.pending().iter().map(ToString::to_string).collect();
            let (status, text) = match pending.as_slice() {
                [] => {
                    let remarks: String = readiness.remarks().iter().map(|remark| format!("{remark}\n")).collect();
                    (StatusCode::OK, format!("ready\n{remarks}"))
                }
                pending => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready, pending: {}\n", pending.join(", "))),
            };
            std::future::ready(response(status, "text/plain", text))
        })
}

async fn discard(serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::warn!(%error, "a server for health or metrics ended");
    }
}
