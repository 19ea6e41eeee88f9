//! What the peer says.

use std::borrow::Cow;
use std::time::Instant;

use http::StatusCode;

use super::closing::PING_LEAVING;
use super::frame::{Header, flag, kind};
use super::head::Head;
use super::hpack::InvalidBlock;
use super::requests::Request;
use super::settings::{self, MAX_LIST};
use super::state::{MAX_UNREAD, State};
use super::{Code, ConnectionError, Role};
use crate::broken::Broken;

type Received = Result<(), ConnectionError>;

const fn protocol(what: &'static str) -> ConnectionError {
    ConnectionError::new(Code::Protocol, what)
}

impl State {
    /// Takes the client's preface off `input`.
    pub(super) fn preface(&mut self, input: &mut &[u8]) -> Received {
        self.greeting.preface(self.role, input)
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
        if id == 0 || self.ids.is_idle(id) {
            return Err(protocol("DATA on a stream that was never opened"));
        }
        if payload == 0 {
            // Empty, or some of its padding.
            self.spend(u32::from(whole))?;
        }
        let flow = ConnectionError::new(Code::FlowControl, "the peer sends more than its window");
        if !self.receive_window.receive(counted) {
            return Err(flow);
        }
        let padding = (counted - payload) as u32;
        let Some(stream) = self.streams.get_mut(&id) else {
            self.give_back(counted as u32);
            return Ok(false);
        };
        if stream.has_received_end() {
            return Err(ConnectionError::new(Code::StreamClosed, "DATA after the end of its stream"));
        }
        if !stream.receive(counted) {
            return Err(flow);
        }
        if self.role == Role::Client && !stream.is_answered() && stream.broken().is_none() {
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
            stream.end_came();
        }
    }

    /// Whether a frame may come now: SETTINGS come first, and a header block is not interrupted.
    fn in_order(&self, kind: u8, id: u32) -> Received {
        self.unfinished.expects(kind, id)?;
        match self.greeting.is_complete() || kind == kind::SETTINGS {
            true => Ok(()),
            false => Err(protocol("the first frame is not SETTINGS")),
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
        self.unfinished.begin(id, header.flags, block);
        Ok(())
    }

    fn continuation(&mut self, header: Header, payload: &[u8]) -> Received {
        match self.unfinished.continued(payload, header.has(flag::END_HEADERS))? {
            Some(block) => self.header_block(block.stream, block.flags, &block.fragments),
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
            if stream.has_received_end() {
                return Err(ConnectionError::new(Code::StreamClosed, "HEADERS after the end of their stream"));
            }
            return self.trailers(id, &head, fits, end);
        }
        if !self.ids.is_idle(id) {
            if head.method.is_some() {
                return Err(protocol("a request on a stream that is not higher than all before it"));
            }
            // Trailers of a stream that is over on our side; the peer may not have known.
            return self.spend(1);
        }
        self.ids.opened_by_peer(id);
        // Each opened stream is paid for until it has come to something.
        self.spend(4)?;
        if !self.closing.takes_peers_streams() {
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
        self.new_stream(id, end);
        self.requests.push(Request {
            stream: id,
            method,
            authority: head.authority.unwrap_or_default(),
            headers: head.headers,
        });
        Ok(())
    }

    /// Fields after the bytes: a tunnel has none, but their end is an end. Broken ones break their stream.
    fn trailers(&mut self, id: u32, head: &Head, fits: bool, end: bool) -> Received {
        if fits && end && !head.malformed && !head.pseudo {
            self.end_of(id);
            return self.spend(1);
        }
        self.break_stream(id, Code::Protocol)
    }

    fn response(&mut self, id: u32, head: Head, fits: bool, end: bool) -> Received {
        if self.ids.is_idle(id) {
            return Err(protocol("an answer to nothing"));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.broken().is_none()) else {
            return self.spend(1);
        };
        if stream.is_answered() {
            return self.trailers(id, &head, fits, end);
        }
        match head.status {
            Some(status) if fits && head.is_response() => {
                if status.is_informational() && !end && status != StatusCode::SWITCHING_PROTOCOLS {
                    return self.spend(1);
                }
                stream.answer_came(status, head.headers, end);
                Ok(())
            }
            _ => self.break_stream(id, Code::Protocol),
        }
    }

    /// The peer has broken a rule that concerns one stream: resets it, unless it is broken already.
    fn break_stream(&mut self, id: u32, code: Code) -> Received {
        if let Some(stream) = self.streams.get_mut(&id).filter(|s| s.broken().is_none()) {
            stream.break_off(Broken::Reset(code as u32));
            self.send_reset(id, code);
        }
        self.spend(8)
    }

    fn settings_frame(&mut self, header: Header, payload: &[u8]) -> Received {
        if header.stream != 0 {
            return Err(protocol("SETTINGS of a stream"));
        }
        // Each of its entries is work: a new window is a new window of every stream.
        self.spend(1 + (payload.len() / 6) as u32)?;
        if header.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(settings::WRONG_LENGTH) };
        }
        settings::whole(payload)?;
        let streams = &mut self.streams;
        self.peer.apply(payload, self.role, |change| {
            match streams.values_mut().all(|stream| stream.grow_send_window(change)) {
                true => Ok(()),
                false => Err(ConnectionError::new(Code::FlowControl, "window too large")),
            }
        })?;
        self.send(kind::SETTINGS, flag::ACK, 0, &[]);
        if !self.greeting.is_complete() {
            self.greeting.complete();
            self.requests.wake();
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
            if !self.send_window.grow(more) {
                return Err(ConnectionError::new(Code::FlowControl, "the connection's window is too large"));
            }
            self.unblock();
            return Ok(());
        }
        if self.ids.is_idle(id) {
            return Err(protocol("WINDOW_UPDATE of a stream that was never opened"));
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if more > 0 && stream.grow_send_window(more) {
            return Ok(());
        }
        self.break_stream(id, if more == 0 { Code::Protocol } else { Code::FlowControl })
    }

    fn reset_frame(&mut self, id: u32, payload: &[u8]) -> Received {
        let bytes: [u8; 4] =
            payload.try_into().map_err(|_| ConnectionError::new(Code::FrameSize, "RST_STREAM of a wrong length"))?;
        if id == 0 || self.ids.is_idle(id) {
            return Err(protocol("RST_STREAM of a stream that was never opened"));
        }
        let code = u32::from_be_bytes(bytes);
        let Some(stream) = self.streams.get_mut(&id) else { return self.spend(1) };
        stream.break_off(match code {
            code if code == Code::RefusedStream as u32 => Broken::Unprocessed,
            code => Broken::Reset(code),
        });
        // A request that is taken back before it was answered made us work for nothing.
        let taken_back = self.role == Role::Server && !stream.is_answered();
        self.spend(if taken_back { 8 } else { 1 })
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
        self.closing.peer_goes_away();
        if self.role == Role::Client {
            for (id, stream) in &mut self.streams {
                if *id > last {
                    stream.break_off(Broken::Unprocessed);
                }
            }
        }
        self.drive();
        Ok(())
    }
}
