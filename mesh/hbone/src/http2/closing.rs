//! How a connection comes to its end: who leaves, how far that has come, and why it is over.

use std::io;
use std::rc::Rc;

use super::{Code, ConnectionError};
use crate::broken::TunnelError;

/// Payload of the PING whose answer says that the peer has seen our GOAWAY.
pub(super) const PING_LEAVING: [u8; 8] = *b"leaving\0";

/// Why a connection is over.
#[derive(Debug, Clone)]
pub(crate) enum Over {
    /// Both ends were done.
    Done,
    /// The peer broke the protocol.
    Protocol(ConnectionError),
    /// The transport or TLS failed.
    Transport(Rc<io::Error>),
    /// It left a PING unanswered.
    Unanswered,
    /// Whoever held it let go of it.
    Dropped,
    /// Whoever held it gave its peer up.
    GivenUp,
    /// The peer's certificate was taken back.
    Revoked,
}

impl Over {
    /// Whether the peer learns from the transport alone that it is over, whenever that is closed, and not at once from TLS: it took too
    /// much, and would only come again.
    pub(super) fn is_left_to_the_transport(&self) -> bool {
        match self {
            Self::Protocol(error) => error.code == Code::EnhanceYourCalm,
            other => matches!(other, Self::GivenUp),
        }
    }
}

impl From<io::Error> for Over {
    /// What a transport failed with; one that is a tunnel itself may have been cut.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(TunnelError::Revoked) => Self::Revoked,
            _ => Self::Transport(Rc::new(error)),
        }
    }
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("the connection is closed"),
            Self::Protocol(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Unanswered => f.write_str("the peer does not answer PING"),
            Self::Dropped => f.write_str("the connection was given up"),
            Self::GivenUp => f.write_str("the connection carried nothing, and others needed its place"),
            Self::Revoked => f.write_str("the peer's certificate has been revoked"),
        }
    }
}

/// How far our own GOAWAY has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoingAway {
    No,
    /// The peer is told; streams it opened before it knew are still taken.
    Announced,
    /// No stream is taken any more.
    Closed,
}

/// The end of a connection, as far as it has come. Nothing here is undone.
#[derive(Debug)]
pub(super) struct Closing {
    /// The peer takes no new streams.
    peer_goes_away: bool,
    going_away: GoingAway,
    /// We open no more streams here: the connection has carried enough.
    retired: bool,
    /// The handle of the connection is gone: it ends with its last stream, or, on a server, at once.
    released: bool,
    over: Option<Over>,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self { peer_goes_away: false, going_away: GoingAway::No, retired: false, released: false, over: None }
    }

    /// Why the connection is over, if it is.
    pub(super) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Ends the connection. False when it is over already: the first reason stays.
    #[must_use]
    pub(super) fn end(&mut self, why: Over) -> bool {
        let first = self.over.is_none();
        if first {
            self.over = Some(why);
        }
        first
    }

    /// True while either end goes on, but wants no new streams, or none of ours: with the last one the connection ends.
    pub(super) fn has_begun(&self) -> bool {
        self.released || self.retired || self.going_away == GoingAway::Closed || self.peer_goes_away
    }

    /// True until the peer or we want no more streams of ours.
    pub(super) fn takes_own_streams(&self) -> bool {
        self.over.is_none() && !self.peer_goes_away && !self.retired
    }

    /// True until the peer's streams are refused.
    pub(super) fn takes_peers_streams(&self) -> bool {
        self.over.is_none() && self.going_away != GoingAway::Closed
    }

    /// The peer has said that it takes no more streams.
    pub(super) fn peer_goes_away(&mut self) {
        self.peer_goes_away = true;
    }

    /// Whether the peer has said so.
    pub(super) fn has_peer_gone_away(&self) -> bool {
        self.peer_goes_away
    }

    /// Begins our own leaving. True when the peer has to be told.
    #[must_use]
    pub(super) fn announce(&mut self) -> bool {
        let now = self.going_away == GoingAway::No && self.over.is_none();
        if now {
            self.going_away = GoingAway::Announced;
        }
        now
    }

    /// The peer has seen what was announced. True when it has to be told which stream was the last.
    #[must_use]
    pub(super) fn close_to_new_streams(&mut self) -> bool {
        let now = self.going_away == GoingAway::Announced;
        if now {
            self.going_away = GoingAway::Closed;
        }
        now
    }

    /// We open no more streams here.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// The handle of the connection is gone.
    pub(super) fn release(&mut self) {
        self.released = true;
    }
}
