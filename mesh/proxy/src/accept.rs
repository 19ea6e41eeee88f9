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

/// Connections taken before others of the thread have their turn: thousands may wait.
const AT_ONCE: u32 = 32;

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
    let mut taken = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    start(tcp, peer);
                    taken += 1;
                    if taken == AT_ONCE {
                        taken = 0;
                        tokio::task::yield_now().await;
                    }
                }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// Whoever has many connections wait does not have them all taken before anybody else of the thread has a turn.
    #[tokio::test]
    async fn others_of_the_thread_go_on_between_connections() {
        const WAIT: u32 = 100;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let _waiting: Vec<_> = (0..WAIT).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
        let (_drain, watch) = drain::new();
        LocalSet::new()
            .run_until(async {
                let taken = Rc::new(Cell::new(0));
                let counted = taken.clone();
                spawn_local(async move {
                    accept(listener, true, &watch, &"pod", |_, _| counted.set(counted.get() + 1)).await;
                });
                let (mut before, mut most) = (0, 0);
                while taken.get() < WAIT {
                    yield_now().await;
                    most = most.max(taken.get() - before);
                    before = taken.get();
                }
                assert!(most <= AT_ONCE, "{most} connections were taken between two turns of another task");
            })
            .await;
    }
}
