//! Good callers: 50 new connections and 50 echoes, or requests, on a long one, each second; certificates asked for ten times a second.
use super::report::Caller;
use crate::cli::{Ask, Call};
use crate::{statistics, wire};
use anyhow::{Context, Result, ensure};
use mesh_control::ca_client::CaClient;
use mesh_control::channel::{self, ChannelConfig, ServerRoots, Token};
use mesh_identity::authority::Authority as _;
use mesh_identity::certificate::SigningRequest;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two connections, and between two echoes.
const PACE: Duration = Duration::from_millis(20);
/// Between two requests for a certificate.
const ASK: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Tally {
    milliseconds: Vec<f64>,
    failed: u64,
    example: Option<String>,
}

type SharedTally = Rc<RefCell<Tally>>;

impl Tally {
    fn caller(self) -> Caller {
        let mut all = self.milliseconds;
        all.sort_unstable_by(f64::total_cmp);
        Caller {
            done: all.len() as u64,
            failed: self.failed,
            p99: statistics::percentile(&all, 0.99).unwrap_or(f64::NAN),
            example: self.example,
        }
    }
}

async fn tallied(tally: &SharedTally, what: impl Future<Output = Result<()>>) {
    let began = Instant::now();
    let result = timeout(PATIENCE, what).await.context("it took too long").flatten();
    let mut tally = tally.borrow_mut();
    match result {
        Ok(()) => tally.milliseconds.push(began.elapsed().as_secs_f64() * 1e3),
        Err(error) => {
            tally.failed += 1;
            tally.example.get_or_insert_with(|| format!("{error:#}"));
        }
    }
}

#[allow(clippy::print_stdout, reason = "whoever runs the callers reads it")]
fn report(run: impl Future<Output = Result<Tally>>) -> Result<()> {
    crate::launch::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = runtime.block_on(LocalSet::new().run_until(run))?;
    println!("{}", serde_json::to_string(&tally.caller())?);
    Ok(())
}

/// Calls the echo of a pod, or a service.
pub(super) fn call(args: &Call) -> Result<()> {
    report(async {
        let (tally, time) = (SharedTally::default(), Duration::from_secs_f64(args.seconds));
        let server = Server { at: args.to, http: args.http };
        let long = spawn_local(long(server, tally.clone(), time));
        paced(time, PACE, || {
            let tally = tally.clone();
            async move { tallied(&tally, once(server)).await }
        })
        .await;
        long.await?;
        Ok(tally.take())
    })
}

/// Asks for the certificate of a pod on this node.
pub(super) fn ask(args: &Ask) -> Result<()> {
    report(async {
        let channel = channel::connect(&ChannelConfig {
            address: super::world::CONTROL_PLANE.parse()?,
            roots: ServerRoots::File(args.root.clone()),
            server_name: Some("istiod.istio-system.svc".into()),
            token: Token::File(args.token.clone()),
            cluster_id: "Kubernetes".into(),
            headers: Vec::new(),
        })?;
        let client = Rc::new(CaClient::new(channel, None));
        let id = format!("spiffe://cluster.local/ns/{}/sa/{}", super::world::NAMESPACE, super::world::CLIENT);
        let id = Rc::new(id.parse()?);
        let tally = SharedTally::default();
        paced(Duration::from_secs_f64(args.seconds), ASK, || {
            let (tally, client, id) = (tally.clone(), client.clone(), Rc::clone(&id));
            async move {
                let one = async {
                    let request = SigningRequest::new(&id)?;
                    client.sign(&id, request.csr_pem(), Duration::from_secs(600)).await?;
                    Ok(())
                };
                tallied(&tally, one).await;
            }
        })
        .await;
        Ok(tally.take())
    })
}

/// Begins one after the other, whether or not the ones before have ended; waits for all.
async fn paced<F: Future<Output = ()> + 'static>(time: Duration, pace: Duration, begin: impl Fn() -> F) {
    let began = Instant::now();
    let mut clock = interval(pace);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut all = Vec::new();
    while began.elapsed() < time {
        clock.tick().await;
        all.push(spawn_local(begin()));
    }
    for one in all {
        // A panic there ends the process anyway.
        let _ = one.await;
    }
}

/// What is called.
#[derive(Clone, Copy)]
struct Server {
    at: SocketAddr,
    http: bool,
}

impl Server {
    async fn ask(self, stream: &mut TcpStream) -> Result<()> {
        match self.http {
            true => get(stream).await,
            false => echo(stream).await,
        }
    }
}

async fn once(server: Server) -> Result<()> {
    let mut stream = TcpStream::connect(server.at).await?;
    server.ask(&mut stream).await
}

async fn get(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(wire::REQUEST).await?;
    let mut read = Vec::with_capacity(1024);
    let response = loop {
        ensure!(stream.read_buf(&mut read).await? > 0, "the connection ended in the middle of an answer");
        if let Some(response) = wire::response(&read) {
            break response;
        }
    };
    let said = || String::from_utf8_lossy(&read).into_owned();
    ensure!(response.status == 200 && response.length == read.len(), "it was answered `{}`", said());
    ensure!(wire::RESPONSE.ends_with(&read[read.len().saturating_sub(32)..]), "its body was changed: `{}`", said());
    Ok(())
}

async fn echo(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"x").await?;
    ensure!(stream.read_u8().await? == b'x', "the echo changed a byte");
    Ok(())
}

async fn long(server: Server, tally: SharedTally, time: Duration) {
    let began = Instant::now();
    let mut clock = interval(PACE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream = None;
    while began.elapsed() < time {
        clock.tick().await;
        let failed = tally.borrow().failed;
        tallied(&tally, async {
            let open = match &mut stream {
                Some(open) => open,
                none => none.insert(TcpStream::connect(server.at).await?),
            };
            server.ask(open).await
        })
        .await;
        if tally.borrow().failed > failed {
            stream = None;
        }
    }
}
