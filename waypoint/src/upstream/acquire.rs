//! A connection that can take a request: one that is kept, or a new one, or the next that is free where there may be no more.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::traffic::Limits;
use mesh_model::traffic::outlier::Outcome;
use mesh_model::workload::Workload;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout, timeout_at};

use super::choose::Picked;
use super::circuit::Limit;
use super::connection::{Connection, HttpVersion};
use super::endpoint::Unreachable;
use super::open::open;
use super::permit::Permit;
use super::pool::{Key, PooledConnection};
use super::stream::Stream;
use crate::serving::Worker;

/// How long a request waits for a connection where the rule says nothing of `connectTimeout`: Istio's default of that.
const WAITS: Duration = Duration::from_secs(10);

/// A connection that can take a request.
///
/// # Errors
/// When the endpoint cannot be reached, or a limit is.
pub(crate) async fn acquire(
    worker: &Rc<Worker>,
    waypoint: &Arc<Workload>,
    picked: &Picked,
    key: &Key,
) -> Result<PooledConnection, Unreachable> {
    if let Some(pooled) = worker.upstream.take(key, picked.limits()) {
        return Ok(pooled);
    }
    // Most requests need none, and need not carry what it takes to open one.
    Box::pin(another(worker, waypoint, picked, key)).await
}

/// A connection that is free by now, or a new one.
async fn another(
    worker: &Rc<Worker>,
    waypoint: &Arc<Workload>,
    picked: &Picked,
    key: &Key,
) -> Result<PooledConnection, Unreachable> {
    let (pool, limits) = (&worker.upstream, picked.limits());
    let _pending = picked.take(worker, Limit::Pending)?;
    let permit = match limits.connections {
        None => picked.take(worker, Limit::Connections)?,
        Some(_) => {
            picked.waits.set(true);
            let room = room(worker, picked, key).await?;
            picked.waits.set(false);
            match room {
                Room::Free(pooled) => return Ok(pooled),
                Room::New(permit) => permit,
            }
        }
    };
    let opening = async {
        let stream = open(&worker.context, &worker.pod, waypoint, &picked.endpoint).await?;
        Connection::begin(stream.counted(permit), key.version()).await
    };
    let connection = in_time(limits, opening).await?;
    Ok(pool.add(key, connection, limits))
}

/// A stream of its own, for what is no HTTP.
///
/// # Errors
/// When the endpoint cannot be reached, or there may be no more connections.
pub(crate) async fn stream(worker: &Worker, waypoint: &Arc<Workload>, picked: &Picked) -> Result<Stream, Unreachable> {
    let permit = picked.take(worker, Limit::Connections)?;
    let opening = open(&worker.context, &worker.pod, waypoint, &picked.endpoint);
    let opened = in_time(picked.limits(), opening).await;
    let outcome = opened.as_ref().map_or_else(Unreachable::outcome, |_| Some(Outcome::Connected));
    if let Some(outcome) = outcome {
        picked.ended(outcome);
    }
    Ok(opened?.counted(permit))
}

async fn in_time<T>(limits: &Limits, opening: impl Future<Output = Result<T, Unreachable>>) -> Result<T, Unreachable> {
    match limits.connect_timeout {
        None => opening.await,
        Some(limit) => timeout(limit, opening).await.unwrap_or(Err(Unreachable::Slow(limit))),
    }
}

enum Room {
    /// A connection is free.
    Free(PooledConnection),
    /// There may be one more.
    New(Permit),
}

/// Waits until a connection is free or there may be one more. Connections to other endpoints that nobody uses make room.
async fn room(worker: &Worker, picked: &Picked, key: &Key) -> Result<Room, Unreachable> {
    let (pool, limits, ports) = (&worker.upstream, picked.limits(), &worker.context.ports);
    let until = Instant::now() + limits.connect_timeout.unwrap_or(WAITS);
    loop {
        // Before it is looked, so that nothing is missed in between.
        let mut freed = pin!(picked.port.circuit.freed.notified());
        freed.as_mut().enable();
        if let Some(pooled) = pool.take(key, limits) {
            return Ok(Room::Free(pooled));
        }
        // Requests share a connection of HTTP/2, on its thread: a thread without one would wait for another's to end.
        let own = key.version() == HttpVersion::Http2 && !pool.has(key);
        let most = limits.connections.filter(|_| !own);
        if let Some(permit) = Permit::take(&picked.port, Limit::Connections, most) {
            return Ok(Room::New(permit));
        }
        pool.shed(&[picked.port.number]);
        ports.wanted.notify_waiters();
        if timeout_at(until, freed).await.is_err() {
            return Err(picked.overflow(worker, Limit::Connections));
        }
    }
}

/// Keeps a connection of HTTP/1 whose request was answered, for the next one.
pub(crate) fn give_back(worker: &Rc<Worker>, key: Key, pooled: PooledConnection, picked: &Picked) {
    let limits = picked.limits();
    if limits.connections.is_none() {
        return worker.upstream.give_back(&key, pooled, limits);
    }
    // Somebody may wait for it: it is told when the connection has room, which is when the answer has ended.
    let (worker, port, limits) = (worker.clone(), picked.port.clone(), limits.clone());
    spawn_local(async move {
        let mut pooled = pooled;
        if pooled.connection.ready().await {
            worker.upstream.give_back(&key, pooled, &limits);
            port.circuit.free();
        }
    });
}

/// Ends connections that nobody uses, of services for whose connections somebody waits on another thread.
pub(crate) async fn shed(worker: Rc<Worker>) {
    let ports = &worker.context.ports;
    loop {
        let mut wanted = pin!(ports.wanted.notified());
        wanted.as_mut().enable();
        let starved = ports.starved();
        if !starved.is_empty() {
            worker.upstream.shed(&starved);
        }
        wanted.await;
    }
}
