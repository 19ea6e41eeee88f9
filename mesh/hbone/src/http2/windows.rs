//! Flow-control windows (RFC 9113 5.2 and 6.9), as types that keep their invariants. No I/O: who changes a window is told
//! what has to be said to the peer.
//!
//! | window | of | invariant |
//! |---|---|---|
//! | [`SendWindow`] | what the peer lets us send | never larger than [`MAX_WINDOW`]; negative after SETTINGS that made it smaller |
//! | [`ReceiveWindow`] | what we let the peer send | what is open, held back, and with the applications is always what we granted |
//! | [`ConnectionWindow`] | the same, of a connection | and it is shared among streams while much of it is with applications |
//!
//! Streams share the window of their connection, and a few whose applications do not read would use it up and hold up
//! all others. So once half of it waits for applications, every stream's own window is cut to a share
//! (SETTINGS_INITIAL_WINDOW_SIZE, RFC 9113 6.9.2): a server's streams, as many as there may be, or a client's, as many as
//! it has opened, fit into the other half, and those whose applications read go on. When three quarters are free again the
//! shares end.
//!
//! A share has no lower bound: where the connection's window is small and the streams are many, each is slow, but none
//! waits for an application that is not its own.

use super::{DEFAULT_WINDOW, MAX_WINDOW};
use crate::Settings;

/// What the peer lets us send, on a stream or on the connection.
#[derive(Debug)]
pub(super) struct SendWindow {
    open: i64,
    /// The most that it has been.
    most: i64,
}

impl SendWindow {
    pub(super) fn new(open: i64) -> Self {
        Self { open, most: open }
    }

    /// Bytes that may be sent. Not positive: none.
    pub(super) fn open(&self) -> i64 {
        self.open
    }

    /// `bytes` have been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.open -= bytes as i64;
    }

    /// The peer grants `more`, or less if that is negative. False, and nothing is changed, when the window would be larger
    /// than any may be.
    #[must_use]
    pub(super) fn grow(&mut self, more: i64) -> bool {
        let open = self.open + more;
        if open > MAX_WINDOW {
            return false;
        }
        self.open = open;
        self.most = self.most.max(open);
        true
    }

    /// Whether half of the most that the peer has granted can be sent.
    pub(super) fn half_is_free(&self) -> bool {
        self.open >= self.most / 2
    }
}

/// What we let the peer send, on a stream or on the connection.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    open: i64,
    /// Has left our buffers, and the peer does not know yet.
    held_back: u32,
}

impl ReceiveWindow {
    pub(super) fn new(open: i64) -> Self {
        Self { open, held_back: 0 }
    }

    /// `bytes` have come. False when the peer has sent more than it may.
    #[must_use]
    pub(super) fn receive(&mut self, bytes: usize) -> bool {
        self.open -= bytes as i64;
        self.open >= 0
    }

    /// `bytes` have left our buffers: they are given back by the next [`ReceiveWindow::release`].
    pub(super) fn hold_back(&mut self, bytes: u32) {
        self.held_back += bytes;
    }

    /// What the next [`ReceiveWindow::release`] gives back.
    pub(super) fn held_back(&self) -> u32 {
        self.held_back
    }

    /// Lets the peer send again what was held back. Returns the increment of the WINDOW_UPDATE that has to tell it.
    #[must_use]
    pub(super) fn release(&mut self) -> Option<u32> {
        let released = std::mem::take(&mut self.held_back);
        self.open += i64::from(released);
        (released > 0).then_some(released)
    }
}

/// What we let the peer send on the connection, and how its streams share it.
#[derive(Debug)]
pub(super) struct ConnectionWindow {
    window: ReceiveWindow,
    /// All that the peer may send before anything is taken.
    whole: i64,
    /// So much held back is worth a frame.
    worth: i64,
    /// A stream's window while they are not shares.
    stream: u32,
    /// Streams' windows are shares of the connection's: so large each.
    share: Option<u32>,
}

impl ConnectionWindow {
    pub(super) fn new(settings: &Settings) -> Self {
        let whole = settings.connection_window.max(DEFAULT_WINDOW).into();
        Self {
            window: ReceiveWindow::new(whole),
            whole,
            worth: (settings.connection_window / 4).into(),
            stream: settings.stream_window,
            share: None,
        }
    }

    /// `bytes` have come. False when the peer has sent more than it may.
    #[must_use]
    pub(super) fn receive(&mut self, bytes: usize) -> bool {
        self.window.receive(bytes)
    }

    /// `bytes` have left our buffers. Returns the increment of the WINDOW_UPDATE that is due: when it is worth a frame, or
    /// when little is left to the peer.
    #[must_use]
    pub(super) fn take(&mut self, bytes: u32) -> Option<u32> {
        self.window.hold_back(bytes);
        let due = (self.window.open / 2).min(self.worth).max(1);
        if i64::from(self.window.held_back()) >= due { self.window.release() } else { None }
    }

    /// As [`ReceiveWindow::release`].
    #[must_use]
    pub(super) fn release(&mut self) -> Option<u32> {
        self.window.release()
    }

    /// Bytes that have arrived and that applications have not taken.
    pub(super) fn untaken(&self) -> i64 {
        self.whole - self.window.open - i64::from(self.window.held_back())
    }

    /// What the peer may send, and what it may send once it is told of what is held back.
    #[cfg(test)]
    pub(super) fn granted(&self) -> i64 {
        self.window.open + i64::from(self.window.held_back())
    }

    /// The window of a stream.
    pub(super) fn of_stream(&self) -> u32 {
        self.share.unwrap_or(self.stream)
    }

    /// Whether streams' windows are shares.
    pub(super) fn is_shared(&self) -> bool {
        self.share.is_some()
    }

    /// Makes streams' windows shares if more than half of the connection's waits for applications and there are so many
    /// `streams` that they could use up the rest. Returns the share, if shares begin.
    #[must_use]
    pub(super) fn begin_shares(&mut self, streams: u32) -> Option<u32> {
        let half = (self.whole / 2) as u32;
        let share = (half / streams.max(1)).max(1).min(self.stream);
        let half_is_free = self.untaken() <= self.whole / 2;
        if self.share.is_some() || half_is_free || share >= self.stream {
            return None;
        }
        self.share = Some(share);
        self.share
    }

    /// Ends the shares if three quarters of the connection's window are free. Returns the window of streams that holds
    /// again, if they end.
    #[must_use]
    pub(super) fn end_shares(&mut self) -> Option<u32> {
        if self.share.is_none() || self.untaken() >= self.whole / 4 {
            return None;
        }
        self.share = None;
        Some(self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_is_never_too_large() {
        let mut window = SendWindow::new(DEFAULT_WINDOW.into());
        assert!(window.half_is_free());
        window.sent(40_000);
        assert_eq!((window.open(), window.half_is_free()), (25_535, false));
        assert!(window.grow(7_232), "to half of what it was");
        assert!(window.half_is_free());
        assert!(!window.grow(MAX_WINDOW - 32_766), "one too many");
        assert_eq!(window.open(), 32_767, "and nothing has changed");
        assert!(window.grow(MAX_WINDOW - 32_767));
        assert!(window.grow(-MAX_WINDOW - 100), "SETTINGS may take back what was used");
        assert_eq!(window.open(), -100);
    }

    /// A peer that grants more than at first is a peer of whom more has to be free.
    #[test]
    fn half_of_a_send_window_is_half_of_the_most_that_it_was() {
        let mut window = SendWindow::new(DEFAULT_WINDOW.into());
        assert!(window.grow(1_000_000 - i64::from(DEFAULT_WINDOW)));
        window.sent(500_000);
        assert!(window.half_is_free());
        window.sent(1);
        assert!(!window.half_is_free(), "more than the first grant, less than half of the second");
    }

    #[test]
    fn what_is_held_back_is_given_back_once() {
        let mut window = ReceiveWindow::new(1_000);
        assert!(window.receive(1_000));
        assert!(!window.receive(1), "one too many");
        let mut window = ReceiveWindow::new(1_000);
        assert!(window.receive(900));
        window.hold_back(300);
        window.hold_back(300);
        assert_eq!((window.held_back(), window.open), (600, 100), "the peer does not know yet");
        assert_eq!((window.release(), window.open), (Some(600), 700));
        assert_eq!((window.release(), window.open), (None, 700));
    }

    fn connection() -> ConnectionWindow {
        ConnectionWindow::new(&Settings { connection_window: 80_000, stream_window: 40_000, ..Settings::default() })
    }

    #[test]
    fn a_connections_window_is_given_back_when_that_is_worth_a_frame() {
        let mut window = connection();
        assert!(window.receive(20_000));
        assert_eq!(window.take(19_999), None);
        assert_eq!(window.take(1), Some(20_000), "a quarter");
        assert_eq!(window.untaken(), 0);
        assert!(window.receive(79_000));
        assert_eq!(window.take(499), None);
        assert_eq!(window.take(1), Some(500), "half of what is left to the peer");
        assert_eq!(window.untaken(), 78_500);
        assert!(window.receive(1_500));
        assert_eq!(window.take(1), Some(1), "nothing is left to it");
        assert!(!window.receive(2), "one too many");
    }

    #[test]
    fn shares_begin_beyond_a_half_and_end_below_a_quarter() {
        let mut window = connection();
        assert_eq!((window.of_stream(), window.end_shares()), (40_000, None));
        assert!(window.receive(40_000));
        assert_eq!(window.begin_shares(4), None, "half is free");
        assert!(window.receive(1));
        assert_eq!(window.begin_shares(1), None, "the share of one is all that a stream may have anyway");
        assert_eq!(window.begin_shares(4), Some(10_000));
        assert_eq!((window.begin_shares(8), window.of_stream(), window.is_shared()), (None, 10_000, true), "once");
        let _ = window.take(20_001);
        assert_eq!(window.end_shares(), None, "a quarter is taken");
        let _ = window.take(1);
        assert_eq!((window.end_shares(), window.of_stream(), window.is_shared()), (Some(40_000), 40_000, false));
        assert!(window.receive(60_000));
        assert_eq!(window.begin_shares(u32::MAX), Some(1), "never nothing");
    }
}
