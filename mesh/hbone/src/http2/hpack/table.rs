//! The tables of names and values (RFC 7541, section 2.3).

use std::collections::VecDeque;

/// The fixed table of appendix A, followed by what the peer added, newest first.
pub(super) struct Table {
    added: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

/// A name and its value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// What an entry takes besides its text (section 4.1).
const OVERHEAD: usize = 32;

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { added: VecDeque::new(), size: 0, limit }
    }

    /// The entry of a number; the first has number 1.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        match FIXED.get(index) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.added.get(index - FIXED.len()).map(|(name, value)| (&**name, &**value)),
        }
    }

    /// Adds an entry; the oldest make room. One larger than the table leaves it empty (section 4.4).
    pub(super) fn add(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let needed = name.len() + value.len() + OVERHEAD;
        self.shrink_to(self.limit.saturating_sub(needed));
        if needed <= self.limit {
            self.size += needed;
            self.added.push_front((name.into(), value.into()));
        }
    }

    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink_to(limit);
    }

    fn shrink_to(&mut self, size: usize) {
        while self.size > size {
            let Some((name, value)) = self.added.pop_back() else { break };
            self.size -= name.len() + value.len() + OVERHEAD;
        }
    }
}

#[rustfmt::skip]
const FIXED: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];
