//! What all attacks have: a time limit, and so many at once.
use super::{control, tenant, tunnels};
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
/// Of the attacked service.
pub(super) const SERVICE_PORT: u16 = 80;
/// Between two attempts of one attacker, when it is cut off.
const PAUSE: Duration = Duration::from_millis(2);

/// What is attacked, and what an attacker knows.
#[derive(Clone)]
pub(super) struct Target {
    victim: std::net::IpAddr,
    pub(super) files: PathBuf,
    pub(super) token: String,
    pub(super) count: Arc<Count>,
}

impl Target {
    pub(super) fn hbone(&self) -> SocketAddr {
        SocketAddr::new(self.victim, HBONE_PORT)
    }

    pub(super) fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.victim, ECHO_PORT)
    }

    pub(super) fn sink(&self) -> SocketAddr {
        SocketAddr::new(self.victim, SINK_PORT)
    }

    /// The attacked service.
    pub(super) fn web(&self) -> SocketAddr {
        SocketAddr::new(self.victim, SERVICE_PORT)
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
    let target = Target {
        victim: args.victim,
        files: args.files.clone(),
        token: std::fs::read_to_string(&args.token)?.trim().to_owned(),
        count: Arc::default(),
    };
    let (count, time) = (target.count.clone(), Duration::from_secs_f64(args.seconds));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let attack = async {
        match args.name.as_str() {
            "certificates" | "waypoint-certificates" => tunnels::certificates(target).await,
            "slow-application" => tunnels::slow_application(target).await,
            "reset-tunnels" => tunnels::reset_tunnels(target).await,
            "single-bytes" => tunnels::single_bytes(target).await,
            "left-behind" => tunnels::left_behind(target).await,
            "header-blocks" => tunnels::header_blocks(target).await,
            "hellos" | "waypoint-hellos" => tunnels::hellos(target).await,
            "idle-peers" => tunnels::idle_peers(target).await,
            "half-open" => tunnels::half_open(target).await,
            "control-half-open" => control::half_open(target).await,
            "control-idle" => control::idle(target).await,
            "control-requests" => control::requests(target).await,
            "control-names" => control::names(target).await,
            "control-metadata" => control::metadata(target).await,
            "waypoint-resets" => tenant::resets(target).await,
            "waypoint-header-blocks" => tenant::header_blocks(target).await,
            "waypoint-slow-heads" => tenant::slow_heads(target).await,
            "waypoint-slow-bodies" => tenant::slow_bodies(target).await,
            "waypoint-slow-readers" => tenant::slow_readers(target).await,
            "waypoint-idle" => tenant::idle(target).await,
            "waypoint-retries" => tenant::retries(target).await,
            "waypoint-kept-bodies" => tenant::kept_bodies(target).await,
            "waypoint-names" => tenant::names(target).await,
            "waypoint-long-paths" => tenant::long_paths(target).await,
            "waypoint-tokens" => tenant::tokens(target).await,
            other => bail!("there is no attack {other}"),
        }
    };
    // Without an answer its time is over, as it should be.
    let bounded = async { tokio::time::timeout(time, attack).await.unwrap_or(Ok(())) };
    runtime.block_on(LocalSet::new().run_until(bounded))?;
    println!("{}", tunnels::summary(&count, time));
    Ok(())
}

/// So many attackers, each of which does it again and again.
pub(super) async fn in_parallel(most: usize, target: Target, attack: impl AsyncFn(&Target) + 'static) {
    let attack = std::rc::Rc::new(attack);
    let attackers = (0..most).map(|_| {
        let (attack, target) = (attack.clone(), target.clone());
        tokio::task::spawn_local(async move {
            loop {
                attack(&target).await;
                tokio::time::sleep(PAUSE).await;
            }
        })
    });
    for attacker in attackers.collect::<Vec<_>>() {
        // It ends with its panic, or never.
        let _ = attacker.await;
    }
}
