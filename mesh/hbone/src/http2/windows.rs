//! What we let the peer send: windows given back as applications take, and a connection's shared among its streams.
//!
//! Streams share the window of their connection, and a few whose applications do not read would use it up and hold up
//! all others. So once half of it waits for applications, every stream's own window is cut to a share
//! (SETTINGS_INITIAL_WINDOW_SIZE, RFC 9113 6.9.2): a server's streams, as many as there may be, or a client's, as many as
//! it has opened, fit into the other half, and those whose applications read go on. When three quarters are free again the
//! shares end.
//!
//! A share has no lower bound: where the connection's window is small and the streams are many, each is slow, but none
//! waits for an application that is not its own.

use super::frame::kind;
use super::state::{State, Stream, setting};

impl State {
    /// All that the peer may send on the connection before anything is taken.
    fn whole_window(&self) -> i64 {
        self.settings.connection_window.max(super::DEFAULT_WINDOW).into()
    }

    /// Bytes that have arrived and that applications have not taken.
    pub(crate) fn untaken(&self) -> i64 {
        self.whole_window() - self.receive_window - i64::from(self.taken)
    }

    /// The window of one stream if windows became shares now.
    fn share(&self) -> u32 {
        let streams = match self.role {
            super::state::Role::Server => self.settings.server_streams,
            // Whatever it may open: on a connection whose windows are shares it opens no more (`State::has_room`).
            super::state::Role::Client => u32::try_from(self.streams.len()).unwrap_or(u32::MAX),
        };
        let half = (self.whole_window() / 2) as u32;
        (half / streams.max(1)).max(1).min(self.settings.stream_window)
    }

    /// `bytes` have left our buffers: the peer may send as much again. It is told when it is worth a frame, or when
    /// little is left to it.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.taken += bytes;
        let worth = (self.settings.connection_window / 4).into();
        if i64::from(self.taken) >= (self.receive_window / 2).min(worth).max(1) {
            self.give_all_back();
        }
        if self.shares.is_some() && self.untaken() < self.whole_window() / 4 {
            self.shares = None;
            self.set_initial_window(self.settings.stream_window);
        }
    }

    fn give_all_back(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 {
            self.receive_window += i64::from(taken);
            self.send(kind::WINDOW_UPDATE, 0, 0, &taken.to_be_bytes());
        }
    }

    /// What a stream leaves behind: nobody may wait for it.
    pub(super) fn give_back_left(&mut self, bytes: u32) {
        self.give_back(bytes);
        if bytes > 0 {
            self.give_all_back();
        }
    }

    /// As [`State::give_back`], of a stream.
    pub(super) fn give_back_stream(&mut self, id: u32, bytes: usize) {
        self.give_back(bytes as u32);
        let window = self.shares.unwrap_or(self.settings.stream_window);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.taken += bytes as u32;
        if stream.taken >= (window / 4).max(1)
            && let Some(taken) = stream.give_back()
        {
            self.send(kind::WINDOW_UPDATE, 0, id, &taken.to_be_bytes());
        }
    }

    /// The application has taken `bytes` of what was handed to its task.
    pub(crate) fn took(&mut self, id: u32, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.handed = stream.handed.saturating_sub(bytes);
            self.give_back_stream(id, bytes);
        }
    }

    /// Bytes have been put by for an application: makes windows shares when there are many.
    pub(super) fn share_out(&mut self) {
        let share = self.share();
        let half_is_free = self.untaken() <= self.whole_window() / 2;
        if self.shares.is_some() || half_is_free || share >= self.settings.stream_window {
            return;
        }
        self.shares = Some(share);
        // What was taken and not given back would otherwise be missing from a window that is smaller than that.
        let given: Vec<_> = self.streams.iter_mut().filter_map(|(id, s)| Some((*id, s.give_back()?))).collect();
        for (id, taken) in given {
            self.send(kind::WINDOW_UPDATE, 0, id, &taken.to_be_bytes());
        }
        self.give_all_back();
        self.set_initial_window(share);
    }

    /// Changes the window of every stream, open or to be opened, by what is between it and the last one said. What we
    /// hold the peer to stays the larger one: it may have sent before it heard.
    fn set_initial_window(&mut self, bytes: u32) {
        let mut payload = [0; 6];
        payload[..2].copy_from_slice(&setting::INITIAL_WINDOW_SIZE.to_be_bytes());
        payload[2..].copy_from_slice(&bytes.to_be_bytes());
        self.send(kind::SETTINGS, 0, 0, &payload);
    }
}

impl Stream {
    /// Takes what is to be given back, unless the peer sends no more anyway.
    fn give_back(&mut self) -> Option<u32> {
        if self.taken == 0 || self.received_end || self.broken.is_some() {
            return None;
        }
        let taken = std::mem::take(&mut self.taken);
        self.receive_window += i64::from(taken);
        Some(taken)
    }
}
