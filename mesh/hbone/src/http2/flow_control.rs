//! What we let the peer send: windows given back as applications take, and a connection's shared among its streams. What
//! is decided is [`super::windows`]'; here it is carried out and said.

use super::Role;
use super::frame::kind;
use super::settings;
use super::state::State;

impl State {
    /// Bytes that have arrived and that applications have not taken.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn untaken(&self) -> i64 {
        self.receive_window.untaken()
    }

    /// `bytes` have left our buffers: the peer may send as much again, and is told when that is due.
    pub(super) fn give_back(&mut self, bytes: u32) {
        let due = self.receive_window.take(bytes);
        self.update_window(0, due);
        if let Some(window) = self.receive_window.end_shares() {
            self.set_initial_window(window);
        }
    }

    /// What a stream leaves behind: nobody may wait for it.
    pub(super) fn give_back_left(&mut self, bytes: u32) {
        self.give_back(bytes);
        if bytes > 0 {
            let due = self.receive_window.release();
            self.update_window(0, due);
        }
    }

    /// As [`State::give_back`], of a stream.
    pub(super) fn give_back_stream(&mut self, id: u32, bytes: usize) {
        self.give_back(bytes as u32);
        let window = self.receive_window.of_stream();
        let due = self.stream(id).and_then(|stream| stream.give_back(bytes, window));
        self.update_window(id, due);
    }

    /// The application has taken `bytes` of what was handed to its task.
    pub(crate) fn took(&mut self, id: u32, bytes: usize) {
        if let Some(stream) = self.stream(id) {
            stream.took(bytes);
            self.give_back_stream(id, bytes);
        }
    }

    /// Bytes have been put by for an application: makes windows shares when there are many.
    pub(super) fn share_out(&mut self) {
        let streams = match self.role {
            Role::Server => self.settings.server_streams,
            // Whatever it may open: on a connection whose windows are shares it opens no more (`State::has_room`).
            Role::Client => u32::try_from(self.streams.len()).unwrap_or(u32::MAX),
        };
        let Some(share) = self.receive_window.begin_shares(streams) else { return };
        // What was taken and not given back would otherwise be missing from a window that is smaller than that.
        let due: Vec<_> = self.streams.iter_mut().map(|(id, stream)| (*id, stream.release_window())).collect();
        for (id, due) in due {
            self.update_window(id, due);
        }
        let due = self.receive_window.release();
        self.update_window(0, due);
        self.set_initial_window(share);
    }

    /// Tells the peer of an increment, if one is due.
    fn update_window(&mut self, stream: u32, increment: Option<u32>) {
        if let Some(increment) = increment {
            self.send(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
        }
    }

    /// Changes the window of every stream, open or to be opened. What we hold the peer to stays the larger one: it may
    /// have sent before it heard.
    fn set_initial_window(&mut self, bytes: u32) {
        self.send(kind::SETTINGS, 0, 0, &settings::initial_window(bytes));
    }
}
