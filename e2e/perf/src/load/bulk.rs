//! One stream of bytes, counted at the far end: what was sent but never arrived is no throughput.
use super::{Outcome, PATIENCE};
use anyhow::{Context, Result, ensure};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How much is written at a time.
const BUFFER: usize = 128 * 1024;
/// Sent before the run, so that connections are made and windows are open.
const WARM_UP: u64 = 4 << 20;

pub(super) fn run(address: SocketAddr, time: Duration, wait: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let buffer = vec![0x5a; BUFFER];
    let _count = send_until(address, &buffer, |sent, _| sent >= WARM_UP, || Ok(()))?;
    let (sent, seconds) = send_until(address, &buffer, |_, taken| taken >= time, wait)?;
    Ok(Outcome { seconds, done: sent, errors: 0, example: None, latency: None })
}

/// Connects, waits for the word, sends until `enough` says so of the bytes and time so far, ends the stream, and has the
/// server confirm the count. Returns bytes and seconds, the confirmation included.
fn send_until(
    address: SocketAddr,
    buffer: &[u8],
    enough: impl Fn(u64, Duration) -> bool,
    wait: impl FnOnce() -> Result<()>,
) -> Result<(u64, f64)> {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("cannot reach {address}"))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    wait()?;
    let start = Instant::now();
    let mut sent = 0u64;
    while !enough(sent, start.elapsed()) {
        stream.write_all(buffer).context("the stream broke off")?;
        sent += buffer.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut confirmed = [0; 8];
    stream.read_exact(&mut confirmed).context("the end of the stream was never confirmed")?;
    let confirmed = u64::from_le_bytes(confirmed);
    ensure!(confirmed == sent, "{sent} bytes were sent and {confirmed} arrived");
    Ok((sent, start.elapsed().as_secs_f64()))
}
