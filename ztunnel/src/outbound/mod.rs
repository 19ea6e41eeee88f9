//! Connections that pods open: accept → plan → carry.

mod downstream;
mod plan;
mod same_node;
pub(crate) mod socks;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use mesh_hbone::carry;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::pool::Key;
use mesh_model::balance::Choice;
use mesh_model::destination::{AcrossTo, PlainTo, TunnelTo};
use mesh_model::reason::ReasonCode;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_proxy::connections::OutboundConnection;
use mesh_proxy::dial::across::{self, Requests};
use mesh_proxy::dial::{self, classify, no_certificate, traffic};
use mesh_proxy::local_workload;
use mesh_proxy::overload;
use mesh_proxy::report::{Party, Report, Traffic};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Reporter, ResponseFlags};
use mesh_runtime::trace::TraceParent;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::carried::Carries;
use crate::context::WorkerContext;
use crate::pod::Pod;
use crate::serving::Worker;
use crate::sockets;
use downstream::Downstream;
use plan::Plan;

/// So often a connection that was dialled in the clear is dialled anew, in the clear perhaps, because the tables changed.
const MOST_CHANGES: u32 = 2;

/// So many pods of a waypoint are dialled for one connection, while they refuse it.
const MOST_WAYPOINTS: u32 = 3;

/// Serves one captured connection from `from`.
///
/// What is only needed until bytes flow is boxed, and so is each kind of connection: a task is as large as the largest
/// thing it ever awaits in place, and most tasks only carry.
pub(crate) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, from: SocketAddr) {
    let dialled = match sockets::original_destination(&tcp) {
        Ok(dialled) => dialled,
        Err(error) => return tracing::debug!(pod = %pod.local.info, %error, "connection gone before it was served"),
    };
    let way = (from, dialled);
    let Some(_permit) =
        overload::admit(&worker.context.proxy.telemetry, &pod.local.quota, Direction::Outbound, &tcp, way, None)
    else {
        return;
    };
    let attempt = Report::attempt(&worker.context.proxy.telemetry, Direction::Outbound, from, dialled);
    let deadline = local_workload::deadline();
    let client = match worker.context.proxy.local_workload(&pod.local.info, deadline).await {
        Ok(client) => client,
        Err(error) => return attempt.failed(ReasonCode::UnknownWorkload, &error),
    };
    // Not kept for as long as the connection.
    drop(attempt);
    go(worker, pod, Downstream::captured(tcp), client, way, deadline).await;
}

/// Sees a connection of `client`, a pod of ours, to `dialled` through; `from` is what others see. What the control plane
/// has to say is awaited until `deadline`.
async fn go(
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    mut downstream: Downstream,
    client: Arc<Workload>,
    (from, dialled): (SocketAddr, SocketAddr),
    deadline: Instant,
) {
    let attempt = Report::attempt(&worker.context.proxy.telemetry, Direction::Outbound, from, dialled);
    let _in_use = match worker.context.proxy.complete(&client, dialled.ip(), deadline).await {
        Ok(in_use) => in_use,
        Err(error) => return attempt.failed(ReasonCode::NoAnswerOnDemand, &error),
    };
    let config = &worker.context.config;
    let by = Choice { random: rand::random(), busy: &|waypoint| worker.carried.of(waypoint) };
    let decide = |t: &Tables| plan::plan(t, &client, &config.network, config.socks, (from, dialled), by);
    let mut plan = worker.context.proxy.tables.read(decide);
    let mut resolved = None;
    let (mut changes, mut waypoints) = (0, 0);
    let seen = |to: SocketAddr, tunnel: bool| {
        worker.connections.add_outbound(OutboundConnection { pod: pod.local.info.clone(), from, dialled, to, tunnel })
    };
    loop {
        plan = match plan {
            Plan::Resolve(name) => {
                let hostnames = &worker.context.hostnames;
                worker.context.hostname_metrics.count(&client, name.hostname());
                match hostnames.address(name.hostname(), name.ipv4_first(), rand::random()).await {
                    Ok(ip) => {
                        resolved = Some((name.hostname().clone(), ip));
                        plan::of(name.at(ip), &client, from)
                    }
                    Err(error) => return attempt.failed(error.code(), &error),
                }
            }
            Plan::Refuse(refusal) => return attempt.failed(refusal.code(), &refusal),
            Plan::Plain(to) => {
                let _seen = seen(to.address, false);
                // The tables may have changed while it was dialled. They are looked at once more when it is open, before it
                // carries anything: whoever has told the control plane that it knows a pod to take tunnels sends it
                // nothing in the clear any more.
                let instead =
                    || plan::instead(worker.context.proxy.tables.read(decide), resolved.as_ref(), &client, from);
                match Box::pin(plain(&worker, &pod, &client, downstream, from, to, instead)).await {
                    Some((_, Plan::Resolve(name))) if changes == MOST_CHANGES => {
                        let error = format!(
                            "the control plane changed where it leads each time it was dialled, at last to {}",
                            name.hostname()
                        );
                        return attempt.failed(ReasonCode::DestinationUnsettled, &error);
                    }
                    Some((back, instead)) => {
                        changes += 1;
                        downstream = back;
                        instead
                    }
                    None => return,
                }
            }
            Plan::Tunnel { key, to } => {
                let _seen = seen(to.peer, true);
                if let Some(neighbour) = same_node::neighbour(&worker, &to) {
                    let with = (&client, deadline);
                    return Box::pin(same_node::serve(&worker, neighbour, with, downstream, from, &key, to)).await;
                }
                let Some(back) = Box::pin(tunnel(&worker, &pod, &client, downstream, from, &key, to)).await else {
                    return;
                };
                // That pod is the last choice now: where it is chosen again, there is no other.
                downstream = back;
                waypoints += 1;
                match worker.context.proxy.tables.read(decide) {
                    Plan::Tunnel { key: other, to } if waypoints < MOST_WAYPOINTS && other != key => {
                        Plan::Tunnel { key: other, to }
                    }
                    _ => return,
                }
            }
            Plan::Across { key, to } => {
                let _seen = seen(to.outer.peer, true);
                return Box::pin(across(&worker, &pod, &client, downstream, from, &key, to)).await;
            }
        }
    }
}

/// Plain TCP to a destination outside the mesh, or one that the mesh does not know. Gives the connection back, untouched,
/// if there is another plan for it `instead` once it could begin.
async fn plain(
    worker: &Worker,
    pod: &Pod,
    client: &Arc<Workload>,
    downstream: Downstream,
    from: SocketAddr,
    to: PlainTo,
    instead: impl Fn() -> Option<Plan>,
) -> Option<(Downstream, Plan)> {
    let report = Report::open(
        &worker.context.proxy.telemetry,
        Traffic {
            direction: Direction::Outbound,
            reporter: Reporter::Source,
            from,
            to: to.address,
            hbone_to: None,
            source: Party::workload(client, None),
            destination: Party::known(to.workload.as_ref()),
            service: to.service.clone(),
            secured: false,
            trace: None,
        },
    );
    let dialling = Box::pin(pod.dialler.dial(None, to.address, &pod.sockets));
    let dialled = tokio::select! {
        biased;
        () = downstream.gone() => {
            report.failed(ResponseFlags::Connect, ReasonCode::CallerGone, &downstream::GONE);
            return None;
        }
        dialled = dialling => dialled,
    };
    let result = match dialled {
        Ok(remote) => {
            if let Some(plan) = instead() {
                report.forget();
                return Some((downstream, plan));
            }
            report.opened();
            carry::tcp_and_tcp(downstream.opened(), pod.dialler.look_after(remote), report.count_from_client()).await
        }
        Err(error) => {
            report.failed(ResponseFlags::Connect, ReasonCode::ConnectFailed, &error);
            return None;
        }
    };
    report.ended(result);
    None
}

/// A tunnel to a peer that proves who it is. Gives the connection back, untouched, if it was for a pod of a waypoint at which nobody
/// listens: another pod may do.
async fn tunnel(
    worker: &Worker,
    pod: &Pod,
    client: &Arc<Workload>,
    downstream: Downstream,
    from: SocketAddr,
    key: &Key,
    to: TunnelTo,
) -> Option<Downstream> {
    let context = &worker.context;
    let trace = TraceParent::random();
    let report = Report::open(&context.proxy.telemetry, traffic(Reporter::Source, client, from, key, &to, trace));
    let carries = to.via_waypoint.then(|| worker.carried.one(&to.workload));
    let request = match request(context, pod, client, from, &to, &trace, None) {
        Ok(request) => request,
        Err(error) => {
            report.failed(ResponseFlags::Connect, ReasonCode::BadRequest, &error);
            return None;
        }
    };
    let opened = tokio::select! {
        biased;
        () = downstream.gone() => {
            report.failed(ResponseFlags::Connect, ReasonCode::CallerGone, &downstream::GONE);
            return None;
        }
        opened = pod.local.pool.open(key, request, || connect_to(worker, pod, key)) => opened,
    };
    match opened {
        Ok((opened, _peer)) => {
            carries.iter().for_each(Carries::opened);
            report.opened();
            let result = carry::tcp_and_tunnel(downstream.opened(), opened.tunnel, report.count_from_client()).await;
            report.ended(result);
            None
        }
        Err(error) => {
            carries.iter().for_each(Carries::failed);
            let (flags, code) = classify(&error);
            report.failed(flags, code, &error);
            (carries.is_some() && matches!(error, OpenError::Connect { .. })).then_some(downstream)
        }
    }
}

/// A tunnel within a tunnel, to somebody on another network.
async fn across(
    worker: &Worker,
    pod: &Pod,
    client: &Arc<Workload>,
    downstream: Downstream,
    from: SocketAddr,
    key: &Key,
    AcrossTo { outer, expected }: AcrossTo,
) {
    let context = &worker.context;
    let trace = TraceParent::random();
    let attempt = async {
        let invalid = |error: http::Error| (ResponseFlags::Connect, ReasonCode::BadRequest, error.to_string());
        let requests = Requests {
            outer: request(context, pod, client, from, &outer, &trace, None).map_err(invalid)?,
            inner: request(context, pod, client, from, &outer, &trace, Some(&context.config.network))
                .map_err(invalid)?,
        };
        let credentials = context.proxy.certificates.get(&key.source).await.map_err(|error| {
            let (flags, code) = classify(&no_certificate(error.clone()));
            (flags, code, error.to_string())
        })?;
        let settings = &context.proxy.hbone;
        let connect = || connect_to(worker, pod, key);
        across::open(&pod.local.pool, key, &expected, requests, credentials, settings, connect).await.map_err(|error| {
            let (flags, code) = classify(&error.error);
            (flags, code, error.to_string())
        })
    };
    let attempt = tokio::select! {
        biased;
        () = downstream.gone() => Err((ResponseFlags::Connect, ReasonCode::CallerGone, downstream::GONE.to_owned())),
        attempt = Box::pin(attempt) => attempt,
    };
    // The gateway is all that our tables know of; who answered behind it has proven it (ambient contract 11.1).
    let destination = match &attempt {
        Ok((_, peer)) => peer.as_ref(),
        Err(_) => outer.expected.first(),
    };
    let report = Report::open(
        &context.proxy.telemetry,
        Traffic {
            direction: Direction::Outbound,
            reporter: Reporter::Source,
            from,
            to: outer.peer,
            hbone_to: Some(outer.authority.clone()),
            source: Party::workload(client, Some(&key.source)),
            destination: Party::workload(&outer.workload, destination),
            service: outer.service.clone(),
            secured: true,
            trace: Some(trace),
        },
    );
    match attempt {
        Ok((opened, _)) => {
            report.opened();
            let result = carry::tcp_and_tunnel(downstream.opened(), opened.tunnel, report.count_from_client()).await;
            report.ended(result);
        }
        Err((flags, code, error)) => report.failed(flags, code, &error),
    }
}

/// The CONNECT of a tunnel of `client`, a pod of ours.
fn request(
    context: &WorkerContext,
    pod: &Pod,
    client: &Arc<Workload>,
    from: SocketAddr,
    to: &TunnelTo,
    trace: &TraceParent,
    network: Option<&str>,
) -> Result<Request<()>, http::Error> {
    let baggage = context.config.baggage.then(|| pod.local.baggage(client));
    dial::request(baggage.as_deref().unwrap_or_default(), from, to, trace, network)
}

/// A new connection for the pool: from inside the pod's namespace, so that the peer sees the pod's address.
async fn connect_to(worker: &Worker, pod: &Pod, key: &Key) -> Result<Client, OpenError> {
    let dial = async {
        let tcp = pod.dialler.dial(None, key.peer, &pod.sockets).await?.opened();
        sockets::keep_alive(&tcp, &pod.sockets);
        Ok(tcp)
    };
    dial::connect(&worker.context.proxy.certificates, key, &worker.context.proxy.hbone, dial).await
}
