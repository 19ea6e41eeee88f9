//! A connection without a transport: plaintext in, plaintext out. For tests and fuzzing of what a peer can say.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

use super::closing::Over;
use super::frame::Parser;
use super::input::{Batch, frames};
use super::state::{Shared, State};
use super::stream::Incoming;
use super::{ConnectionError, Role};
use crate::Settings;
use crate::tls::record::{Opener, Sealer, record_length};

/// One end.
pub(crate) struct Bare {
    pub(crate) shared: Shared,
    parser: Parser,
    max_frame: usize,
    opener: Opener,
}

fn secrets() -> (u64, ConnectionTrafficSecrets) {
    (0, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([3; 32]), iv: Iv::new([7; 12]) })
}

impl Bare {
    pub(crate) fn new(role: Role, settings: Settings) -> Self {
        let version = ProtocolVersion::TLSv1_3;
        let sealer = Sealer::new(secrets(), version).expect("a key");
        let opener = Opener::new(secrets(), version).expect("a key");
        let max_frame = settings.frame_size as usize;
        let state = State::new(role, Rc::new(settings), sealer, Instant::now()).expect("a greeting");
        Self { shared: Rc::new(RefCell::new(state)), parser: Parser::default(), max_frame, opener }
    }

    /// What the peer says.
    pub(crate) fn feed(&mut self, plaintext: &[u8]) -> Result<(), ConnectionError> {
        let mut batch = Batch::default();
        frames(&mut self.parser, self.max_frame, &self.shared, plaintext, &mut batch)?;
        batch.flush(&self.shared);
        Ok(())
    }

    /// What we have said since the last time.
    pub(crate) fn said(&mut self) -> Vec<u8> {
        let mut state = self.shared.borrow_mut();
        let mut sealed = state.outgoing.sealed().expect("sealed").to_vec();
        state.outgoing.sent(sealed.len());
        state.unblock();
        let mut said = Vec::new();
        let mut rest = &mut sealed[..];
        while let Some(length) = record_length(rest).expect("a record") {
            let (record, later) = rest.split_at_mut(length);
            let (_, range) = self.opener.open(record).expect("our own");
            said.extend_from_slice(&record[range]);
            rest = later;
        }
        said
    }

    /// The next request's stream, if there is one.
    pub(crate) fn asked(&mut self) -> Option<(u32, Method, String)> {
        let mut state = self.shared.borrow_mut();
        match state.poll_request(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(request)) => Some((request.stream, request.method, request.authority)),
            _ => None,
        }
    }

    /// Opens a stream.
    pub(crate) fn open(&mut self) -> Option<u32> {
        self.shared.borrow_mut().open(&Method::CONNECT, "10.0.0.1:80", &HeaderMap::new())
    }

    pub(crate) fn accept(&mut self, id: u32) {
        let _ = self.shared.borrow_mut().respond(id, StatusCode::OK, &HeaderMap::new(), false);
    }

    /// The answer to a stream that we opened, if it has come.
    pub(crate) fn answer(&mut self, id: u32) -> Option<StatusCode> {
        match self.shared.borrow_mut().poll_response(id, &Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((status, _))) => Some(status),
            _ => None,
        }
    }

    /// Takes what has come to a stream; `None` when nothing has.
    pub(crate) fn take(&mut self, id: u32) -> Option<Incoming> {
        let mut state = self.shared.borrow_mut();
        match state.poll_incoming(id, &Context::from_waker(Waker::noop())) {
            Poll::Ready(incoming) => {
                if let Incoming::Bytes(bytes) = &incoming {
                    state.took(id, bytes.len());
                }
                Some(incoming)
            }
            Poll::Pending => None,
        }
    }

    /// Sends what the peer lets us send of `data`; returns how much.
    pub(crate) fn send(&mut self, id: u32, data: &[u8]) -> usize {
        let mut state = self.shared.borrow_mut();
        match state.poll_room(id, &Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(room)) => state.send_data(id, data, room),
            _ => 0,
        }
    }

    pub(crate) fn finish(&mut self, id: u32) {
        let _ = self.shared.borrow_mut().finish(id);
    }

    pub(crate) fn release(&mut self, id: u32) {
        self.shared.borrow_mut().release(id);
    }

    pub(crate) fn end(&mut self, error: ConnectionError) {
        self.shared.borrow_mut().end(Over::Protocol(error));
    }

    /// What the beginnings of a frame and of a header block take up.
    pub(crate) fn unfinished(&self) -> usize {
        let state = self.shared.borrow();
        self.parser.held() + state.unfinished.held()
    }

    /// What of the connection's window applications have not taken, and whether streams have shares of it.
    pub(crate) fn untaken(&self) -> (i64, bool) {
        let state = self.shared.borrow();
        (state.untaken(), state.receive_window.is_shared())
    }

    /// Bytes that wait to be sent, streams, and bytes that applications have not taken with what they take up.
    pub(crate) fn held(&self) -> (usize, usize, usize) {
        let state = self.shared.borrow();
        let held = state.streams.values().map(|stream| stream.memory()).sum();
        (state.outgoing.waiting(), state.open_streams(), held)
    }
}
