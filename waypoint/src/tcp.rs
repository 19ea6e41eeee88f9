//! What is no HTTP: judged once, carried to one endpoint, judged again when policies change.
//!
//! In order: the policies of the service, so that whoever may not come in learns nothing of routes; its TCPRoutes and TLSRoutes; the
//! policies of the backend's own service, where that is another one: a route grants nobody more than dialling would; an endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_hbone::duplex::Duplex;
use mesh_model::policy::{Decision, Facts, Reason};
use mesh_model::reason::ReasonCode;
use mesh_model::route::stream::ServerNames;
use mesh_model::route::{ServiceRoutes, StreamRule, StreamSelected, To, stream};
use mesh_model::service::Service;
use mesh_model::traffic::HashBy;
use mesh_model::workload::Workload;
use mesh_proxy::judge::Judgement;
use mesh_proxy::report::Report;
use mesh_runtime::metrics::ResponseFlags;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::client_hello::{self, NoClientHello};
use crate::http::{Caller, behind_us, dialled};
use crate::judge;
use crate::sniff::Peeked;
use crate::target::Target;
use crate::upstream::{self, Picked, hash_of_address};

/// Where a connection goes.
struct Way {
    /// The backend of a route, else the service itself.
    service: Arc<Service>,
    dialled: SocketAddr,
    subset: Option<Arc<str>>,
}

/// Why a connection goes nowhere.
type Refused = (ReasonCode, String);

/// What the service's TCPRoutes and TLSRoutes say now of a connection.
fn selected(caller: &Caller) -> StreamSelected {
    stream::select(&routes(caller).streams, caller.identity.namespace(), caller.target.port)
}

/// What is said now of the service.
fn routes(caller: &Caller) -> Arc<ServiceRoutes> {
    let own = &caller.target.routes;
    let now = caller.worker.context.proxy.tables.read(|tables| tables.routes(&own.service).cloned());
    now.unwrap_or_else(|| own.clone())
}

/// Carries what the caller sends to an endpoint of its service, or of whom a route names, and back.
pub(crate) async fn carry(caller: &Caller, mut stream: Peeked<Duplex>) {
    let (worker, target) = (&caller.worker, &caller.target);
    let telemetry = &worker.context.proxy.telemetry;
    let facts = caller.facts();
    let logging = routes(caller).access_logging.clone();
    let reported = |to: SocketAddr, workload: Option<&Arc<Workload>>| {
        Report::open(telemetry, caller.traffic(to, workload)).logged_by(logging.clone())
    };
    let decision = match judge::judge(worker, target, &facts).await {
        Ok(decision) => decision,
        Err(judgement) => return reported(target.dialled, None).denied(&judgement),
    };
    let way = match way(caller, &mut stream).await {
        Ok(way) => way,
        Err((code, why)) => {
            let mut report = reported(target.dialled, None);
            report.decided(&decision);
            return report.failed(ResponseFlags::Connect, code, &why);
        }
    };
    let hashed = |by: &HashBy| matches!(by, HashBy::SourceIp).then(|| hash_of_address(caller.from.ip()));
    let of = (&way.service, way.dialled, way.subset.as_ref());
    let picked = upstream::choose(worker, &caller.waypoint, of, hashed, None).await;
    let (to, workload) = match &picked {
        Ok(picked) => (picked.endpoint.address(), picked.endpoint.workload()),
        Err(_) => (way.dialled, None),
    };
    let mut report = reported(to, workload);
    report.decided(&decision);
    let behind = match behind(caller, &way, &facts).await {
        Ok(behind) => behind,
        Err(judgement) => return report.denied(&judgement),
    };
    if let Some((_, _, decision)) = &behind {
        report.decided(decision);
    }
    let _under_way = match caller.under_way() {
        Ok(part) => part,
        Err((code, why)) => return report.failed(ResponseFlags::Connect, code, &why),
    };
    let _active = picked.as_ref().ok().map(Picked::active);
    let opened = match &picked {
        Ok(picked) => upstream::stream(worker, &caller.waypoint, picked).await,
        Err(error) => Err(error.clone()),
    };
    let mut upstream = match opened {
        Ok(upstream) => upstream,
        Err(error) => return report.failed(ResponseFlags::Connect, error.code(), &error),
    };
    report.opened();
    let count = report.count_from_client();
    let carried = tokio::select! {
        carried = copy_bidirectional(&mut stream, &mut upstream) => carried,
        reason = judge::denied(worker, target, &facts) => return report.cut(&reason),
        reason = denied_behind(caller, behind.as_ref()) => return report.cut(&reason),
    };
    match carried {
        Ok((forth, back)) => {
            count.forth(usize::try_from(forth).unwrap_or(usize::MAX));
            count.back(usize::try_from(back).unwrap_or(usize::MAX));
            report.closed();
        }
        Err(error) => report.failed(ResponseFlags::None, ReasonCode::ConnectionReset, &error),
    }
    // Both have ended, or one is broken: then there is nobody to tell.
    let _ = stream.shutdown().await;
}

/// Where a connection goes, by the routes of now. Waits for the client's first words where they decide.
async fn way(caller: &Caller, stream: &mut Peeked<Duplex>) -> Result<Way, Refused> {
    let rule = match selected(caller) {
        StreamSelected::NoRoutes => {
            let Target { service, dialled, .. } = caller.target.clone();
            return Ok(Way { service, dialled, subset: None });
        }
        StreamSelected::Rule(rule) => rule,
        StreamSelected::ByServerName(names) => by_server_name(caller, &names, stream).await?,
    };
    let To { service: name, port, subset } =
        rule.backend(rand::random()).map_err(|why| (ReasonCode::NoBackend, why))?;
    let service = caller.worker.context.proxy.tables.read(|tables| tables.service(&name).cloned());
    let service = service.ok_or_else(|| {
        let why = format!("{} of route {} names {name}, and there is no such service", rule.name, rule.route);
        (ReasonCode::NoBackend, why)
    })?;
    let dialled = dialled(&service, port, caller.target.dialled.is_ipv4());
    tracing::debug!(route = %rule.route, rule = %rule.name, service = %name, port, "connection follows a route");
    Ok(Way { service, dialled, subset })
}

async fn by_server_name(
    caller: &Caller,
    names: &ServerNames,
    stream: &mut Peeked<Duplex>,
) -> Result<Arc<StreamRule>, Refused> {
    let service = &caller.target.routes.service;
    let name = client_hello::server_name(stream).await.map_err(|error| {
        let code = if matches!(error, NoClientHello::Broken(_)) {
            ReasonCode::ConnectionReset
        } else {
            ReasonCode::NoClientHello
        };
        (code, format!("{service} has TLSRoutes: {error}"))
    })?;
    let found = name.as_deref().and_then(|name| names.find(name));
    found.cloned().ok_or_else(|| {
        let why = match name {
            Some(name) => format!("no TLSRoute of {service} is for the server name {name}"),
            None => format!("{service} has TLSRoutes, and the ClientHello has no server name (SNI)"),
        };
        (ReasonCode::NoRoute, why)
    })
}

/// A backend's own service behind this waypoint, and what its policies say of the caller.
type Behind = (Target, Facts, Decision);

async fn behind(caller: &Caller, way: &Way, facts: &Facts) -> Result<Option<Behind>, Judgement> {
    let dialled = way.dialled;
    let Some(own) = behind_us(caller, &caller.target, &way.service, dialled) else { return Ok(None) };
    let facts = Facts { destination: dialled, ..facts.clone() };
    let decision = judge::judge(&caller.worker, &own, &facts).await?;
    Ok(Some((own, facts, decision)))
}

/// Resolves when the policies of the backend's own service let the caller in no more.
async fn denied_behind(caller: &Caller, behind: Option<&Behind>) -> Reason {
    match behind {
        Some((own, facts, _)) => judge::denied(&caller.worker, own, facts).await,
        None => std::future::pending().await,
    }
}
