//! Whether the peer is still there (pure): a PING when it has been silent, and the end when that is not answered.

use std::time::Duration;

use tokio::time::Instant;

/// Payload of the PING that asks.
pub(super) const PING_ALIVE: [u8; 8] = *b"alive?\0\0";

/// What is known of the peer's being there.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    limit: Duration,
    /// When to look again.
    next_look: Instant,
    /// It has said something since the last look.
    heard: bool,
    /// When it was asked, if it has said nothing since.
    asked: Option<Instant>,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is to be done.
    Fine,
    /// Send a PING.
    Ask,
    /// The last PING has not been answered in time.
    Unanswered,
}

impl KeepAlive {
    /// Looks every `interval`, and waits for an answer for `limit`.
    pub(super) fn new(interval: Duration, limit: Duration, now: Instant) -> Self {
        Self { interval, limit, next_look: now + interval, heard: false, asked: None }
    }

    /// When to look.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// The peer has said something.
    pub(super) fn heard(&mut self) {
        self.heard = true;
        self.asked = None;
    }

    /// Looks whether it is there.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        self.next_look = now + self.interval.min(self.limit);
        match self.asked {
            Some(asked) if now.duration_since(asked) >= self.limit => Look::Unanswered,
            Some(_) => Look::Fine,
            None if self.heard => {
                self.heard = false;
                Look::Fine
            }
            None => {
                self.asked = Some(now);
                Look::Ask
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_and_given_up() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * second;
        let mut peer = KeepAlive::new(10 * second, 20 * second, start);
        assert_eq!(peer.next_look(), at(10));
        assert_eq!(peer.look(at(10)), Look::Ask, "it has said nothing since the connection was made");
        assert_eq!((peer.look(at(20)), peer.next_look()), (Look::Fine, at(30)));
        peer.heard();
        assert_eq!(peer.look(at(30)), Look::Fine, "it has answered");
        assert_eq!(peer.look(at(40)), Look::Ask);
        assert_eq!(peer.look(at(50)), Look::Fine);
        assert_eq!(peer.look(at(59)), Look::Fine);
        assert_eq!(peer.look(at(60)), Look::Unanswered);
        let mut short = KeepAlive::new(10 * second, 5 * second, start);
        assert_eq!((short.look(at(10)), short.next_look()), (Look::Ask, at(15)), "the limit is looked at, too");
    }
}
