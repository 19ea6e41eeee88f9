//! Accepts connections until the proxy drains.

mod close;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_model::address::canonical;
use mesh_runtime::drain;
use tokio::net::{TcpListener, TcpStream};

pub use self::close::BACKLOG;

/// Accepts on `listener`, which is `whose`, until the proxy drains; then closes it without turning anybody away. `migrates`
/// says whether the kernel gives those who wait there to another listener (`close`). Each connection is handed to
/// `start`, with its peer's address in normal form.
pub async fn accept(
    listener: std::net::TcpListener,
    migrates: bool,
    drain: &drain::Watch,
    whose: &impl Display,
    start: impl Fn(TcpStream, SocketAddr),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(pod = %whose, %error, "cannot listen"),
    };
    let start = |tcp: TcpStream, peer: SocketAddr| start(tcp, canonical(peer));
    let closing = drain.closing();
    tokio::pin!(closing);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => start(tcp, peer),
                Err(error) => give_way(whose, &error).await,
            },
            () = &mut closing => break,
        }
    }
    close::close(listener, migrates, start).await;
}

/// After a failed accept: one connection's fault goes on at once, a shortage of descriptors waits for some to be
/// given back instead of spinning.
async fn give_way(whose: &impl Display, error: &io::Error) {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
        tracing::error!(pod = %whose, %error, "cannot accept: raise the limit of open files (ulimit -n)");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
