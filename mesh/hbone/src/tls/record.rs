//! The record layer (RFC 8446 section 5, RFC 5246 section 6.2 with RFC 5288), in place.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::cipher::Iv;
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

/// Bytes before the payload of a record.
pub(crate) const HEADER: usize = 5;
/// Most plaintext of one record.
pub(crate) const MAX_PLAINTEXT: usize = 1 << 14;
/// Most bytes after the header of a record that a peer may send (RFC 8446 5.2; RFC 5246 allows 2,048 of expansion).
const MAX_SEALED: usize = MAX_PLAINTEXT + 2048;
/// Largest record.
pub(crate) const MAX_RECORD: usize = HEADER + MAX_SEALED;
const TAG: usize = 16;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Alert,
    Handshake,
    Data,
}

impl Content {
    fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }
}

/// Why a record cannot be opened or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("TLS record is longer than the protocol allows")]
    TooLong,
    #[error("TLS record cannot be decrypted")]
    Decrypt,
    #[error("TLS record cannot be encrypted")]
    Encrypt,
    #[error("TLS record of an unexpected type")]
    Unexpected,
    #[error("TLS keys cannot be used: {0}")]
    Keys(&'static str),
}

/// The shape of records, which TLS 1.3 changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// The type is inside, after the plaintext; the nonce is implied.
    Tls13,
    /// The type is in the header; eight bytes of the nonce go before the payload.
    Tls12,
}

/// One direction's key, and how many records it has seen.
struct Half {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    shape: Shape,
}

impl Half {
    fn new(
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        version: ProtocolVersion,
    ) -> Result<Self, RecordError> {
        let (algorithm, key, iv): (_, _, Iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(RecordError::Keys("the cipher is not AES-GCM")),
        };
        let shape = match version {
            ProtocolVersion::TLSv1_3 => Shape::Tls13,
            ProtocolVersion::TLSv1_2 => Shape::Tls12,
            _ => return Err(RecordError::Keys("the version is neither TLS 1.2 nor 1.3")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Keys("wrong length"))?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Keys("wrong length of the nonce"))?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence, shape })
    }

    /// The number of the next record and its nonce: each is used once.
    fn next(&mut self) -> (u64, [u8; 12]) {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut nonce = self.iv;
        for (byte, counted) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= counted;
        }
        (sequence, nonce)
    }
}

/// What TLS 1.2 authenticates besides the payload.
fn additional_12(sequence: u64, content: u8, length: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&sequence.to_be_bytes());
    data[8] = content;
    data[9..11].copy_from_slice(&[3, 3]);
    data[11..].copy_from_slice(&(length as u16).to_be_bytes());
    data
}

/// Seals what we send.
pub(crate) struct Sealer(Half);

impl Sealer {
    pub(crate) fn new(secrets: (u64, ConnectionTrafficSecrets), version: ProtocolVersion) -> Result<Self, RecordError> {
        Half::new(secrets, version).map(Self)
    }

    /// Bytes to leave free before the plaintext of a record.
    pub(crate) fn before(&self) -> usize {
        match self.0.shape {
            Shape::Tls13 => HEADER,
            Shape::Tls12 => HEADER + 8,
        }
    }

    /// Bytes to leave free after the plaintext of a record.
    pub(crate) fn after(&self) -> usize {
        match self.0.shape {
            Shape::Tls13 => 1 + TAG,
            Shape::Tls12 => TAG,
        }
    }

    /// How many records the key has sealed.
    pub(crate) fn records(&self) -> u64 {
        self.0.sequence
    }

    /// Whether this version of TLS knows how to change keys.
    pub(crate) fn can_change(&self) -> bool {
        self.0.shape == Shape::Tls13
    }

    /// Makes `record` a record. Its plaintext lies between [`Sealer::before`] and [`Sealer::after`] bytes, at most
    /// [`MAX_PLAINTEXT`] of it.
    pub(crate) fn seal(&mut self, record: &mut [u8], content: Content) -> Result<(), RecordError> {
        let (before, after) = (self.before(), self.after());
        let plaintext = record.len().checked_sub(before + after).ok_or(RecordError::TooLong)?;
        if plaintext > MAX_PLAINTEXT {
            return Err(RecordError::TooLong);
        }
        let length = ((record.len() - HEADER) as u16).to_be_bytes();
        let (sequence, nonce) = self.0.next();
        let outer = match self.0.shape {
            Shape::Tls13 => Content::Data.code(),
            Shape::Tls12 => content.code(),
        };
        let header = [outer, 3, 3, length[0], length[1]];
        record[..HEADER].copy_from_slice(&header);
        let tag_at = record.len() - TAG;
        let (body, tag_place) = record.split_at_mut(tag_at);
        let sealed = match self.0.shape {
            Shape::Tls13 => {
                body[before + plaintext] = content.code();
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.0.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut body[before..])
            }
            Shape::Tls12 => {
                body[HEADER..before].copy_from_slice(&nonce[4..]);
                let additional = Aad::from(additional_12(sequence, outer, plaintext));
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.0.key.seal_in_place_separate_tag(nonce, additional, &mut body[before..])
            }
        };
        tag_place.copy_from_slice(sealed.map_err(|_| RecordError::Encrypt)?.as_ref());
        Ok(())
    }
}

/// Opens what we receive.
pub(crate) struct Opener(Half);

/// The length of the record that `input` begins with, once its header is there; it may not be there whole.
pub(crate) fn record_length(input: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
    let sealed = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if sealed > MAX_SEALED { Err(RecordError::TooLong) } else { Ok(Some(HEADER + sealed)) }
}

impl Opener {
    pub(crate) fn new(secrets: (u64, ConnectionTrafficSecrets), version: ProtocolVersion) -> Result<Self, RecordError> {
        Half::new(secrets, version).map(Self)
    }

    /// Opens one whole record in place. Returns what it holds and where in `record` its plaintext lies.
    pub(crate) fn open(&mut self, record: &mut [u8]) -> Result<(Content, std::ops::Range<usize>), RecordError> {
        let header = *record.first_chunk::<HEADER>().ok_or(RecordError::Unexpected)?;
        let content = |code| match code {
            21 => Ok(Content::Alert),
            22 => Ok(Content::Handshake),
            23 => Ok(Content::Data),
            _ => Err(RecordError::Unexpected),
        };
        let (sequence, nonce) = self.0.next();
        match self.0.shape {
            Shape::Tls13 => {
                if header[0] != Content::Data.code() {
                    return Err(RecordError::Unexpected);
                }
                let nonce = Nonce::assume_unique_for_key(nonce);
                let opened = self.0.key.open_in_place(nonce, Aad::from(header), &mut record[HEADER..]);
                let inner = opened.map_err(|_| RecordError::Decrypt)?;
                // The type is the last byte that is not padding.
                let end = inner.iter().rposition(|b| *b != 0).ok_or(RecordError::Unexpected)?;
                if end > MAX_PLAINTEXT {
                    return Err(RecordError::TooLong);
                }
                Ok((content(inner[end])?, HEADER..HEADER + end))
            }
            Shape::Tls12 => {
                let begin = HEADER + 8;
                let plaintext = record.len().checked_sub(begin + TAG).ok_or(RecordError::Decrypt)?;
                let mut explicit = [0; 12];
                explicit[..4].copy_from_slice(&self.0.iv[..4]);
                explicit[4..].copy_from_slice(&record[HEADER..begin]);
                let additional = Aad::from(additional_12(sequence, header[0], plaintext));
                let nonce = Nonce::assume_unique_for_key(explicit);
                let opened = self.0.key.open_in_place(nonce, additional, &mut record[begin..]);
                opened.map_err(|_| RecordError::Decrypt)?;
                if plaintext > MAX_PLAINTEXT {
                    return Err(RecordError::TooLong);
                }
                Ok((content(header[0])?, begin..begin + plaintext))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::AeadKey;

    use super::*;

    fn secrets() -> (u64, ConnectionTrafficSecrets) {
        (7, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([3; 32]), iv: Iv::new([9; 12]) })
    }

    fn pair(version: ProtocolVersion) -> (Sealer, Opener) {
        (Sealer::new(secrets(), version).unwrap(), Opener::new(secrets(), version).unwrap())
    }

    fn sealed(sealer: &mut Sealer, text: &[u8], content: Content) -> Vec<u8> {
        let mut record = vec![0; sealer.before()];
        record.extend_from_slice(text);
        record.resize(record.len() + sealer.after(), 0);
        sealer.seal(&mut record, content).unwrap();
        record
    }

    #[test]
    fn records_open_in_their_order_and_no_other() {
        for version in [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2] {
            let (mut sealer, mut opener) = pair(version);
            for (text, content) in [(&b"hello"[..], Content::Data), (b"", Content::Data), (b"\x01\x00", Content::Alert)]
            {
                let mut record = sealed(&mut sealer, text, content);
                assert_eq!(record_length(&record), Ok(Some(record.len())));
                let (opened, range) = opener.open(&mut record).unwrap();
                assert_eq!((opened, &record[range]), (content, text));
            }
            // Sent twice, it is not taken twice.
            let mut record = sealed(&mut sealer, b"once", Content::Data);
            let mut again = record.clone();
            opener.open(&mut record).unwrap();
            let replayed = opener.open(&mut again);
            // TLS 1.2 tells the nonce, but numbers what it authenticates.
            assert_eq!(replayed, Err(RecordError::Decrypt), "{version:?}");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        for version in [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2] {
            let (mut sealer, _) = pair(version);
            let record = sealed(&mut sealer, b"hello", Content::Data);
            for place in 0..record.len() {
                let (_, mut opener) = pair(version);
                let mut changed = record.clone();
                changed[place] ^= 1;
                // The version in the header is not authenticated by TLS 1.2, nor looked at.
                if version == ProtocolVersion::TLSv1_2 && (1..HEADER).contains(&place) {
                    continue;
                }
                assert!(opener.open(&mut changed).is_err(), "{version:?}, byte {place}");
            }
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let (mut sealer, mut opener) = pair(ProtocolVersion::TLSv1_3);
        let mut record = sealed(&mut sealer, &[1; MAX_PLAINTEXT], Content::Data);
        assert_eq!(opener.open(&mut record).unwrap().1.len(), MAX_PLAINTEXT);
        let mut longer = vec![0; HEADER + MAX_PLAINTEXT + 1 + sealer.after()];
        assert_eq!(sealer.seal(&mut longer, Content::Data), Err(RecordError::TooLong));
        assert_eq!(record_length(&[23, 3, 3, 0xff, 0xff]), Err(RecordError::TooLong));
        assert_eq!(record_length(&[23, 3, 3, 0]), Ok(None));
    }
}
