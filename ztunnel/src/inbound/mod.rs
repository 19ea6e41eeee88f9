//! Tunnels that come to pods: prove the caller, admit, judge, connect to the application, carry.

pub(crate) mod admit;
pub(crate) mod plaintext;
pub(crate) mod proxy_protocol;
mod seen;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, StatusCode};
use mesh_hbone::carry;
use mesh_hbone::connect::{self, Baggage};
use mesh_hbone::server::Asked;
use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::policy::{Facts, Reason};
use mesh_model::reason::ReasonCode;
use mesh_model::service::Service;
use mesh_model::share::Source;
use mesh_model::workload::Workload;
use mesh_proxy::connections::{Registration, until_cut};
use mesh_proxy::inbound::{self, TunnelContext};
use mesh_proxy::judge::{Judgement, judge};
use mesh_proxy::local_workload::deadline;
use mesh_proxy::quota;
use mesh_proxy::report::{Party, Report, Traffic};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Reporter, ResponseFlags};
use mesh_runtime::trace::TraceParent;
use mesh_xds::demand::InUse;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::dialler::Dialled;
use crate::pod::Pod;
use crate::serving::Worker;
use admit::Admitted;
use seen::source_of;

/// Serves one HBONE connection from `from`: each of its tunnels is a task of the pod.
pub(crate) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, from: SocketAddr) {
    let proxy = &worker.context.proxy;
    let begin = |asked: Asked, connection: TunnelContext| {
        pod.spawn(tunnel(worker.clone(), pod.clone(), connection, asked), proxy.drain.token());
    };
    inbound::serve(proxy, &pod.local, Reporter::Destination, tcp, from, begin).await;
}

/// Serves one tunnel. The 200 comes last: after the policies have allowed it and the application is connected. If its pod
/// is no longer served, the task of this ends with it, and its report tells as it is dropped.
async fn tunnel(worker: Rc<Worker>, pod: Rc<Pod>, mut connection: TunnelContext, asked: Asked) {
    let context = &worker.context;
    let TunnelContext { local, from, ref caller, .. } = connection;
    let attempt = Report::attempt(&context.proxy.telemetry, Direction::Inbound, from, local);
    if asked.method != Method::CONNECT {
        asked.refuse(StatusCode::BAD_REQUEST, ReasonCode::BadRequest);
        return attempt.failed(ReasonCode::BadRequest, &"the method is not CONNECT");
    }
    let target = match connect::parse_authority(&asked.authority) {
        Ok(target) => target,
        Err(error) => {
            asked.refuse(StatusCode::BAD_REQUEST, ReasonCode::BadRequest);
            return attempt.failed(ReasonCode::BadRequest, &error);
        }
    };
    // The address is the one that was proven; the port is only told, and serves only as one that is probably free.
    let told = connect::forwarded_for(&asked.headers).filter(|client| client.ip() == from.ip());
    let port = told.map(|client| client.port());
    let trace = connect::traceparent(&asked.headers).and_then(TraceParent::parse);
    let request = TunnelRequest { local, from, port, caller, target: &target, trace, deadline: deadline() };
    let describe = |workload: &Workload, facts: &Facts| {
        let (source, service) = telemetry(&worker, workload, &asked, from.ip(), facts);
        let party = match &source {
            Some(source) => Party::workload(source, Some(caller)),
            None if context.config.baggage => Party::told(&Baggage::parse(&asked.headers), caller),
            None => Party::told(&Baggage::default(), caller),
        };
        (party, service)
    };
    let Entered { workload, application, report, permit: _permit, registration: _registration, cut, in_use: _in_use } =
        match Box::pin(enter(&worker, &pod, &request, asked.withdrawn(), describe)).await {
            Ok(entered) => entered,
            Err(turned) => return asked.refuse(turned.status, turned.code),
        };
    let baggage = context.config.baggage.then(|| pod.local.baggage(&workload));
    let tunnel = match asked.accept(baggage.as_deref().unwrap_or_default()) {
        Ok(tunnel) => tunnel,
        Err(error) => return report.failed(ResponseFlags::Connect, ReasonCode::CallerGone, &error),
    };
    report.opened();
    let application = pod.dialler.look_after(application);
    let carried = until_cut(carry::tcp_and_tunnel(application, tunnel, report.count_from_server()), cut);
    let carried = tokio::select! {
        biased;
        carried = carried => carried,
        () = connection.revoked() => return report.revoked(),
    };
    match carried {
        Ok(result) => report.ended(result),
        // Dropping the tunnel resets it: the caller sees a cut, not an end.
        Err(reason) => report.cut(&reason),
    }
}

/// What a proven caller asks of a pod of ours.
pub(crate) struct TunnelRequest<'a> {
    /// The address it came to.
    pub(crate) local: SocketAddr,
    /// The address it came from.
    pub(crate) from: SocketAddr,
    /// The port that its application has there, if it is known.
    pub(crate) port: Option<u16>,
    pub(crate) caller: &'a SpiffeId,
    pub(crate) target: &'a Authority,
    /// What it says of its trace, if that can be read.
    pub(crate) trace: Option<TraceParent>,
    /// Until when it may wait for the control plane.
    pub(crate) deadline: Instant,
}

/// A caller that was let in, and its connection to the application.
pub(crate) struct Entered {
    pub(crate) workload: Arc<Workload>,
    pub(crate) application: Dialled,
    pub(crate) report: Report,
    /// Counts it as held of its pod; to be kept as long as the connection.
    pub(crate) permit: quota::Permit,
    /// Lists it as open; to be kept as long as the connection.
    pub(crate) registration: Registration,
    /// Resolves when the policies no longer allow it.
    pub(crate) cut: oneshot::Receiver<Reason>,
    /// What was asked for on demand; to be kept as long.
    pub(crate) in_use: InUse,
}

/// A caller that was turned away; this has been reported.
pub(crate) struct TurnedAway {
    pub(crate) status: StatusCode,
    pub(crate) code: ReasonCode,
}

/// Admits a caller, asks the policies, connects to the application, in this order. `gone` resolves when the caller no
/// longer waits: then the application is not connected. `describe` tells who the caller is and which service it means,
/// for telemetry.
pub(crate) async fn enter(
    worker: &Worker,
    pod: &Pod,
    request: &TunnelRequest<'_>,
    gone: impl Future<Output = ()>,
    describe: impl FnOnce(&Workload, &Facts) -> (Party, Option<Arc<Service>>),
) -> Result<Entered, TurnedAway> {
    let context = &worker.context;
    let TunnelRequest { local, from, port, caller, target, trace, deadline } = *request;
    let attempt = Report::attempt(&context.proxy.telemetry, Direction::Inbound, from, local);
    let permit = pod.local.quota.connection(Some(&Source::Identity(caller.clone()))).map_err(|full| {
        attempt.failed(full.code(), &full);
        TurnedAway { status: StatusCode::SERVICE_UNAVAILABLE, code: full.code() }
    })?;
    // Asked for each tunnel: the workload may have changed since the connection was made.
    let workload = context.proxy.local_workload(&pod.local.info, deadline).await.map_err(|error| {
        attempt.failed(ReasonCode::UnknownWorkload, &error);
        TurnedAway { status: StatusCode::SERVICE_UNAVAILABLE, code: ReasonCode::UnknownWorkload }
    })?;
    // What is asked for and is not ours may be what we are the waypoint of.
    let in_use = match target {
        Authority::Address(address) if !workload.addresses.contains(&address.ip()) => {
            context.proxy.complete(&workload, address.ip(), deadline).await.map_err(|error| {
                attempt.failed(ReasonCode::NoAnswerOnDemand, &error);
                TurnedAway { status: StatusCode::SERVICE_UNAVAILABLE, code: ReasonCode::NoAnswerOnDemand }
            })?
        }
        _ => InUse::default(),
    };
    let admitted = context.proxy.tables.read(|t| admit::target(t, &workload, local, target));
    let admitted =
        admitted.and_then(|admitted| admit::port(admitted, pod.only, context.config.socks)).map_err(|error| {
            attempt.failed(error.code(), &error);
            TurnedAway { status: error.status(), code: error.code() }
        })?;
    let facts = Facts { source_ip: from.ip(), source: Some(caller.clone()), destination: admitted.application };
    let (source, service) = describe(&workload, &facts);
    let meant = service.clone();
    let mut report = Report::open(
        &context.proxy.telemetry,
        Traffic {
            direction: Direction::Inbound,
            reporter: Reporter::Destination,
            from,
            to: local,
            hbone_to: Some(Authority::Address(admitted.application)),
            source,
            destination: Party::workload(&workload, workload.identity().ok().as_ref()),
            service,
            secured: true,
            trace,
        },
    );
    match judge(&context.proxy.tables, &pod.local.info, &workload, &facts, deadline).await {
        Judgement::Decided(decision) if decision.allowed => report.decided(&decision),
        judgement => {
            report.denied(&judgement);
            return Err(TurnedAway { status: StatusCode::UNAUTHORIZED, code: judgement.code() });
        }
    }
    let (registration, cut) = worker.connections.add_inbound(pod.local.info.clone(), facts, from.port(), meant);
    let connected = tokio::select! {
        biased;
        () = gone => None,
        connected = connect(worker, pod, (from, port), caller, &admitted) => Some(connected),
    };
    match connected {
        Some(Ok(application)) => Ok(Entered { workload, application, report, permit, registration, cut, in_use }),
        None => {
            report.failed(
                ResponseFlags::Connect,
                ReasonCode::CallerGone,
                &"the caller took its request back before it was answered",
            );
            Err(TurnedAway { status: StatusCode::SERVICE_UNAVAILABLE, code: ReasonCode::CallerGone })
        }
        Some(Err(error)) => {
            report.failed(ResponseFlags::Connect, ReasonCode::ApplicationUnreachable, &error);
            Err(TurnedAway { status: StatusCode::SERVICE_UNAVAILABLE, code: ReasonCode::ApplicationUnreachable })
        }
    }
}

/// Connects to the application; one that is a waypoint is told first who calls and what was asked for.
async fn connect(
    worker: &Worker,
    pod: &Pod,
    (from, port): (SocketAddr, Option<u16>),
    caller: &SpiffeId,
    admitted: &Admitted,
) -> io::Result<Dialled> {
    let config = &worker.context.config;
    let Some(asked) = admitted.proxied else {
        let source = source_of(from, port, admitted.application);
        return pod.dialler.dial(source, admitted.application, &pod.sockets).await;
    };
    let (source, to) = proxy_protocol::dial_at(from, admitted.application, config.localhost_app_tunnel);
    let mut application = pod.dialler.dial(source, to, &pod.sockets).await?;
    application.tcp().write_all(&proxy_protocol::header(from, asked, Some(caller))).await?;
    Ok(application)
}

/// Who seems to call and which service they seem to mean: for telemetry only, from tables and from what was told.
fn telemetry(
    worker: &Worker,
    workload: &Workload,
    asked: &Asked,
    source_ip: IpAddr,
    facts: &Facts,
) -> (Option<Arc<Workload>>, Option<Arc<Service>>) {
    worker.context.proxy.tables.read(|tables| {
        // A waypoint's or gateway's address is its own; a caller whose proven identity differs is somebody else. So is one
        // who comes from another network, where the same address may be in use.
        let elsewhere = connect::from_another_network(&asked.headers, &worker.context.config.network);
        let here = if elsewhere { None } else { tables.workload_by_address(&workload.network, source_ip) };
        let source = here.filter(|w| w.identity().ok().as_ref() == facts.source.as_ref());
        let told = connect::forwarded_host(&asked.headers)
            .and_then(|host| workload.services.keys().find(|key| *key.name == *host));
        let port = facts.destination.port();
        let guessed = || {
            let serves = |ports: &[mesh_model::workload::PortMapping]| ports.iter().any(|p| p.target_port == port);
            workload.services.iter().find(|(_, ports)| serves(ports)).map(|(key, _)| key)
        };
        let service = told.or_else(guessed).and_then(|key| tables.service(key));
        (source.cloned(), service.cloned())
    })
}
