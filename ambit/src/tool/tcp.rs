//! TCP as all tools use it: a thread for each connection that comes, and one connection to the first address that answers.
use anyhow::{Context, Result};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

/// Serves every connection to this port, and says in the log how that went.
#[allow(clippy::print_stdout, reason = "the pod's log")]
pub(super) fn serve(port: u16, handle: impl Fn(TcpStream) -> std::io::Result<()> + Sync) -> Result<ExitCode> {
    // `::` takes IPv4 too, except on machines without IPv6.
    let listener = TcpListener::bind(("::", port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .with_context(|| format!("cannot listen on port {port}"))?;
    println!("listening on {}", listener.local_addr()?);
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let stream = stream?;
            let handle = &handle;
            scope.spawn(move || {
                let peer = stream.peer_addr().map(|a| a.ip().to_canonical().to_string()).unwrap_or_default();
                match handle(stream) {
                    Ok(()) => println!("served {peer}"),
                    Err(e) => println!("{peer}: {e}"),
                }
            });
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Connects to the first address of `to` that answers.
pub(super) fn connect(to: &str, limit: Duration) -> Result<TcpStream> {
    let mut error = anyhow::anyhow!("{to} has no addresses");
    for address in to.to_socket_addrs().with_context(|| format!("cannot resolve {to}"))? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => error = anyhow::Error::new(e).context(format!("cannot connect to {address}")),
        }
    }
    Err(error)
}
