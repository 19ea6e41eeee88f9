//! Closing a listener without turning anybody away.
//!
//! A listener belongs to a group that shares its port (`SO_REUSEPORT`): those of every data thread, and a successor's while the proxy is
//! replaced. The kernel binds a connection to one listener of the group when its SYN arrives. When that listener closes, whoever waits in
//! its queue, and whose handshake is under way, is reset, unless the kernel may give them to another listener of the group:
//! `net.ipv4.tcp_migrate_req` of the network namespace (Linux 5.14). Why it is done like this is in
//! `docs/decisions/0016-a-successor-takes-over-the-queues.md`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

/// Connections that wait to be accepted, per listener.
pub const BACKLOG: i32 = 1024;
/// How long handshakes under way may take to end on a listener that cannot leave them to another one.
const HANDSHAKES: Duration = Duration::from_millis(200);
/// The most that is taken from one listener's queue while it closes: as much as its queue holds.
const QUEUE: usize = BACKLOG as usize;

/// One listener closes at a time: what it leaves behind must not be given to one that closes at the same moment.
static CLOSING: Mutex<()> = Mutex::new(());

/// Closes a listener. What the kernel has accepted for it is handed to `start`; later comers find another listener.
pub(super) async fn close(listener: TcpListener, migrates: bool, start: impl Fn(TcpStream, SocketAddr)) {
    if !migrates && take_no_more(&listener).is_ok() {
        let deadline = Instant::now() + HANDSHAKES;
        while let Ok(accepted) = timeout_at(deadline, listener.accept()).await {
            match accepted {
                Ok((tcp, peer)) => start(tcp, peer),
                // One that was gone before it was served.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => break,
            }
        }
    }
    // The kernel is asked itself: what the runtime has not heard of yet is in its queue, too.
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..QUEUE {
        match listener.accept() {
            Ok((tcp, peer)) => {
                if tcp.set_nonblocking(true).is_ok()
                    && let Ok(tcp) = TcpStream::from_std(tcp)
                {
                    start(tcp, peer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break,
        }
    }
    let _alone = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(listener);
}

/// Lets no new connection begin here: its SYN is dropped as if it had been lost, and comes again a second later, when
/// this listener is gone and another one has its place. Handshakes under way end as usual.
fn take_no_more(listener: &TcpListener) -> io::Result<()> {
    // The flags of the TCP header, where a filter of a TCP socket begins to see: byte 13.
    const FLAGS: u32 = 13;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    let step = |code: u32, jt: u8, jf: u8, k: u32| SockFilter::new(code as u16, jt, jf, k);
    SockRef::from(listener).attach_filter(&[
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN_AND_ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ])
}

#[cfg(test)]
mod tests;
