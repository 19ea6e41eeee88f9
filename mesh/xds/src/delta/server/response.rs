//! A response, and its bytes on the wire: cut out of what all subscribers share, piece by piece, as the connection takes
//! them. A whole mesh for each of many subscribers is then held once.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_model::resource::Kind;
use mesh_proto::discovery::DeltaDiscoveryResponse;
use prost::{Message, length_delimiter_len};

use crate::published::{Entry, Version};

/// About how many bytes there are in a piece.
const PIECE: usize = 64 * 1024;
/// What comes before the length of an element of `DeltaDiscoveryResponse.resources`: field 2, a message.
const RESOURCE: u8 = 2 << 3 | 2;
/// The same for the fields of a `Resource`: `version`, `resource` (an `Any`), `name` and `aliases`.
const VERSION: u8 = 1 << 3 | 2;
const ANY: u8 = 2 << 3 | 2;
const NAME: u8 = 3 << 3 | 2;
const ALIAS: u8 = 4 << 3 | 2;
/// And for those of an `Any`.
const TYPE_URL: u8 = 1 << 3 | 2;
const VALUE: u8 = 2 << 3 | 2;

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
        let form = Form { kind: self.kind, aliases: self.aliases };
        let resources: u64 = self.changed.iter().map(|entry| form.resource_len(entry) as u64).sum();
        let length = head.encoded_len() as u64 + resources;
        let prefix = u32::try_from(length).map_err(|_| length)?;
        let mut first = BytesMut::with_capacity(5 + head.encoded_len());
        first.put_u8(0);
        first.put_u32(prefix);
        first.put_slice(&head.encode_to_vec());
        Ok(Chunks { first: Some(first.freeze()), changed: self.changed.into_iter(), form })
    }
}

/// The bytes of a response, piece by piece.
#[derive(Debug)]
pub struct Chunks {
    first: Option<Bytes>,
    changed: std::vec::IntoIter<Arc<Entry>>,
    form: Form,
}

/// How the resources of a response are written.
#[derive(Debug, Clone, Copy)]
struct Form {
    kind: Kind,
    /// Whether their other names are said.
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
                let left = self.changed.len().saturating_add(1).saturating_mul(self.form.resource_len(&entry));
                piece.reserve(left.min(PIECE + PIECE / 8));
            }
            self.form.put(&mut piece, &entry);
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

/// Of a field with its tag and length.
fn field_len(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

impl Form {
    fn aliases(self, entry: &Entry) -> &[Arc<str>] {
        if self.aliases { &entry.aliases } else { &[] }
    }

    fn any_len(self, entry: &Entry) -> usize {
        field_len(self.kind.type_url().len()) + field_len(entry.value.len())
    }

    fn body_len(self, entry: &Entry) -> usize {
        let aliases = self.aliases(entry).iter().map(|alias| field_len(alias.len())).sum::<usize>();
        field_len(Version::LEN) + field_len(self.any_len(entry)) + field_len(entry.name.len()) + aliases
    }

    fn resource_len(self, entry: &Entry) -> usize {
        field_len(self.body_len(entry))
    }

    /// As prost writes it: field by field, in the order of their numbers.
    fn put(self, to: &mut BytesMut, entry: &Entry) {
        put_field(to, RESOURCE, self.body_len(entry), &[]);
        put_field(to, VERSION, Version::LEN, entry.version.to_string().as_bytes());
        put_field(to, ANY, self.any_len(entry), &[]);
        put_field(to, TYPE_URL, self.kind.type_url().len(), self.kind.type_url().as_bytes());
        put_field(to, VALUE, entry.value.len(), &entry.value);
        put_field(to, NAME, entry.name.len(), entry.name.as_bytes());
        for alias in self.aliases(entry) {
            put_field(to, ALIAS, alias.len(), alias.as_bytes());
        }
    }
}

/// `length` may be more than there is of `bytes`: the rest follows.
fn put_field(to: &mut BytesMut, tag: u8, length: usize, bytes: &[u8]) {
    to.put_u8(tag);
    // As a varint; there is always room.
    let _ = prost::encode_length_delimiter(length, to);
    to.put_slice(bytes);
}
