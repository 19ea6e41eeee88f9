//! Whatever is appended, in whatever order, and however the transport takes it: the peer gets these bytes.

use mesh_testkit::random::Random;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

use super::*;
use crate::tls::record::{Opener, record_length};

fn secrets(sequence: u64) -> (u64, ConnectionTrafficSecrets) {
    (sequence, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([3; 32]), iv: Iv::new([7; 12]) })
}

fn outgoing(version: ProtocolVersion) -> (Outgoing, Opener) {
    (Outgoing::new(Sealer::new(secrets(0), version).unwrap()), Opener::new(secrets(0), version).unwrap())
}

/// What the peer reads of `sealed`: the contents of its records, data joined.
fn open(opener: &mut Opener, mut sealed: &mut [u8]) -> Vec<(Content, Vec<u8>)> {
    let mut contents: Vec<(Content, Vec<u8>)> = Vec::new();
    while let Some(length) = record_length(sealed).unwrap() {
        let (record, rest) = sealed.split_at_mut(length);
        let (content, range) = opener.open(record).unwrap();
        match contents.last_mut() {
            Some((Content::Data, data)) if content == Content::Data => data.extend_from_slice(&record[range]),
            _ => contents.push((content, record[range].to_vec())),
        }
        sealed = rest;
    }
    assert!(sealed.is_empty(), "records are whole");
    contents
}

/// Frames of DATA, as `fill` cuts them when `bytes` come.
fn frames_of(data: &[u8], mut cut: impl FnMut() -> usize) -> Vec<u8> {
    let (mut frames, mut rest) = (Vec::new(), data);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(cut().min(rest.len()));
        frames.extend(Header { length: now.len(), kind: kind::DATA, flags: 0, stream: 5 }.bytes());
        frames.extend_from_slice(now);
        rest = later;
    }
    frames
}

/// The DATA of stream 5 in `plaintext`, and everything else.
fn apart(plaintext: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut others) = (Vec::new(), Vec::new());
    let (mut parser, mut input) = (frame::Parser::default(), plaintext);
    while let Some(piece) = parser.next(&mut input, 1 << 20).unwrap() {
        match piece {
            frame::Piece::Data { stream, payload, .. } => {
                assert_eq!(stream, 5);
                data.extend_from_slice(payload);
            }
            frame::Piece::Frame { header, payload } => {
                others.extend(header.bytes());
                others.extend_from_slice(&payload);
            }
        }
    }
    (data, others)
}

#[test]
fn the_peer_gets_what_was_appended() {
    let mut random = Random(2026);
    for version in [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2] {
        for _ in 0..60 {
            let (mut outgoing, mut opener) = outgoing(version);
            let (mut data, mut others, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..40 {
                match random.next() % 5 {
                    0 => {
                        let payload: Vec<u8> = (0..random.next() % 40).map(|_| random.next() as u8).collect();
                        outgoing.frame(kind::PING, 0, 0, &payload).unwrap();
                        others.extend(Header { length: payload.len(), kind: kind::PING, flags: 0, stream: 0 }.bytes());
                        others.extend(payload);
                    }
                    1 => {
                        let piece: Vec<u8> = (0..random.next() % 20_000).map(|n| n as u8).collect();
                        let taken = outgoing.data(5, &piece, 9_000).unwrap();
                        assert_eq!(taken, piece.len().min(9_000));
                        data.extend_from_slice(&piece[..taken]);
                    }
                    2 | 3 if outgoing.is_ready() => {
                        let most = [1, 100, 1_500, 16_375, 20_000, 100_000, 240 << 10][random.next() as usize % 7];
                        let largest = [16_384, 5_000, 1 << 20][random.next() as usize % 3];
                        // Nothing, some of it, or all.
                        let comes = random.next() as usize % 4;
                        let read = outgoing.fill(5, most, largest, |slices| {
                            let room: usize = slices.iter().map(|slice| slice.len()).sum();
                            assert!(room > 0 && room <= most, "{room} of {most}");
                            if comes == 0 {
                                return Err(io::ErrorKind::WouldBlock.into());
                            }
                            let mut left = room * comes / 3;
                            let read = left;
                            for slice in slices {
                                let now = left.min(slice.len());
                                slice[..now].iter_mut().for_each(|byte| *byte = random.next() as u8);
                                data.extend_from_slice(&slice[..now]);
                                left -= now;
                            }
                            Ok(read)
                        });
                        assert_eq!(read.is_err(), comes == 0);
                    }
                    // The transport takes some of it, or all.
                    _ => {
                        let waits = outgoing.sealed().unwrap().len();
                        assert_eq!(waits, outgoing.waiting());
                        let takes = [0, 1, waits / 2, waits, waits][random.next() as usize % 5].min(waits);
                        sealed.extend_from_slice(&outgoing.sealed().unwrap()[..takes]);
                        if takes > 0 {
                            outgoing.sent(takes);
                        }
                        if takes < waits {
                            outgoing.blocked();
                        }
                        assert_eq!(outgoing.waiting(), waits - takes);
                    }
                }
            }
            sealed.extend_from_slice(outgoing.sealed().unwrap());
            let plaintext: Vec<u8> = open(&mut opener, &mut sealed).into_iter().flat_map(|(_, bytes)| bytes).collect();
            let (came, said) = apart(&plaintext);
            assert!(came == data, "{} bytes of {} came, or others", came.len(), data.len());
            assert_eq!(said, others);
        }
    }
}

/// A read fills the record that is open, and as many after it as there are bytes for.
#[test]
fn a_read_goes_where_it_leaves() {
    let (mut outgoing, mut opener) = outgoing(ProtocolVersion::TLSv1_3);
    outgoing.frame(kind::PING, 0, 0, &[0; 8]).unwrap();
    let room = MAX_PLAINTEXT - 17 - frame::HEADER;
    let mut lengths = Vec::new();
    let data: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    outgoing
        .fill(5, 40_000, 1 << 20, |slices| {
            lengths = slices.iter().map(|slice| slice.len()).collect();
            let mut rest = &data[..];
            for slice in slices {
                let (now, later) = rest.split_at(slice.len());
                slice.copy_from_slice(now);
                rest = later;
            }
            Ok(40_000)
        })
        .unwrap();
    let whole = MAX_PLAINTEXT - frame::HEADER;
    assert_eq!(lengths, [room, whole, 40_000 - room - whole]);
    let mut sealed = outgoing.sealed().unwrap().to_vec();
    let mut cuts = lengths.iter().copied();
    let mut expected = Header { length: 8, kind: kind::PING, flags: 0, stream: 0 }.bytes().to_vec();
    expected.extend([0; 8]);
    expected.extend(frames_of(&data, || cuts.next().unwrap()));
    assert_eq!(open(&mut opener, &mut sealed), [(Content::Data, expected)]);
    // With little room in the open record a new one is begun.
    let (mut outgoing, _) = self::outgoing(ProtocolVersion::TLSv1_3);
    outgoing.bytes(&vec![0; MAX_PLAINTEXT - WORTHWHILE]).unwrap();
    let mut first = 0;
    let nothing_came = |slices: &mut [IoSliceMut<'_>]| {
        first = slices[0].len();
        Ok(0)
    };
    outgoing.fill(5, 10_000, 1 << 20, nothing_came).unwrap();
    assert_eq!(first, 10_000);
}

#[test]
fn what_is_not_data_is_a_record_of_its_own() {
    let (mut outgoing, mut opener) = outgoing(ProtocolVersion::TLSv1_3);
    outgoing.bytes(b"before").unwrap();
    outgoing.record(Content::Handshake, &[24, 0, 0, 1, 0]).unwrap();
    outgoing.change_key(Sealer::new(secrets(100), ProtocolVersion::TLSv1_3).unwrap());
    outgoing.bytes(b"after").unwrap();
    let mut sealed = outgoing.sealed().unwrap().to_vec();
    let length = |sealed: &[u8]| record_length(sealed).unwrap().unwrap();
    let first = length(&sealed);
    let both = first + length(&sealed[first..]);
    let before = open(&mut opener, &mut sealed[..both]);
    assert_eq!(before, [(Content::Data, b"before".to_vec()), (Content::Handshake, vec![24, 0, 0, 1, 0])]);
    let mut next = Opener::new(secrets(100), ProtocolVersion::TLSv1_3).unwrap();
    assert_eq!(open(&mut next, &mut sealed[both..]), [(Content::Data, b"after".to_vec())]);
}

#[test]
fn a_key_seals_as_many_records_as_it_may() {
    for (version, records, expected) in [
        (ProtocolVersion::TLSv1_3, 999, KeyUsage::WithinLimit),
        (ProtocolVersion::TLSv1_3, 1_000, KeyUsage::Change),
        (ProtocolVersion::TLSv1_2, 499, KeyUsage::WithinLimit),
        (ProtocolVersion::TLSv1_2, 500, KeyUsage::Leave),
        (ProtocolVersion::TLSv1_2, 999, KeyUsage::Leave),
        (ProtocolVersion::TLSv1_2, 1_000, KeyUsage::End),
    ] {
        let outgoing = Outgoing::new(Sealer::new(secrets(records), version).unwrap());
        assert_eq!(outgoing.key_usage(1_000), expected, "{version:?}, {records}");
    }
}

/// A connection at rest holds no buffer, one that waits a little no whole one, and a thread keeps few.
#[test]
fn buffers_are_the_threads() {
    let spare = || BUFFERS.with_borrow(Vec::len);
    let ends = || (0..SPARE + 3).map(|_| outgoing(ProtocolVersion::TLSv1_3).0);
    let mut many: Vec<Outgoing> = ends().collect();
    for one in &mut many {
        one.bytes(b"x").unwrap();
        assert_eq!(one.storage.len(), STORAGE);
    }
    for one in &mut many {
        let sealed = one.sealed().unwrap().len();
        one.sent(sealed - 1);
        one.blocked();
        assert_eq!((one.waiting(), one.storage.len()), (1, 1), "a little");
        one.sent(1);
        assert_eq!(one.storage.capacity(), 0);
    }
    assert_eq!(spare(), SPARE, "no more than these");
    let mut one = outgoing(ProtocolVersion::TLSv1_3).0;
    one.bytes(&vec![0; KEPT + 1_000]).unwrap();
    one.sealed().unwrap();
    one.blocked();
    assert_eq!((one.storage.len(), spare()), (STORAGE, SPARE - 1), "much stays where it is");
    drop(one);
    assert_eq!(spare(), SPARE);
}
