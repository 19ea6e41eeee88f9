//! Connections that come to pods without a tunnel: captured, judged as callers without identity.

use std::net::SocketAddr;
use std::rc::Rc;

use mesh_hbone::carry;
use mesh_model::policy::Facts;
use mesh_model::reason::ReasonCode;
use mesh_model::share::Source;
use mesh_proxy::connections::until_cut;
use mesh_proxy::judge::{Judgement, judge};
use mesh_proxy::local_workload::deadline;
use mesh_proxy::overload;
use mesh_proxy::report::{Party, Report, Traffic};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Reporter, ResponseFlags};
use tokio::net::TcpStream;

use super::admit;
use super::seen::source_of;
use crate::pod::Pod;
use crate::serving::Worker;
use crate::sockets;

/// Serves one captured connection from `from`.
pub(crate) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, from: SocketAddr) {
    let context = &worker.context;
    let dialled = match sockets::original_destination(&tcp) {
        Ok(dialled) => dialled,
        Err(error) => return tracing::debug!(pod = %pod.local.info, %error, "connection gone before it was served"),
    };
    let (way, source) = ((from, dialled), Source::address(from.ip()));
    let Some(_permit) =
        overload::admit(&context.proxy.telemetry, &pod.local.quota, Direction::Inbound, &tcp, way, Some(&source))
    else {
        return pod.local.quota.close_later(tcp);
    };
    let attempt = Report::attempt(&context.proxy.telemetry, Direction::Inbound, from, dialled);
    let admitted = admit::plaintext(dialled).and_then(|admitted| admit::port(admitted, pod.only, context.config.socks));
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return attempt.failed(error.code(), &error),
    };
    let deadline = deadline();
    let workload = match context.proxy.local_workload(&pod.local.info, deadline).await {
        Ok(workload) => workload,
        Err(error) => return attempt.failed(ReasonCode::UnknownWorkload, &error),
    };
    let facts = Facts { source_ip: from.ip(), source: None, destination: admitted.application };
    let source = context.proxy.tables.read(|t| t.workload_by_address(&workload.network, from.ip()).cloned());
    let mut report = Report::open(
        &context.proxy.telemetry,
        Traffic {
            direction: Direction::Inbound,
            reporter: Reporter::Destination,
            from,
            to: admitted.application,
            hbone_to: None,
            source: Party::known(source.as_ref()),
            destination: Party::workload(&workload, workload.identity().ok().as_ref()),
            service: None,
            secured: false,
            trace: None,
        },
    );
    match judge(&context.proxy.tables, &pod.local.info, &workload, &facts, deadline).await {
        Judgement::Decided(decision) if decision.allowed => report.decided(&decision),
        judgement => return report.denied(&judgement),
    }
    let (_registration, cut) = worker.connections.add_inbound(pod.local.info.clone(), facts, from.port(), None);
    // Not from its port: the kernel would take that for the connection that was captured, and send it here again.
    let source = source_of(from, None, admitted.application);
    match Box::pin(pod.dialler.dial(source, admitted.application, &pod.sockets)).await {
        Ok(application) => {
            report.opened();
            let application = pod.dialler.look_after(application);
            let carried = until_cut(carry::tcp_and_tcp(tcp, application, report.count_from_client()), cut).await;
            match carried {
                Ok(result) => report.ended(result),
                Err(reason) => report.cut(&reason),
            }
        }
        Err(error) => report.failed(ResponseFlags::Connect, ReasonCode::ApplicationUnreachable, &error),
    }
}
