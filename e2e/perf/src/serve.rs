//! The servers of one pod. All requests are served by one thread, as light as can be: on a small machine the servers
//! share the cores with the proxies that are measured.
use crate::abuse::application;
use crate::cli::Serve;
use crate::wire::{self, BULK_PORT, ECHO_PORT, HTTP_PORT, SINK_PORT, WEB_PORT};
use anyhow::{Context, Result};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How much of a stream is read at a time.
const BULK_BUFFER: usize = 256 * 1024;
/// Connections the kernel keeps for us until we accept them.
const BACKLOG: u32 = 4096;

/// Serves until it is killed.
pub(crate) fn run(args: &Serve) -> Result<()> {
    let hold = Duration::from_secs_f64(args.hold);
    crate::launch::raise_descriptor_limit()?;
    let bulk = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, BULK_PORT)).context("cannot listen for streams")?;
    std::thread::Builder::new().name("bulk".into()).spawn(move || serve_streams(&bulk))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let echo = listen(ECHO_PORT)?;
        tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = echo.accept().await {
                    tokio::spawn(serve_echo(stream));
                }
            }
        });
        let sink = listen(SINK_PORT)?;
        tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = sink.accept().await {
                    tokio::spawn(let_be(stream, hold));
                }
            }
        });
        let web = listen(WEB_PORT)?;
        tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = web.accept().await {
                    tokio::spawn(application::serve(stream));
                }
            }
        });
        let http = listen(HTTP_PORT)?;
        loop {
            if let Ok((stream, _)) = http.accept().await {
                tokio::spawn(serve_http(stream));
            }
        }
    })
}

fn listen(port: u16) -> Result<tokio::net::TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).with_context(|| format!("cannot bind port {port}"))?;
    Ok(socket.listen(BACKLOG)?)
}

fn serve_streams(listener: &std::net::TcpListener) {
    for stream in listener.incoming().flatten() {
        // A stream that breaks off has nobody left to tell; the load reports its end of it.
        let _ = std::thread::Builder::new().name("stream".into()).spawn(move || count_stream(stream));
    }
}

fn count_stream(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BULK_BUFFER];
    let mut count = 0u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&count.to_le_bytes()),
            n => count += n as u64,
        }
    }
}

async fn serve_echo(mut stream: TcpStream) -> std::io::Result<()> {
    // Small: a thousand of them are idle while memory is measured.
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

/// Reads nothing, until the other side breaks off.
/// Reads nothing, and closes the connection after some time.
async fn let_be(stream: TcpStream, hold: Duration) {
    // An error of the socket is its end.
    let _ = tokio::time::timeout(hold, stream.ready(tokio::io::Interest::ERROR)).await;
}

async fn serve_http(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; wire::LONGEST_REQUEST];
    let mut filled = 0;
    loop {
        while let Some(request) = wire::request(&buffer[..filled]) {
            if request.last {
                stream.write_all(wire::LAST_RESPONSE).await?;
                return stream.shutdown().await;
            }
            stream.write_all(wire::RESPONSE).await?;
            buffer.copy_within(request.length..filled, 0);
            filled -= request.length;
        }
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            n => filled += n,
        }
    }
}
