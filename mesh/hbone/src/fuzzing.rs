//! Doors that the fuzz targets knock on, each with what must hold. Not for anybody else.

use crate::Settings;
use crate::http2::Role;
use crate::http2::bare::Bare;
use crate::http2::frame::{Parser, Piece};
use crate::http2::hpack::Decoder;
use crate::http2::kept::SLACK;
use crate::http2::stream::Incoming;

/// Header blocks of one connection, cut off `bytes` by their first byte: whatever they say, no more is handed over
/// than was offered to take.
pub fn hpack(mut bytes: &[u8]) {
    const BUDGET: usize = 4096;
    let mut decoder = Decoder::default();
    while let Some((length, rest)) = bytes.split_first() {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(*length) * 16));
        bytes = rest;
        let mut handed = 0;
        let result = decoder.decode(block, BUDGET, |name, value| handed += name.len() + value.len() + 32);
        assert!(handed <= BUDGET);
        if result.is_err() {
            return;
        }
    }
}

/// Bytes cut into frames: the same frames however they arrive.
pub fn frames(bytes: &[u8]) {
    let Some((portion, bytes)) = bytes.split_first() else { return };
    let cut = |portion: usize| {
        let (mut parser, mut seen) = (Parser::default(), Vec::new());
        for mut input in bytes.chunks(portion) {
            loop {
                match parser.next(&mut input, 1 << 14) {
                    Ok(Some(Piece::Data { stream, payload, counted, whole, end })) => {
                        assert!(payload.len() <= counted);
                        // Pieces differ with the portions; their sum does not.
                        seen.push((u32::MAX, stream, payload.to_vec(), counted, whole, end));
                        join(&mut seen);
                    }
                    Ok(Some(Piece::Frame { header, payload })) => {
                        let kind = u32::from(header.kind) << 8 | u32::from(header.flags);
                        seen.push((kind, header.stream, payload.into_owned(), header.length, true, false));
                    }
                    Ok(None) => {
                        assert!(input.is_empty(), "what is not cut is kept");
                        break;
                    }
                    Err(error) => return (seen, Some(error.code)),
                }
            }
        }
        (seen, None)
    };
    let (whole, error) = cut(bytes.len().max(1));
    let (pieces, again) = cut(usize::from(*portion).max(1));
    assert_eq!(error, again);
    // Where it is broken, pieces of the last frame may have been handed over already.
    if error.is_none() {
        assert_eq!(whole, pieces);
    }
}

type Seen = (u32, u32, Vec<u8>, usize, bool, bool);

fn join(seen: &mut Vec<Seen>) {
    let [.., before, last] = &mut seen[..] else { return };
    if before.0 == u32::MAX && !before.4 {
        before.2.append(&mut last.2);
        before.3 += last.3;
        (before.4, before.5) = (last.4, last.5);
        seen.pop();
    }
}

/// A whole connection: what a peer says, between it what its applications do, and what it may come to hold.
pub fn connection(bytes: &[u8]) {
    let Some((first, mut bytes)) = bytes.split_first() else { return };
    let settings = Settings {
        stream_window: 65_535,
        connection_window: 1 << 17,
        frame_size: 1 << 14,
        server_streams: 8,
        client_streams: 8,
        ..Settings::default()
    };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut end = Bare::new(role, settings);
    let greeting: &[u8] = match role {
        Role::Server => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        Role::Client => b"\0\0\0\x04\0\0\0\0\0",
    };
    end.feed(greeting).expect("a greeting");
    let (mut streams, mut fed, mut broke) = (Vec::new(), greeting.len(), false);
    while let Some((step, rest)) = bytes.split_first() {
        let (portion, rest) = rest.split_at(rest.len().min(1 + usize::from(step >> 3) * 4));
        bytes = rest;
        fed += portion.len();
        if let Err(error) = end.feed(portion) {
            end.end(error);
            broke = true;
            break;
        }
        if role == Role::Server {
            while let Some((id, ..)) = end.asked() {
                streams.push(id);
                end.accept(id);
            }
        }
        let chosen = streams.get(usize::from(*step) % streams.len().max(1)).copied();
        match (step & 7, chosen) {
            (0, Some(id)) => end.release(id),
            (1, Some(id)) => while let Some(Incoming::Bytes(_)) = end.take(id) {},
            (2, Some(id)) => drop(end.send(id, &[0; 20_000])),
            (3, Some(id)) => end.finish(id),
            (4, Some(id)) => drop(end.answer(id)),
            (5, _) if role == Role::Client => streams.extend(end.open()),
            (6, _) => drop(end.said()),
            _ => {}
        }
        let (waiting, open, held) = end.held();
        assert!(waiting < 2 << 20, "{waiting} bytes to send");
        assert!(open <= 8 || role == Role::Client, "{open} streams");
        assert!(held < 1 << 20, "{held} bytes for applications that take 128 KiB");
        let unfinished = end.unfinished();
        assert!(unfinished <= (fed + 2 * SLACK).min(132 << 10), "{unfinished} bytes of what has not ended, of {fed}");
        let (untaken, shares) = end.untaken();
        assert!((0..=1 << 17).contains(&untaken), "{untaken} of the connection's window");
        assert!(shares || untaken <= 1 << 16, "{untaken} bytes, and windows are not shares");
    }
    end.said();
    for id in streams {
        end.release(id);
    }
    assert_eq!(end.held().1, 0, "nothing is left of what everybody let go of");
    assert!(broke || end.untaken() == (0, false), "the window is whole again: {:?}", end.untaken());
}
