//! When the process should end: SIGTERM, SIGINT, or someone asking through `/quitquitquit`.

use std::fmt;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asked to end, and by what. Clones share one answer: the first request stands.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Sender<Option<Reason>>,
}

/// What asked the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The platform stops us: SIGTERM.
    Terminate,
    /// A person at the keyboard: SIGINT.
    Interrupt,
    /// POST `/quitquitquit` on the admin port.
    Quit,
    /// The program itself cannot go on.
    Failure,
}

impl Shutdown {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self { requested: watch::Sender::new(None) }
    }

    /// Asks the process to end. The first reason stands.
    pub fn request(&self, reason: Reason) {
        self.requested.send_if_modified(|requested| {
            let first = requested.is_none();
            requested.get_or_insert(reason);
            first
        });
    }

    /// Returns when the process was asked to end by [`Shutdown::request`]; signals are not looked at.
    pub async fn requested(&self) -> Reason {
        let mut requested = self.requested.subscribe();
        loop {
            if let Some(reason) = *requested.borrow_and_update() {
                return reason;
            }
            // Cannot fail: `self` holds a sender.
            let _ = requested.changed().await;
        }
    }

    /// Returns when the process was asked to end, by signal or by [`Shutdown::request`]. From the first call on, SIGTERM and SIGINT no
    /// longer end the process by themselves.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub async fn wait(&self) -> io::Result<Reason> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let reason = tokio::select! {
            _ = terminate.recv() => Reason::Terminate,
            _ = interrupt.recv() => Reason::Interrupt,
            reason = self.requested() => return Ok(reason),
        };
        self.request(reason);
        Ok(reason)
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Terminate => "SIGTERM",
            Reason::Interrupt => "SIGINT",
            Reason::Quit => "/quitquitquit",
            Reason::Failure => "internal failure",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_request_stands_and_clones_share_it() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        let waiting = tokio::spawn(async move { other.wait().await.unwrap() });
        shutdown.request(Reason::Quit);
        shutdown.request(Reason::Failure);
        assert_eq!(waiting.await.unwrap(), Reason::Quit);
        assert_eq!(shutdown.requested().await, Reason::Quit);
    }

    #[tokio::test]
    async fn a_real_signal_is_heard() {
        let shutdown = Shutdown::new();
        let mut waiting = std::pin::pin!(shutdown.wait());
        // The first poll installs the handlers; only then may the signal be sent.
        std::future::poll_fn(|cx| {
            assert!(waiting.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        let sent = std::process::Command::new("sh").args(["-c", "kill -TERM $PPID"]).status().unwrap();
        assert!(sent.success());
        assert_eq!(waiting.await.unwrap(), Reason::Terminate);
        assert_eq!(shutdown.requested().await, Reason::Terminate);
    }
}
