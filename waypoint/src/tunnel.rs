//! One tunnel from its CONNECT to its end: which service or workload, is it behind us, what is spoken, and who speaks it here.

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, StatusCode};
use mesh_hbone::connect;
use mesh_hbone::duplex::Duplex;
use mesh_hbone::server::Asked;
use mesh_model::address::Authority;
use mesh_model::reason::ReasonCode;
use mesh_model::share::Source;
use mesh_model::workload::{AppProtocol, Workload};
use mesh_proxy::inbound::TunnelContext;
use mesh_proxy::local_workload::deadline;
use mesh_proxy::report::Report;
use mesh_runtime::access_log::Direction;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::http::{Caller, http1, http2};
use crate::serving::Worker;
use crate::sniff::{Peeked, Protocol, is_preface, sniff};
use crate::target::{NotServed, Target, app_protocol, target};
use crate::tcp;

/// Serves one tunnel. It is accepted before anything is sent on: what is asked in it is answered in it.
pub(crate) async fn serve(worker: Rc<Worker>, mut connection: TunnelContext, asked: Asked) {
    let proxy = &worker.context.proxy;
    let (from, local) = (connection.from, connection.local);
    let attempt = Report::attempt(&proxy.telemetry, Direction::Inbound, from, local);
    let refuse = |asked: Asked, status, code, why: &dyn std::fmt::Display| {
        asked.refuse(status, code);
        attempt.failed(code, why);
    };
    if asked.method != Method::CONNECT {
        let why = "the method is not CONNECT: requests come inside of tunnels";
        return refuse(asked, StatusCode::BAD_REQUEST, ReasonCode::BadRequest, &why);
    }
    let authority = match connect::parse_authority(&asked.authority) {
        Ok(authority) => authority,
        Err(error) => return refuse(asked, StatusCode::BAD_REQUEST, ReasonCode::BadRequest, &error),
    };
    let source = Source::Identity((*connection.caller).clone());
    let _permit = match worker.pod.quota.connection(Some(&source)) {
        Ok(permit) => permit,
        Err(full) => return refuse(asked, StatusCode::SERVICE_UNAVAILABLE, full.code(), &full),
    };
    let deadline = deadline();
    let waypoint = match proxy.local_workload(&worker.pod.info, deadline).await {
        Ok(waypoint) => waypoint,
        Err(error) => return refuse(asked, StatusCode::SERVICE_UNAVAILABLE, ReasonCode::UnknownWorkload, &error),
    };
    let target = match awaited(&worker, &waypoint, &authority, deadline).await {
        Ok(target) => target,
        // 404: nobody is served here by that name. ztunnels log it as `http status: 404`, with the reason.
        Err(error) => return refuse(asked, StatusCode::NOT_FOUND, error.code(), &error),
    };
    let baggage = worker.pod.baggage(&waypoint);
    let tunnel = match asked.accept(&baggage) {
        Ok(tunnel) => tunnel,
        Err(error) => return attempt.failed(ReasonCode::CallerGone, &error),
    };
    let stream = Duplex::new(tunnel);
    let client = proxy.tables.read(|tables| {
        let workload = tables.workload_by_address(&waypoint.network, from.ip())?;
        // An address is proven by nobody; the identity behind it is.
        (workload.identity().ok().as_ref() == Some(&*connection.caller)).then(|| workload.clone())
    });
    let protocol = app_protocol(&target.service, target.port);
    let identity = connection.caller.clone();
    let caller = Rc::new(Caller::new((worker.clone(), waypoint, target), from, (identity, client)));
    let served = async {
        let (spoken, stream) = match protocol {
            // What is declared is not looked into, and whoever speaks first may.
            AppProtocol::Tcp | AppProtocol::Tls => (Protocol::Tcp, Peeked::new(stream)),
            // HTTP of either version: which one, the caller decides. Who says nothing yet is waited for, until the waypoint ends
            // or the service leaves it.
            AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => {
                let (mut stream, mut first) = (stream, Vec::with_capacity(4096));
                let spoken = tokio::select! {
                    spoken = http_version(&mut stream, &mut first) => spoken,
                    // An error means that it is broken, and so has ended.
                    () = caller.sends_away(false) => return drop(stream.shutdown().await),
                };
                match spoken {
                    Ok(spoken) => (spoken, Peeked::after(first, stream)),
                    Err(error) => return tracing::debug!(%from, %error, "tunnel broke before its first request"),
                }
            }
            AppProtocol::Unknown if caller.target.routes.is_stream(caller.identity.namespace(), caller.target.port) => {
                (Protocol::Tcp, Peeked::new(stream))
            }
            AppProtocol::Unknown => match sniff(stream).await {
                Ok(spoken) => spoken,
                Err(error) => return tracing::debug!(%from, %error, "tunnel broke before its first bytes"),
            },
        };
        match spoken {
            Protocol::Http1 => http1(caller, stream).await,
            Protocol::Http2 => http2(caller, stream).await,
            Protocol::Tcp => tcp::carry(&caller, stream).await,
        }
    };
    tokio::select! {
        biased;
        () = Box::pin(served) => {}
        // Dropping the stream resets the tunnel: the caller sees a cut.
        () = connection.revoked() => attempt.failed(ReasonCode::CertRevoked, &"the caller's certificate has been revoked"),
    }
}

/// HTTP/2 if it begins as that does, else HTTP/1, which refuses what it cannot read. What is read goes to `first`.
async fn http_version(stream: &mut Duplex, first: &mut Vec<u8>) -> std::io::Result<Protocol> {
    while stream.read_buf(first).await? > 0 {
        match is_preface(first) {
            None => {}
            Some(true) => return Ok(Protocol::Http2),
            Some(false) => break,
        }
    }
    Ok(Protocol::Http1)
}

/// What `asked` means, once the control plane has said it; at `deadline` it has not.
async fn awaited(
    worker: &Worker,
    waypoint: &Arc<Workload>,
    asked: &Authority,
    deadline: Instant,
) -> Result<Target, NotServed> {
    let tables = &worker.context.proxy.tables;
    let mut changed = None;
    loop {
        let lately = |service: &_| worker.lately(service).map(|router| router.routes().clone());
        let error = match tables.read(|tables| target(tables, worker.own(waypoint), asked, lately)) {
            Err(error) if error.may_change() => error,
            told => {
                // From now on it is known when it leaves.
                if let Ok(told) = &told
                    && let Some(router) = tables.read(|tables| worker.router(tables, waypoint, &told.asked))
                {
                    worker.follows(&told.asked, &router);
                }
                return told;
            }
        };
        // Subscribed before the last look, so that a change between look and wait is not missed.
        let Some(changed) = changed.as_mut() else {
            changed = Some(tables.changed());
            continue;
        };
        if !timeout_at(deadline, changed.changed()).await.is_ok_and(|told| told.is_ok()) {
            return Err(error);
        }
    }
}
