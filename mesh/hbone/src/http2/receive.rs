//! What the peer says.

use std::borrow::Cow;
use std::time::Instant;

use http::StatusCode;

use super::frame::{Header, flag, kind};
use super::head::Head;
use super::hpack::InvalidBlock;
use super::kept::Kept;
use super::state::{Block, MAX_BLOCK, MAX_LIST, MAX_UNREAD, PING_LEAVING, Request, Role, State, wake};
use super::{Code, ConnectionError, MAX_WINDOW, PREFACE};
use crate::broken::Broken;

type Received = Result<(), ConnectionError>;

const fn protocol(what: &'static str) -> ConnectionError {
    ConnectionError::new(Code::Protocol, what)
}

impl State {
    /// Takes the client's preface off `input`.
    pub(super) fn preface(&mut self, input: &mut &[u8]) -> Received {
        if self.role == Role::Server && self.preface_seen < PREFACE.len() {
            let expected = &PREFACE[self.preface_seen..];
            let length = expected.len().min(input.len());
            if input[..length] != expected[..length] {
                return Err(protocol("the caller does not speak HTTP/2"));
            }
            self.preface_seen += length;
            *input = &input[length..];
        }
        Ok(())
    }

    /// Pays for a frame that carries nothing.
    pub(super) fn spend(&mut self, cost: u32) -> Received {
        match self.allowance.spend(cost, Instant::now()) {
            true => Ok(()),
            false => {
                Err(ConnectionError::new(Code::EnhanceYourCalm, "the peer floods the connection with empty frames"))
            }
        }
    }

    /// Accounts for some of a DATA frame. False when nobody waits for its payload.
    pub(super) fn data(
        &mut self,
        id: u32,
        payload: usize,
        counted: usize,
        whole: bool,
    ) -> Result<bool, ConnectionError> {
        self.in_order(kind::DATA, id)?;
        if id == 0 || self.is_idle(id) {
            return Err(protocol("DATA on a stream that was never opened"));
        }
        if payload == 0 {
            // Empty, or some of its padding.
            self.spend(u32::from(whole))?;
        }
        let flow = ConnectionError::new(Code::FlowControl, "the peer sends more than its window");
        self.receive_window -= counted as i64;
        if self.receive_window < 0 {
            return Err(flow);
        }
        let padding = (counted - payload) as u32;
        let Some(stream) = self.streams.get_mut(&id) else {
            self.give_back(counted as u32);
            return Ok(false);
        };
        if stream.received_end {
            return Err(ConnectionError::new(Code::StreamClosed, "DATA after the end of its stream"));
        }
        stream.receive_window -= counted as i64;
        if stream.receive_window < 0 {
            return Err(flow);
        }
        if self.role == Role::Client && !stream.answered && stream.broken.is_none() {
            return Err(protocol("DATA before the answer"));
        }
        if payload > 0 {
            self.allowance.earn(2);
        }
        if padding > 0 {
            self.give_back_stream(id, padding as usize);
        }
        Ok(true)
    }

    /// The peer has sent the last of a stream's bytes.
    pub(super) fn end_of(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.received_end = true;
            wake(&mut stream.receiver);
            wake(&mut stream.watcher);
        }
    }

    /// Between a HEADERS and the last of its CONTINUATIONs nothing else comes (RFC 9113 6.10).
    fn in_order(&self, kind: u8, id: u32) -> Received {
        match &self.block {
            Some(block) if kind != kind::CONTINUATION || block.stream != id => {
                Err(protocol("a header block is interrupted"))
            }
            None if kind == kind::CONTINUATION => Err(protocol("CONTINUATION of nothing")),
            _ if !self.greeted && kind != kind::SETTINGS => Err(protocol("the first frame is not SETTINGS")),
            _ => Ok(()),
        }
    }

    /// True for a stream that nobody has opened yet.
    fn is_idle(&self, id: u32) -> bool {
        match id % 2 == 1 {
            // Clients open the odd ones.
            true if self.role == Role::Client => id >= self.next_own,
            true => id > self.last_peers,
            false => true,
        }
    }

    /// Takes a frame other than DATA.
    pub(super) fn frame(&mut self, header: Header, payload: Cow<'_, [u8]>) -> Received {
        self.in_order(header.kind, header.stream)?;
        if self.outgoing.waiting() > MAX_UNREAD {
            return Err(ConnectionError::new(Code::EnhanceYourCalm, "the peer reads no answers and goes on asking"));
        }
        let id = header.stream;
        match header.kind {
            kind::HEADERS => self.headers(header, payload),
            kind::CONTINUATION => {
                self.spend(1)?;
                self.continuation(header, &payload)
            }
            kind::SETTINGS => self.settings_frame(header, &payload),
            kind::WINDOW_UPDATE => self.window_update(id, &payload),
            kind::RST_STREAM => self.reset_frame(id, &payload),
            kind::PING => self.ping_frame(header, &payload),
            kind::GOAWAY => self.go_away_frame(id, &payload),
            kind::PUSH_PROMISE => Err(protocol("PUSH_PROMISE was not asked for")),
            kind::PRIORITY if payload.len() != 5 => {
                Err(ConnectionError::new(Code::FrameSize, "PRIORITY of a wrong length"))
            }
            kind::PRIORITY if id == 0 => Err(protocol("PRIORITY of the connection")),
            // PRIORITY is obsolete; unknown types are ignored (RFC 9113 5.5).
            _ => self.spend(1),
        }
    }

    fn headers(&mut self, header: Header, payload: Cow<'_, [u8]>) -> Received {
        let id = header.stream;
        if id == 0 || id.is_multiple_of(2) {
            return Err(protocol("HEADERS on a stream that is not a client's"));
        }
        let mut block = &payload[..];
        if header.has(flag::PADDED) {
            let (padding, rest) = block.split_first().ok_or(protocol("HEADERS without the length of its padding"))?;
            let length = rest.len().checked_sub((*padding).into()).ok_or(protocol("padding longer than its frame"))?;
            block = &rest[..length];
        }
        if header.has(flag::PRIORITY) {
            block = block.split_at_checked(5).ok_or(protocol("HEADERS without its priority"))?.1;
        }
        if header.has(flag::END_HEADERS) {
            return self.header_block(id, header.flags, block);
        }
        let mut bytes = Kept::default();
        bytes.add(block);
        self.block = Some(Block { stream: id, flags: header.flags, bytes, since: tokio::time::Instant::now() });
        Ok(())
    }

    fn continuation(&mut self, header: Header, payload: &[u8]) -> Received {
        let Some(block) = &mut self.block else { return Err(protocol("CONTINUATION of nothing")) };
        if block.bytes.len() + payload.len() > MAX_BLOCK {
            return Err(ConnectionError::new(Code::EnhanceYourCalm, "header block longer than any we take"));
        }
        block.bytes.add(payload);
        if !header.has(flag::END_HEADERS) {
            return Ok(());
        }
        match self.block.take() {
            Some(block) => self.header_block(block.stream, block.flags, &block.bytes),
            None => Ok(()),
        }
    }

    fn header_block(&mut self, id: u32, flags: u8, block: &[u8]) -> Received {
        // Large ones are paid for by their size.
        self.spend((block.len() >> 10) as u32)?;
        let mut head = Head::default();
        let fits = self.decoder.decode(block, MAX_LIST, |name, value| head.take(name, value)).map_err(|e| match e {
            InvalidBlock::Bomb => ConnectionError::new(Code::EnhanceYourCalm, "header list longer than any we take"),
            _ => ConnectionError::new(Code::Compression, "a header block cannot be decompressed"),
        })?;
        let end = flags & flag::END_STREAM != 0;
        match self.role {
            Role::Server => self.request(id, head, fits, end),
            Role::Client => self.response(id, head, fits, end),
        }
    }

    fn request(&mut self, id: u32, head: Head, fits: bool, end: bool) -> Received {
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.received_end {
                return Err(ConnectionError::new(Code::StreamClosed, "HEADERS after the end of their stream"));
            }
            return self.trailers(id, &head, fits, end);
        }
        if id <= self.last_peers {
            if head.method.is_some() {
                return Err(protocol("a request on a stream that is not higher than all before it"));
            }
            // Trailers of a stream that is over on our side; the peer may not have known.
            return self.spend(1);
        }
        self.last_peers = id;
        // Each opened stream is paid for until it has come to something.
        self.spend(4)?;
        if self.over().is_some() || self.going_away == super::state::GoingAway::Closed {
            self.send_reset(id, Code::RefusedStream);
            return Ok(());
        }
        if self.streams.len() >= self.settings.server_streams as usize {
            self.send_reset(id, Code::RefusedStream);
            return self.spend(4);
        }
        let (true, Some(method), true) = (head.is_request(), head.method, fits) else {
            let code = if fits { Code::Protocol } else { Code::EnhanceYourCalm };
            self.send_reset(id, code);
            return self.spend(8);
        };
        let stream = self.new_stream(id);
        stream.received_end = end;
        self.requests.push_back(Request {
            stream: id,
            method,
            authority: head.authority.unwrap_or_default(),
            headers: head.headers,
        });
        wake(&mut self.acceptor);
        Ok(())
    }

    /// Fields after the bytes: a tunnel has none, but their end is an end. Broken ones break their stream.
    fn trailers(&mut self, id: u32, head: &Head, fits: bool, end: bool) -> Received {
        if fits && end && !head.malformed && !head.pseudo {
            self.end_of(id);
            return self.spend(1);
        }
        if let Some(stream) = self.streams.get_mut(&id).filter(|s| s.broken.is_none()) {
            stream.broken = Some(Broken::Reset(Code::Protocol as u32));
            stream.wake();
            self.send_reset(id, Code::Protocol);
        }
        self.spend(8)
    }

    fn response(&mut self, id: u32, head: Head, fits: bool, end: bool) -> Received {
        if self.is_idle(id) {
            return Err(protocol("an answer to nothing"));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.broken.is_none()) else {
            return self.spend(1);
        };
        if stream.answered {
            return self.trailers(id, &head, fits, end);
        }
        match head.status {
            Some(status) if fits && head.is_response() => {
                if status.is_informational() && !end && status != StatusCode::SWITCHING_PROTOCOLS {
                    return self.spend(1);
                }
                stream.answered = true;
                stream.received_end = end;
                stream.response = Some((status, head.headers));
                stream.wake();
                Ok(())
            }
            _ => {
                stream.broken = Some(Broken::Reset(Code::Protocol as u32));
                stream.wake();
                self.send_reset(id, Code::Protocol);
                self.spend(8)
            }
        }
    }

    fn settings_frame(&mut self, header: Header, payload: &[u8]) -> Received {
        let size = ConnectionError::new(Code::FrameSize, "SETTINGS of a wrong length");
        if header.stream != 0 {
            return Err(protocol("SETTINGS of a stream"));
        }
        // Each of its entries is work: a new window is a new window of every stream.
        self.spend(1 + (payload.len() / 6) as u32)?;
        if header.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(size) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(size);
        }
        self.apply(payload)?;
        self.send(kind::SETTINGS, flag::ACK, 0, &[]);
        if !self.greeted {
            self.greeted = true;
            wake(&mut self.acceptor);
        }
        Ok(())
    }

    fn window_update(&mut self, id: u32, payload: &[u8]) -> Received {
        let bytes: [u8; 4] =
            payload.try_into().map_err(|_| ConnectionError::new(Code::FrameSize, "WINDOW_UPDATE of a wrong length"))?;
        let more = i64::from(u32::from_be_bytes(bytes) & 0x7fff_ffff);
        self.spend(1)?;
        if id == 0 {
            if more == 0 {
                return Err(protocol("WINDOW_UPDATE by nothing"));
            }
            self.send_window += more;
            self.most_send_window = self.most_send_window.max(self.send_window);
            if self.send_window > MAX_WINDOW {
                return Err(ConnectionError::new(Code::FlowControl, "the connection's window is too large"));
            }
            self.unblock();
            return Ok(());
        }
        if self.is_idle(id) {
            return Err(protocol("WINDOW_UPDATE of a stream that was never opened"));
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if more == 0 || stream.send_window + more > MAX_WINDOW {
            let code = if more == 0 { Code::Protocol } else { Code::FlowControl };
            stream.broken = Some(Broken::Reset(code as u32));
            stream.wake();
            self.send_reset(id, code);
            return self.spend(8);
        }
        stream.send_window += more;
        wake(&mut stream.sender);
        Ok(())
    }

    fn reset_frame(&mut self, id: u32, payload: &[u8]) -> Received {
        let bytes: [u8; 4] =
            payload.try_into().map_err(|_| ConnectionError::new(Code::FrameSize, "RST_STREAM of a wrong length"))?;
        if id == 0 || self.is_idle(id) {
            return Err(protocol("RST_STREAM of a stream that was never opened"));
        }
        let code = u32::from_be_bytes(bytes);
        let Some(stream) = self.streams.get_mut(&id) else { return self.spend(1) };
        if stream.broken.is_none() {
            stream.broken = Some(match code {
                code if code == Code::RefusedStream as u32 => Broken::Unprocessed,
                code => Broken::Reset(code),
            });
            stream.wake();
        }
        // A request that is taken back before it was answered made us work for nothing.
        let cost = if self.role == Role::Server && !self.streams.get(&id).is_some_and(|s| s.answered) { 8 } else { 1 };
        self.spend(cost)
    }

    fn ping_frame(&mut self, header: Header, payload: &[u8]) -> Received {
        if header.stream != 0 {
            return Err(protocol("PING of a stream"));
        }
        if payload.len() != 8 {
            return Err(ConnectionError::new(Code::FrameSize, "PING of a wrong length"));
        }
        self.spend(1)?;
        if !header.has(flag::ACK) {
            self.send(kind::PING, flag::ACK, 0, payload);
        } else if payload == PING_LEAVING {
            self.close_to_new_streams();
        }
        Ok(())
    }

    fn go_away_frame(&mut self, id: u32, payload: &[u8]) -> Received {
        if id != 0 {
            return Err(protocol("GOAWAY of a stream"));
        }
        let [a, b, c, d, ..]: [u8; 8] =
            *payload.first_chunk().ok_or(ConnectionError::new(Code::FrameSize, "GOAWAY of a wrong length"))?;
        let last = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        self.spend(1)?;
        self.peer_goes_away = true;
        if self.role == Role::Client {
            for (id, stream) in &mut self.streams {
                if *id > last && stream.broken.is_none() {
                    stream.broken = Some(Broken::Unprocessed);
                    stream.wake();
                }
            }
        }
        self.drive();
        Ok(())
    }
}
