//! Connections that were turned away, closed three seconds later.
//!
//! Whoever is turned away mostly comes again at once. A loop of a few thousand such callers turns ten thousand times a second, and
//! beginning and ending their connections takes more of the machine than anything that it carries. While its connection stays open, a
//! caller waits; so it turns no faster than that. What was sent to it before, an alert or GOAWAY, arrives as well: an end at once may overtake
//! it.
//!
//! A connection that waits here costs a descriptor and a few kilobytes of the kernel. Where too many wait, the oldest close.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long they stay open.
const LATER: Duration = Duration::from_secs(3);
/// What the kernel may go on to keep of what a peer sends, in bytes; it doubles that (socket(7)), and takes the packet with which that is
/// passed.
const KEPT: usize = 2 << 10;
/// The most that is thrown away of what a peer has sent already: as much as the kernel keeps for a connection that was not read from.
const THROWN_AWAY: usize = 64 << 10;
/// Closed before others of the thread have their turn.
const AT_ONCE: usize = 64;

/// Those that wait.
pub(crate) struct LateClose {
    most: usize,
    waiting: Mutex<VecDeque<(Instant, std::net::TcpStream)>>,
    some: Notify,
}

impl LateClose {
    /// At most `most` wait at once.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, waiting: Mutex::default(), some: Notify::new() })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, std::net::TcpStream)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes `tcp` later, as it would be closed when it is dropped. Neither reads from it nor writes to it any more.
    pub(crate) fn close(&self, tcp: TcpStream) {
        let Ok(tcp) = tcp.into_std() else { return };
        if self.most == 0 || throw_away(&SockRef::from(&tcp)).is_err() {
            return;
        }
        // Closed without the lock.
        let _oldest = {
            let mut waiting = self.waiting();
            waiting.push_back((Instant::now() + LATER, tcp));
            (waiting.len() > self.most).then(|| waiting.pop_front())
        };
        self.some.notify_one();
    }

    /// Closes what has waited long enough, for as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            let due = self.waiting().front().map(|(due, _)| *due);
            match due {
                None => self.some.notified().await,
                Some(due) => {
                    tokio::time::sleep_until(due).await;
                    drop(self.take(Instant::now()));
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Some of those that are due at `now`.
    fn take(&self, now: Instant) -> Vec<(Instant, std::net::TcpStream)> {
        let mut waiting = self.waiting();
        let due = waiting.iter().take(AT_ONCE).take_while(|(due, _)| *due <= now).count();
        waiting.drain(..due).collect()
    }
}

/// Throws away what the peer has sent, and has the kernel keep little of what it sends from now on.
fn throw_away(tcp: &SockRef<'_>) -> io::Result<()> {
    tcp.set_recv_buffer_size(KEPT)?;
    // With MSG_TRUNC the kernel drops so many bytes and copies none (tcp(7)).
    let mut nowhere = [MaybeUninit::uninit(); THROWN_AWAY];
    match tcp.recv_with_flags(&mut nowhere, libc::MSG_TRUNC) {
        // It has hung up: nobody waits.
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
