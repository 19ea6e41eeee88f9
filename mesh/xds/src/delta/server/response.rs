//! A response, and its bytes on the wire: cut out of what all subscribers share, piece by piece, as the connection takes
//! them. A whole mesh for each of many subscribers is then held once.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_model::resource::Kind;
use mesh_proto::discovery::DeltaDiscoveryResponse;
use prost::{Message, length_delimiter_len};

use crate::published::Entry;

/// About how many bytes there are in a piece.
const PIECE: usize = 64 * 1024;
/// What comes before the length of an element of `DeltaDiscoveryResponse.resources`: field 2, a message.
const RESOURCE: u8 = 2 << 3 | 2;
/// The same for `Resource.aliases`: field 4, a text.
const ALIAS: u8 = 4 << 3 | 2;

/// What a subscriber is told.
#[derive(Debug)]
pub struct Response {
    /// Of which kind.
    pub kind: Kind,
    /// The state that it tells of, for people.
    pub generation: u64,
    /// What the answer to it names.
    pub nonce: String,
    /// New or different.
    pub changed: Vec<Arc<Entry>>,
    /// Gone, or never there.
    pub removed: Vec<String>,
    /// Whether the other names of resources are said.
    pub aliases: bool,
}

impl Response {
    /// Its bytes, with gRPC's prefix (a byte that says "not compressed", and the length in four).
    ///
    /// # Errors
    /// When it is longer than gRPC can say: 4 GiB. Gives its length.
    pub fn into_chunks(self) -> Result<Chunks, u64> {
        let head = DeltaDiscoveryResponse {
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce,
            system_version_info: self.generation.to_string(),
            removed_resources: self.removed,
            ..DeltaDiscoveryResponse::default()
        };
        let resources: u64 = self.changed.iter().map(|entry| resource_len(entry, self.aliases) as u64).sum();
        let length = head.encoded_len() as u64 + resources;
        let prefix = u32::try_from(length).map_err(|_| length)?;
        let mut first = BytesMut::with_capacity(5 + head.encoded_len());
        first.put_u8(0);
        first.put_u32(prefix);
        first.put_slice(&head.encode_to_vec());
        Ok(Chunks { first: Some(first.freeze()), changed: self.changed.into_iter(), aliases: self.aliases })
    }
}

/// The bytes of a response, piece by piece.
#[derive(Debug)]
pub struct Chunks {
    first: Option<Bytes>,
    changed: std::vec::IntoIter<Arc<Entry>>,
    aliases: bool,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let mut piece = BytesMut::new();
        while piece.len() < PIECE
            && let Some(entry) = self.changed.next()
        {
            if piece.is_empty() {
                let left = self.changed.len().saturating_add(1).saturating_mul(resource_len(&entry, self.aliases));
                piece.reserve(left.min(PIECE + PIECE / 8));
            }
            put_resource(&mut piece, &entry, self.aliases);
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

/// Of a field with its tag and length.
fn field_len(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

fn body_len(entry: &Entry, aliases: bool) -> usize {
    let said = if aliases { &*entry.aliases } else { &[] };
    entry.wire.len() + said.iter().map(|alias| field_len(alias.len())).sum::<usize>()
}

fn resource_len(entry: &Entry, aliases: bool) -> usize {
    field_len(body_len(entry, aliases))
}

fn put_resource(to: &mut BytesMut, entry: &Entry, aliases: bool) {
    put_field(to, RESOURCE, body_len(entry, aliases), &entry.wire);
    for alias in if aliases { &*entry.aliases } else { &[] } {
        put_field(to, ALIAS, alias.len(), alias.as_bytes());
    }
}

/// `length` may be more than there is of `bytes`: the rest follows.
fn put_field(to: &mut BytesMut, tag: u8, length: usize, bytes: &[u8]) {
    to.put_u8(tag);
    // As a varint; there is always room.
    let _ = prost::encode_length_delimiter(length, to);
    to.put_slice(bytes);
}
