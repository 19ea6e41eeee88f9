//! What we say.

use std::io::{self, IoSliceMut};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, Method, StatusCode};

use super::Code;
use super::closing::Over;
use super::frame::{flag, kind};
use super::head;
use super::state::State;
use super::stream::Stream;
use crate::broken::Broken;

/// The longest header block we send: what every peer takes in one frame.
const MAX_BLOCK: usize = super::DEFAULT_FRAME;

impl State {
    /// Opens a stream with a request. `None` when the connection takes none, or no peer would take the request.
    pub(crate) fn open(&mut self, method: &Method, authority: &str, headers: &HeaderMap) -> Option<u32> {
        let block = head::request(method, authority, headers);
        if !self.takes_streams() || block.len() > MAX_BLOCK {
            return None;
        }
        let id = self.ids.open();
        self.new_stream(id, false);
        self.send(kind::HEADERS, flag::END_HEADERS, id, &block);
        Some(id)
    }

    /// Waits for the answer to [`State::open`].
    pub(crate) fn poll_response(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<(StatusCode, HeaderMap), Broken>> {
        self.stream(id).map_or(Poll::Ready(Err(Broken::Lost)), |stream| stream.poll_response(cx))
    }

    /// Answers a request. `end` says that nothing follows.
    pub(crate) fn respond(
        &mut self,
        id: u32,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
    ) -> Result<(), Broken> {
        let block = head::response(status, headers);
        self.live(id)?.answer_sent(end);
        self.allowance.earn(6);
        let end = if end { flag::END_STREAM } else { 0 };
        self.send(kind::HEADERS, flag::END_HEADERS | end, id, &block);
        Ok(())
    }

    fn live(&mut self, id: u32) -> Result<&mut Stream, Broken> {
        let stream = self.stream(id).ok_or(Broken::Lost)?;
        stream.broken().map_or(Ok(stream), Err)
    }

    /// Waits until bytes of a stream can be sent; returns how many.
    pub(crate) fn poll_room(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<usize, Broken>> {
        let connection = self.send_window.open();
        let ready = self.outgoing.is_ready();
        let stream = self.live(id)?;
        let own = stream.send_window();
        let room = own.min(connection);
        if room > 0 && ready {
            return Poll::Ready(Ok(room as usize));
        }
        stream.wait_for_room(cx);
        if own > 0 {
            self.blocked.add(id);
        }
        Poll::Pending
    }

    /// Sends what `read` reads, at most `most` bytes, which [`State::poll_room`] has granted.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn send_from(
        &mut self,
        id: u32,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = self.outgoing.fill(id, most, self.peer.frame_size(), read)?;
        self.sent(id, sent);
        Ok(sent)
    }

    /// Sends as much of `data` as `room` and one frame allow; returns how much.
    pub(crate) fn send_data(&mut self, id: u32, data: &[u8], room: usize) -> usize {
        let data = &data[..data.len().min(room)];
        match self.outgoing.data(id, data, self.peer.frame_size()) {
            Ok(sent) => {
                self.sent(id, sent);
                sent
            }
            Err(error) => {
                self.end(Over::Transport(Rc::new(io::Error::other(error))));
                0
            }
        }
    }

    fn sent(&mut self, id: u32, bytes: usize) {
        self.send_window.sent(bytes);
        if let Some(stream) = self.stream(id) {
            stream.sent(bytes);
        }
        if bytes > 0 {
            // A peer may say for every kilobyte that it has taken it.
            self.allowance.earn(4 + (bytes >> 10) as u32);
            self.drive();
        }
    }

    /// Half-closes a stream.
    pub(crate) fn finish(&mut self, id: u32) -> Result<(), Broken> {
        let stream = self.live(id)?;
        if !stream.has_sent_end() {
            stream.end_sent();
            self.send(kind::DATA, flag::END_STREAM, id, &[]);
        }
        Ok(())
    }

    /// Breaks a stream off in both directions.
    pub(crate) fn reset(&mut self, id: u32) {
        if let Ok(stream) = self.live(id)
            && !stream.is_complete()
        {
            stream.break_off(Broken::Reset(Code::Cancel as u32));
            self.send_reset(id, Code::Cancel);
        }
    }
}
