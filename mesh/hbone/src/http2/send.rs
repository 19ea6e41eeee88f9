//! What we say.

use std::io::{self, IoSliceMut};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, Method, StatusCode};

use super::Code;
use super::frame::{flag, kind};
use super::head;
use super::state::{Over, State, Stream};
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
        let id = self.next_own;
        self.next_own += 2;
        self.new_stream(id);
        self.send(kind::HEADERS, flag::END_HEADERS, id, &block);
        Some(id)
    }

    /// Waits for the answer to [`State::open`].
    pub(crate) fn poll_response(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<(StatusCode, HeaderMap), Broken>> {
        let Some(stream) = self.stream(id) else { return Poll::Ready(Err(Broken::Lost)) };
        if let Some(response) = stream.response.take() {
            return Poll::Ready(Ok(response));
        }
        match stream.broken {
            Some(broken) => Poll::Ready(Err(broken)),
            None => {
                stream.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
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
        let stream = self.live(id)?;
        stream.answered = true;
        stream.sent_end = end;
        self.allowance.earn(6);
        self.send(kind::HEADERS, flag::END_HEADERS | Self::end_flag(end), id, &block);
        Ok(())
    }

    fn live(&mut self, id: u32) -> Result<&mut Stream, Broken> {
        let stream = self.stream(id).ok_or(Broken::Lost)?;
        match stream.broken {
            Some(broken) => Err(broken),
            None => Ok(stream),
        }
    }

    /// Waits until bytes of a stream can be sent; returns how many.
    pub(crate) fn poll_room(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<usize, Broken>> {
        let connection = self.send_window;
        let ready = self.outgoing.is_ready();
        let stream = self.live(id)?;
        let room = stream.send_window.min(connection);
        if room > 0 && ready {
            return Poll::Ready(Ok(room as usize));
        }
        stream.sender = Some(cx.waker().clone());
        if stream.send_window > 0 && !self.blocked.contains(&id) {
            self.blocked.push(id);
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
        let sent = self.outgoing.fill(id, most, self.peer_frame, read)?;
        self.sent(id, sent);
        Ok(sent)
    }

    /// Sends as much of `data` as `room` and one frame allow; returns how much.
    pub(crate) fn send_data(&mut self, id: u32, data: &[u8], room: usize) -> usize {
        let data = &data[..data.len().min(room)];
        match self.outgoing.data(id, data, self.peer_frame) {
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
        self.send_window -= bytes as i64;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send_window -= bytes as i64;
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
        if !stream.sent_end {
            stream.sent_end = true;
            super::state::wake(&mut stream.watcher);
            self.send(kind::DATA, flag::END_STREAM, id, &[]);
        }
        Ok(())
    }

    /// Breaks a stream off in both directions.
    pub(crate) fn reset(&mut self, id: u32) {
        if let Ok(stream) = self.live(id)
            && !(stream.sent_end && stream.received_end)
        {
            stream.broken = Some(Broken::Reset(Code::Cancel as u32));
            self.send_reset(id, Code::Cancel);
        }
    }
}
