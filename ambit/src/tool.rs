//! Small clients and servers to put into pods, so that demos and tests need nothing but this executable.
mod grpc;
mod http;
mod load;
mod pace;
mod pattern;
mod peer;
mod tcp;

use anyhow::{Context, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tcp::serve;

/// One of them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Tool {
    /// Answers every HTTP request with one text.
    HttpServer {
        /// Where to listen; all addresses, IPv4 and IPv6.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// What to answer.
        #[arg(long, default_value = "hello")]
        text: String,
        /// Every how many requests to answer by 503 instead; 0 is never.
        #[arg(long, default_value_t = 0)]
        fail_every: u32,
    },
    /// Prints the body of one HTTP answer; exits with 1 on anything but 200.
    HttpGet {
        /// `http://HOST[:PORT][/PATH]`.
        url: String,
        /// Seconds for each step.
        #[arg(long, default_value_t = 3)]
        timeout: u64,
        /// A header to send, `Name: value`.
        #[arg(long)]
        header: Vec<String>,
    },
    /// Greets every TCP client before it says anything, then sends back what it gets.
    TcpHello {
        /// Where to listen.
        #[arg(long, default_value_t = 9000)]
        port: u16,
        /// The greeting.
        #[arg(long, default_value = "hello")]
        text: String,
    },
    /// Sleeps until it is ended.
    Wait,
    /// gRPC.
    #[command(flatten)]
    Grpc(grpc::Grpc),
    /// Traffic for tests.
    #[command(flatten)]
    Load(load::Load),
}

/// Runs one.
pub(crate) fn run(tool: &Tool) -> Result<ExitCode> {
    match tool {
        Tool::HttpServer { port, text, fail_every } => {
            let asked = AtomicU32::new(0);
            serve(*port, |stream| answer(stream, text, || fails(&asked, *fail_every)))
        }
        Tool::HttpGet { url, timeout, header } => get(url, Duration::from_secs(*timeout), header),
        Tool::TcpHello { port, text } => serve(*port, |stream| greet(stream, text)),
        Tool::Wait => loop {
            std::thread::park();
        },
        Tool::Grpc(grpc) => grpc::run(grpc),
        Tool::Load(load) => load::run(load),
    }
}

/// Counts a request, and says whether it is one that fails.
fn fails(asked: &AtomicU32, every: u32) -> bool {
    every > 0 && (asked.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every)
}

fn answer(mut stream: TcpStream, text: &str, fails: impl FnOnce() -> bool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(64 << 10));
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // A probe that only connects.
            return Ok(());
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    let (status, text) = if fails() { ("503 Service Unavailable", "not now") } else { ("200 OK", text) };
    let length = text.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}\n"
    );
    stream.write_all(answer.as_bytes())
}

fn greet(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    writeln!(stream, "{text}")?;
    let mut reader = stream.try_clone()?;
    std::io::copy(&mut reader, &mut stream)?;
    stream.shutdown(std::net::Shutdown::Write)
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn get(url: &str, timeout: Duration, headers: &[String]) -> Result<ExitCode> {
    let rest = url.strip_prefix("http://").context("the URL must begin with http://")?;
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let address = if named { host.to_owned() } else { format!("{host}:80") };
    let addresses = address.to_socket_addrs().with_context(|| format!("cannot resolve {host}"))?;
    let mut stream = Err(anyhow::anyhow!("{host} has no addresses"));
    for address in addresses {
        stream = TcpStream::connect_timeout(&address, timeout).with_context(|| format!("cannot connect to {address}"));
        if stream.is_ok() {
            break;
        }
    }
    let mut stream = stream?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let extra: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\n{extra}Connection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.take(16 << 20).read_to_end(&mut text).context("the connection broke")?;
    let answer = http::read(&text)?;
    print!("{}", String::from_utf8_lossy(&answer.body));
    if answer.status != "200" {
        bail!("{host} answered with {}", answer.status);
    }
    if !answer.whole {
        bail!("the connection was closed in the middle of the answer");
    }
    Ok(ExitCode::SUCCESS)
}
