//! An answer as it comes, line by line.

use std::io;

use futures_util::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Longest line: etcd takes objects of some 1.5 MiB, and their JSON may be longer than what it keeps.
pub(super) const MAX_LINE: usize = 16 << 20;

/// Reads lines. Whoever stops waiting for one loses nothing.
pub(super) struct Lines<R> {
    from: R,
    line: Vec<u8>,
    /// The line was given away: the next one begins.
    done: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, line: Vec::new(), done: false }
    }

    /// The next line, without its end; None where the answer ends. Half a line at the end is none.
    pub(super) async fn next(&mut self) -> io::Result<Option<&str>> {
        if std::mem::take(&mut self.done) {
            self.line.clear();
        }
        loop {
            let more = self.from.fill_buf().await?;
            if more.is_empty() {
                return Ok(None);
            }
            let end = more.iter().position(|byte| *byte == b'\n');
            let part = end.unwrap_or(more.len());
            if self.line.len() + part > MAX_LINE {
                return Err(io::Error::other(format!("a line of more than {} MiB", MAX_LINE >> 20)));
            }
            self.line.extend_from_slice(&more[..part]);
            self.from.consume_unpin(part + usize::from(end.is_some()));
            if end.is_some() {
                self.done = true;
                return str::from_utf8(&self.line).map(Some).map_err(io::Error::other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::{BufReader, Cursor};

    use super::*;

    #[tokio::test]
    async fn lines_of_any_length_in_pieces_of_any_size() {
        let long = "x".repeat(10_000);
        let text = format!("a\n\n{long}\nhalf a line");
        for size in [1, 7, 100_000] {
            let mut lines = Lines::new(BufReader::with_capacity(size, Cursor::new(text.as_bytes())));
            let mut read = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                read.push(line.to_owned());
            }
            assert_eq!(read, ["a", "", &long], "{size}");
        }
        let endless = vec![b'x'; MAX_LINE + 1];
        assert!(Lines::new(Cursor::new(endless)).next().await.is_err());
        assert!(Lines::new(Cursor::new(b"\xff\n")).next().await.is_err());
    }
}
