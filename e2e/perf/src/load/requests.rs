//! HTTP requests: each client sends one, waits for all of its answer, and sends the next.
use super::{Latency, Outcome, PATIENCE};
use crate::{statistics, wire};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A client with so many errors gives up: measuring a broken proxy says nothing.
const MOST_ERRORS: u64 = 100;

/// Opens connections, each having served one request.
pub(super) async fn connect_all(address: SocketAddr, connections: u32) -> Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut stream = timeout(PATIENCE, connect(address)).await.context("connecting took too long")??;
        timeout(PATIENCE, exchange(&mut stream)).await.context("the first request took too long")??;
        clients.push(stream);
    }
    Ok(clients)
}

/// Requests on connections that stay open.
pub(super) async fn keep_alive(clients: Vec<TcpStream>, time: Duration) -> Outcome {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut stream in clients {
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while start.elapsed() < time {
                let began = Instant::now();
                match timeout(PATIENCE, exchange(&mut stream)).await.map_err(Into::into).flatten() {
                    Ok(()) => tally.took(began.elapsed()),
                    Err(e) => {
                        // Its connection is of no more use, and a new one would measure something else.
                        tally.failed(&e);
                        break;
                    }
                }
            }
            tally
        });
    }
    gather(start, tasks).await
}

/// Requests on a connection each.
pub(super) async fn connect_each(address: SocketAddr, clients: u32, time: Duration) -> Outcome {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while start.elapsed() < time && tally.errors < MOST_ERRORS {
                let began = Instant::now();
                match timeout(PATIENCE, connect_and_exchange(address)).await.map_err(Into::into).flatten() {
                    Ok(()) => tally.took(began.elapsed()),
                    Err(e) => tally.failed(&e),
                }
            }
            tally
        });
    }
    gather(start, tasks).await
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(wire::REQUEST).await.context("cannot send a request")?;
    let mut answer = [0; wire::RESPONSE.len()];
    stream.read_exact(&mut answer).await.context("the answer broke off")?;
    ensure!(answer == wire::RESPONSE, "the answer was changed on its way");
    Ok(())
}

async fn connect_and_exchange(address: SocketAddr) -> Result<()> {
    let mut stream = connect(address).await?;
    stream.write_all(wire::LAST_REQUEST).await.context("cannot send a request")?;
    let mut answer = Vec::with_capacity(wire::LAST_RESPONSE.len() + 1);
    stream.take(wire::LAST_RESPONSE.len() as u64 + 1).read_to_end(&mut answer).await.context("the answer broke off")?;
    ensure!(answer == wire::LAST_RESPONSE, "the answer was changed on its way, or cut short");
    Ok(())
}

/// What one client saw.
#[derive(Debug, Default)]
struct Tally {
    /// In microseconds.
    latencies: Vec<f64>,
    errors: u64,
    example: Option<String>,
}

impl Tally {
    fn took(&mut self, time: Duration) {
        self.latencies.push(time.as_secs_f64() * 1e6);
    }

    fn failed(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.example.get_or_insert_with(|| format!("{error:#}"));
    }
}

async fn gather(start: Instant, tasks: JoinSet<Tally>) -> Outcome {
    let tallies = tasks.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let mut all: Vec<f64> = tallies.iter().flat_map(|t| t.latencies.iter().copied()).collect();
    all.sort_unstable_by(f64::total_cmp);
    let at = |share| statistics::percentile(&all, share);
    let latency = at(0.5).zip(at(0.9)).zip(at(0.99)).map(|((p50, p90), p99)| Latency { p50, p90, p99 });
    Outcome {
        seconds,
        done: all.len() as u64,
        errors: tallies.iter().map(|t| t.errors).sum(),
        example: tallies.into_iter().find_map(|t| t.example),
        latency,
    }
}
