//! Clients that put load on a connection, or many, and say exactly what did not work.
use super::tcp::{connect, serve};
use super::{pace, peer};
use anyhow::{Context, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longest time for a connection to come about, and for anything to move on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Load {
    /// Server for the tools below.
    Peer {
        /// Where to listen.
        #[arg(long, default_value_t = 9100)]
        port: u16,
    },
    /// Sends and receives at the same time on one connection; both ends check every byte.
    Transfer {
        /// HOST:PORT of a `peer`.
        to: String,
        /// Bytes to send.
        #[arg(long, default_value_t = 0)]
        up: u64,
        /// Bytes to receive.
        #[arg(long, default_value_t = 0)]
        down: u64,
    },
    /// Receives until the server closes its half, and only then sends.
    HalfClose {
        /// HOST:PORT of a `peer`.
        to: String,
        /// Bytes each way.
        #[arg(long, default_value_t = 100_000)]
        bytes: u64,
    },
    /// Opens many connections, and uses every one while all are open.
    Hold {
        /// HOST:PORT of a `peer`.
        to: String,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        connections: usize,
    },
    /// Opens connections one after another, and breaks each off (RST) in the middle of a transfer.
    Resets {
        /// HOST:PORT of a `peer`.
        to: String,
        /// How many.
        #[arg(long, default_value_t = 50)]
        connections: usize,
    },
    /// Connects, says nothing, and prints the first line it hears.
    FirstLine {
        /// HOST:PORT.
        to: String,
    },
    /// Asks again and again until its standard input ends, then prints what happened as JSON.
    Pace(pace::Pace),
}

/// Runs one.
pub(crate) fn run(load: &Load) -> Result<ExitCode> {
    match load {
        Load::Peer { port } => serve(*port, peer::serve),
        Load::Transfer { to, up, down } => transfer(to, *up, *down),
        Load::HalfClose { to, bytes } => half_close(to, *bytes),
        Load::Hold { to, connections } => hold(to, *connections),
        Load::Resets { to, connections } => resets(to, *connections),
        Load::FirstLine { to } => first_line(to),
        Load::Pace(pace) => pace::run(pace),
    }
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn transfer(to: &str, up: u64, down: u64) -> Result<ExitCode> {
    let mut stream = connect(to, PATIENCE)?;
    let started = Instant::now();
    writeln!(stream, "both {down}")?;
    let mut sender = stream.try_clone()?;
    let sending = std::thread::spawn(move || {
        peer::send(&mut sender, peer::FROM_CLIENT, up).and_then(|()| sender.shutdown(Shutdown::Write))
    });
    let mut reader = BufReader::with_capacity(peer::CHUNK, stream);
    let received = peer::check(&mut reader, peer::FROM_SERVER, down).context("receiving")?;
    if received < down {
        bail!("the connection ended after {received} of {down} bytes");
    }
    let sent = sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    sent.context("sending")?;
    // The server answers only to our half-close.
    let mut verdict = String::new();
    reader.read_line(&mut verdict).context("waiting for the server's verdict")?;
    if verdict.trim_end() != format!("took {up}") {
        bail!("the server was sent {up} bytes and says: {}", verdict.trim_end());
    }
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    if !rest.is_empty() {
        bail!("{} bytes more than the server sent", rest.len());
    }
    println!("{up} up, {down} down in {} ms", started.elapsed().as_millis());
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn half_close(to: &str, bytes: u64) -> Result<ExitCode> {
    let mut stream = connect(to, PATIENCE)?;
    writeln!(stream, "give {bytes}")?;
    let received = peer::check_to_end(&mut stream, peer::FROM_SERVER).context("receiving")?;
    if received != bytes {
        bail!("the server closed its half after {received} of {bytes} bytes");
    }
    peer::send(&mut stream, peer::FROM_CLIENT, bytes).context("sending after the server closed its half")?;
    stream.shutdown(Shutdown::Write)?;
    println!("received {bytes} to the end, then sent {bytes}");
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn hold(to: &str, connections: usize) -> Result<ExitCode> {
    let started = Instant::now();
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut stream = connect(to, PATIENCE).with_context(|| format!("connection {number} of {connections}"))?;
        writeln!(stream, "echo")?;
        open.push(stream);
    }
    let opened = started.elapsed();
    // All are open. Everyone speaks before anyone is heard, with words of its own; twice.
    for round in 0..2 {
        let word = |number: usize| format!("round {round} of connection {number:06}\n");
        for (number, stream) in open.iter_mut().enumerate() {
            stream.write_all(word(number).as_bytes()).with_context(|| format!("connection {number}, writing"))?;
        }
        for (number, stream) in open.iter_mut().enumerate() {
            let expected = word(number);
            let mut heard = vec![0; expected.len()];
            stream.read_exact(&mut heard).with_context(|| format!("connection {number}, reading"))?;
            if heard != expected.as_bytes() {
                bail!("connection {number} heard {:?}", String::from_utf8_lossy(&heard));
            }
        }
    }
    println!("{connections} connections opened in {} ms, all answered twice", opened.as_millis());
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn resets(to: &str, connections: usize) -> Result<ExitCode> {
    /// More than fits between the two ends, so that it never ends by itself.
    const MUCH: u64 = 1 << 30;
    for number in 0..connections {
        let mut stream = connect(to, PATIENCE).with_context(|| format!("connection {number}"))?;
        writeln!(stream, "both {MUCH}")?;
        peer::send(&mut stream, peer::FROM_CLIENT, peer::CHUNK as u64)?;
        peer::check(&mut stream, peer::FROM_SERVER, peer::CHUNK as u64)?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    }
    println!("{connections} connections broken off");
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn first_line(to: &str) -> Result<ExitCode> {
    let stream = connect(to, Duration::from_secs(5))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the server sent nothing")?;
    print!("{line}");
    Ok(if line.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
