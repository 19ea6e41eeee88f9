//! Requests at a steady pace, each of which counts: for tests that change something under traffic.
use super::http;
use super::tcp::connect;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Failures that are told in words; the others are only counted.
const TOLD: usize = 10;

/// What to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Pace {
    /// HOST:PORT of an `http-server`, or with --kept of a `peer`.
    to: String,
    /// Milliseconds from one request to the next.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Milliseconds after which a request has failed.
    #[arg(long, default_value_t = 3000)]
    limit: u64,
    /// Ask on one connection all the time. Its end is a failure.
    #[arg(long)]
    kept: bool,
    /// Go on after the end of standard input until so many requests were answered, or one was not.
    #[arg(long, default_value_t = 0)]
    at_least: u64,
    /// Stop at the first failure.
    #[arg(long)]
    to_failure: bool,
}

#[derive(Default)]
struct Tally {
    good: u64,
    failed: u64,
    failures: Vec<String>,
    /// When the first failure was seen, in milliseconds since 1970.
    first_failure: Option<u128>,
    answers: BTreeMap<String, u64>,
    slowest: Duration,
}

/// Asks until standard input ends. Exits with 0 even if requests failed: the caller judges what it reads.
#[allow(clippy::print_stdout, reason = "its output is its purpose")]
pub(super) fn run(pace: &Pace) -> Result<ExitCode> {
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    std::thread::spawn(move || {
        // Any end is an end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.store(true, Ordering::SeqCst);
    });
    let limit = Duration::from_millis(pace.limit);
    let mut kept = None;
    let mut tally = Tally::default();
    let started = Instant::now();
    let mut next = started;
    let mut asked_once = false;
    while !ended.load(Ordering::SeqCst) || (tally.failed == 0 && tally.good < pace.at_least) {
        let asked = Instant::now();
        let answer = if pace.kept { ask_kept(&mut kept, &pace.to, limit, tally.good) } else { ask(&pace.to, limit) };
        let took = asked.elapsed();
        tally.slowest = tally.slowest.max(took);
        match answer {
            Ok(text) => {
                tally.good += 1;
                *tally.answers.entry(text).or_default() += 1;
            }
            Err(e) => {
                kept = None;
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| {
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
                });
                if tally.failures.len() < TOLD {
                    let at = asked.duration_since(started).as_millis();
                    tally.failures.push(format!("at {at} ms, after {} ms: {e:#}", took.as_millis()));
                }
            }
        }
        if !std::mem::replace(&mut asked_once, true) {
            // Whoever waits for this line has an open connection, if there can be one.
            println!("asking");
        }
        if pace.to_failure && tally.failed > 0 {
            break;
        }
        next = (next + Duration::from_millis(pace.every)).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let told = json!({
        "good": tally.good,
        "failed": tally.failed,
        "failures": tally.failures,
        "firstFailureMs": tally.first_failure.and_then(|ms| u64::try_from(ms).ok()),
        "answers": tally.answers,
        "slowestMs": u64::try_from(tally.slowest.as_millis()).unwrap_or(u64::MAX),
        "tookMs": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    println!("{told}");
    Ok(ExitCode::SUCCESS)
}

/// One HTTP request on a connection of its own; returns the body.
fn ask(to: &str, limit: Duration) -> Result<String> {
    let mut stream = connect(to, limit)?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
    let mut came = Vec::new();
    stream.take(64 << 10).read_to_end(&mut came).context("the connection broke")?;
    let answer = http::read(&came)?;
    if answer.status != "200" {
        bail!("answered {}", answer.status);
    }
    if !answer.whole {
        bail!("closed in the middle of the answer");
    }
    Ok(String::from_utf8_lossy(&answer.body).trim_end().to_owned())
}

/// One line there and back on a connection that stays.
fn ask_kept(kept: &mut Option<BufReader<TcpStream>>, to: &str, limit: Duration, number: u64) -> Result<String> {
    let reader = match kept {
        Some(reader) => reader,
        None => {
            let mut stream = connect(to, limit)?;
            writeln!(stream, "echo")?;
            kept.insert(BufReader::new(stream))
        }
    };
    let line = format!("number {number}\n");
    reader.get_mut().write_all(line.as_bytes())?;
    let mut heard = String::new();
    reader.read_line(&mut heard).context("the connection broke")?;
    if heard != line {
        bail!("sent {line:?}, heard {heard:?}");
    }
    Ok("echo".into())
}
