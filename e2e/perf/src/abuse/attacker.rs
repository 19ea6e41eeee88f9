//! What all attacks have: a time limit, and so many at once.
use super::{control, tunnels};
use crate::cli::AttackArgs;
use crate::wire::{ECHO_PORT, SINK_PORT};
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::LocalSet;

/// Where tunnels arrive in a pod.
const HBONE_PORT: u16 = 15008;
/// Between two attempts of one attacker, when it is cut off.
const PAUSE: Duration = Duration::from_millis(2);

/// What an attacker knows.
#[derive(Clone)]
pub(super) struct Field {
    victim: std::net::IpAddr,
    pub(super) files: PathBuf,
    pub(super) token: String,
    pub(super) count: Arc<Count>,
}

impl Field {
    pub(super) fn door(&self) -> SocketAddr {
        SocketAddr::new(self.victim, HBONE_PORT)
    }

    pub(super) fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.victim, ECHO_PORT)
    }

    pub(super) fn sink(&self) -> SocketAddr {
        SocketAddr::new(self.victim, SINK_PORT)
    }
}

/// What was done.
#[derive(Default)]
pub(super) struct Count {
    begun: AtomicU64,
    failed: AtomicU64,
}

impl Count {
    pub(super) fn begun(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(super) fn get(&self) -> (u64, u64) {
        (self.begun.load(Relaxed), self.failed.load(Relaxed))
    }
}

/// Plays one attack until its time is over.
#[allow(clippy::print_stdout, reason = "whoever runs the attack reads it")]
pub(super) fn run(args: &AttackArgs) -> Result<()> {
    crate::launch::raise_descriptor_limit()?;
    let field = Field {
        victim: args.victim,
        files: args.files.clone(),
        token: std::fs::read_to_string(&args.token)?.trim().to_owned(),
        count: Arc::default(),
    };
    let (count, time) = (field.count.clone(), Duration::from_secs_f64(args.seconds));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let attack = async {
        match args.name.as_str() {
            "certificates" => tunnels::certificates(field).await,
            "slow-application" => tunnels::slow_application(field).await,
            "reset-tunnels" => tunnels::reset_tunnels(field).await,
            "single-bytes" => tunnels::single_bytes(field).await,
            "left-behind" => tunnels::left_behind(field).await,
            "header-blocks" => tunnels::header_blocks(field).await,
            "hellos" => tunnels::hellos(field).await,
            "idle-peers" => tunnels::idle_peers(field).await,
            "half-open" => tunnels::half_open(field).await,
            "control-half-open" => control::half_open(field).await,
            "control-idle" => control::idle(field).await,
            "control-requests" => control::requests(field).await,
            "control-names" => control::names(field).await,
            "control-metadata" => control::metadata(field).await,
            other => bail!("there is no attack {other}"),
        }
    };
    // Without an answer its time is over, as it should be.
    let bounded = async { tokio::time::timeout(time, attack).await.unwrap_or(Ok(())) };
    runtime.block_on(LocalSet::new().run_until(bounded))?;
    println!("{}", tunnels::said(&count, time));
    Ok(())
}

/// So many attackers, each of which does it again and again.
pub(super) async fn in_parallel(most: usize, field: Field, attack: impl AsyncFn(&Field) + 'static) {
    let attack = std::rc::Rc::new(attack);
    let attackers = (0..most).map(|_| {
        let (attack, field) = (attack.clone(), field.clone());
        tokio::task::spawn_local(async move {
            loop {
                attack(&field).await;
                tokio::time::sleep(PAUSE).await;
            }
        })
    });
    for attacker in attackers.collect::<Vec<_>>() {
        // It ends with its panic, or never.
        let _ = attacker.await;
    }
}
