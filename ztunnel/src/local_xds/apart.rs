//! A large file, read on every core: cut between entries into pieces that are read apart.
//!
//! Cut is only what has the plain shape in which tables of any size are written: the name of each list alone on its
//! line, once, and below it its entries, each of which begins with a dash in the list's own column. What has another
//! shape, and what is refused as a whole, is left to the reader of whole files, which knows all of YAML and says what
//! is wrong and where. So a piece is taken for what it says only when the whole would have said the same.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::Deserializer as _;

use super::plain;
use super::reading::{Entries, List, MAX_BYTES, Reading, options};

/// A piece ends with the first entry that reaches this, in bytes. Many to each thread, so that all end together; each
/// is in memory once, as is what it says.
pub(super) const PIECE: usize = 128 << 10;
/// Longest entry.
const MAX_ENTRY: usize = 1 << 20;
/// More would wait for each other at the tables of what is shared.
const MAX_THREADS: usize = 4;

/// What a file says; `None` when it is too small to gain by this or has to be read as a whole, from its beginning.
pub(super) fn read(file: &mut (impl Read + Seek + Send), piece: usize) -> Option<Reading> {
    let length = file.seek(SeekFrom::End(0)).ok()?;
    file.rewind().ok()?;
    if length < 2 * piece as u64 || length > MAX_BYTES as u64 {
        return None;
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let cutter = Mutex::new(Some(Cutter::new(file, piece)));
    let parts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(|| read_pieces(&cutter, &parts))).collect();
        let own = read_pieces(&cutter, &parts);
        // All are waited for.
        let others = others.into_iter().map(|other| other.join().unwrap_or(Err(Whole))).collect::<Vec<_>>();
        others.into_iter().fold(own, Result::and)
    })
    .ok()?;
    let mut parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    parts.sort_unstable_by_key(|(number, _)| *number);
    let mut all = Reading::default();
    all.local.resources.reserve_exact(parts.iter().map(|(_, part): &(_, Reading)| part.local.resources.len()).sum());
    for (_, part) in parts {
        all.append(part);
    }
    Some(all)
}

/// The file has to be read as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Whole;

impl From<io::Error> for Whole {
    fn from(_: io::Error) -> Self {
        Self
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads pieces until there are no more, or until somebody has found that the file cannot be read so.
fn read_pieces<R: Read>(cutter: &Mutex<Option<Cutter<R>>>, parts: &Mutex<Vec<(usize, Reading)>>) -> Result<(), Whole> {
    loop {
        let next = match &mut *lock(cutter) {
            Some(cutter) => cutter.next(),
            None => return Ok(()),
        };
        match next.and_then(|piece| piece.map(|piece| Ok((piece.number, piece.read()?))).transpose()) {
            Ok(Some(part)) => lock(parts).push(part),
            end => {
                *lock(cutter) = None;
                return end.map(drop);
            }
        }
    }
}

/// Whole entries of one list.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// Its place among the pieces.
    number: usize,
    list: List,
    /// The column of its dashes.
    column: usize,
    /// The place of its first entry in the list.
    first: usize,
    entries: usize,
    text: String,
}

impl Piece {
    fn read(&self) -> Result<Reading, Whole> {
        self.plain().map_or_else(|| self.yaml(), Ok)
    }

    /// When all of its entries are plain.
    fn plain(&self) -> Option<Reading> {
        let mut reading = Reading::default();
        let mut place = self.first;
        for line in self.text.lines().filter(|line| !line.trim_ascii().is_empty()) {
            reading.take(self.list, place, &plain::entry(line.as_bytes(), self.column)?);
            place += 1;
        }
        (place == self.first + self.entries).then_some(reading)
    }

    fn yaml(&self) -> Result<Reading, Whole> {
        let mut options = options();
        if let Some(budget) = &mut options.budget {
            // What is said here may be meant for another piece.
            (budget.max_anchors, budget.max_aliases) = (0, 0);
        }
        let read = serde_saphyr::with_deserializer_from_str_with_options(&self.text, options, |yaml| {
            let mut reading = Reading::default();
            let end = yaml.deserialize_seq(Entries { list: self.list, first: self.first, reading: &mut reading })?;
            Ok((reading, end))
        });
        match read {
            Ok((reading, end)) if end == self.first + self.entries => Ok(reading),
            _ => Err(Whole),
        }
    }
}

/// What a line is, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing, or a comment: part of whatever it stands in.
    Nothing,
    /// The name of a list, and whether it is `[]`.
    List(List, bool),
    /// A dash in this column.
    Dash(usize),
    /// Anything else that begins in this column.
    Other(usize),
    /// What may mean something for the lines around it.
    Strange,
}

fn line(line: &[u8]) -> Line {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let column = line.iter().take_while(|byte| **byte == b' ').count();
    let rest = &line[column..];
    match rest {
        // Tabs are no indentation, and a carriage return may end a line.
        _ if line.contains(&b'\r') || rest.first() == Some(&b'\t') => Line::Strange,
        [] | [b'#', ..] => Line::Nothing,
        [b'-'] | [b'-', b' ', ..] => Line::Dash(column),
        _ if column > 0 => Line::Other(column),
        _ => {
            let Some(colon) = rest.iter().position(|byte| *byte == b':') else { return Line::Strange };
            let (name, after) = (&rest[..colon], &rest[colon + 1..]);
            match (str::from_utf8(name).ok().and_then(List::named), after) {
                (Some(list), []) => Line::List(list, false),
                (Some(list), b" []") => Line::List(list, true),
                _ => Line::Strange,
            }
        }
    }
}

struct Cutter<R> {
    file: BufReader<R>,
    size: usize,
    /// The lists seen so far, the last of which is being cut.
    lists: Vec<List>,
    /// The last list was `[]`.
    closed: bool,
    /// The column of its dashes.
    column: Option<usize>,
    /// Its entries in pieces cut so far.
    entries: usize,
    pieces: usize,
    /// The line that was read last and belongs to the next piece.
    ahead: Vec<u8>,
}

impl<R: Read> Cutter<R> {
    fn new(file: R, size: usize) -> Self {
        let file = BufReader::new(file);
        Self { file, size, lists: Vec::new(), closed: false, column: None, entries: 0, pieces: 0, ahead: Vec::new() }
    }

    /// The next piece; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Piece>, Whole> {
        let mut text = std::mem::take(&mut self.ahead);
        let mut begin = 0;
        let mut entries = 0;
        let mut last = 0;
        loop {
            if text.len() == begin {
                (&mut self.file).take(MAX_ENTRY as u64).read_until(b'\n', &mut text)?;
            }
            let end = text.len();
            if end - last >= MAX_ENTRY {
                return Err(Whole);
            }
            if begin == end {
                return match self.lists.is_empty() {
                    true => Err(Whole),
                    false => self.piece(text, entries),
                };
            }
            match (line(&text[begin..]), self.column) {
                (Line::Nothing, _) => {}
                (Line::Other(column), Some(list)) if column > list => {}
                (Line::Dash(column), Some(list)) if column > list => {}
                (Line::Dash(column), list)
                    if !self.closed && !self.lists.is_empty() && list.is_none_or(|list| list == column) =>
                {
                    if entries > 0 && begin >= self.size {
                        self.ahead = text.split_off(begin);
                        return self.piece(text, entries);
                    }
                    self.column = Some(column);
                    entries += 1;
                    last = begin;
                }
                (Line::List(..), _) if entries > 0 => {
                    self.ahead = text.split_off(begin);
                    return self.piece(text, entries);
                }
                (Line::List(list, closed), _) if !self.lists.contains(&list) => {
                    self.lists.push(list);
                    (self.closed, self.column, self.entries) = (closed, None, 0);
                    text.clear();
                    last = 0;
                    begin = 0;
                    continue;
                }
                _ => return Err(Whole),
            }
            begin = end;
        }
    }

    fn piece(&mut self, text: Vec<u8>, entries: usize) -> Result<Option<Piece>, Whole> {
        let (Some(&list), Some(column)) = (self.lists.last(), self.column) else { return Ok(None) };
        if entries == 0 {
            return Ok(None);
        }
        let text = String::from_utf8(text).map_err(|_| Whole)?;
        let piece = Piece { number: self.pieces, list, column, first: self.entries, entries, text };
        self.pieces += 1;
        self.entries += entries;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::local_xds::whole;

    /// Every shape, cut as small as it can be: either it is left to the reader of whole files, or the same comes out.
    #[test]
    fn pieces_say_what_the_whole_says() {
        for (text, apart) in [
            ("workloads:\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", true),
            ("workloads:\n- name: a\n  namespace: n\n- namespace: n\n  name: b", true),
            ("workloads:\n  - name: a\n    namespace: n\n  -\n    namespace: n\n    name: b\n", true),
            ("# all\n\nworkloads:\n# one\n- {name: a,\n   namespace: n}\n\n   # not one\n", true),
            ("services: []\npolicies:\nworkloads:\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", true),
            ("workloads:\n- {name: a, namespace: n}\nservices:\n- {name: s, namespace: n, hostname: h}\n", true),
            ("workloads:\n- {name: a}\n- {name: b, namespace: n}\n- 7\n- {namespace: n}\nservices:\n- {}\n", true),
            ("policies:\n- {name: a}\n- {name: b}\n", true),
            ("workloads:\n- name: |\n   - a\n   services:\n  namespace: n\n- name: a\n  namespace: n\n", true),
            ("workloads:\n- {name: 'a\n  b', namespace: n}\n- {name: b, namespace: n}\n", true),
            ("workloads:\n- {name: &n a, namespace: *n}\n- {name: b, namespace: n}\n", false),
            ("workloads:\n- {name: &n a, namespace: n}\n- {name: *n, namespace: n}\n", false),
            ("workloads:\n- {name: 'a\n- b', namespace: n}\n- {name: b, namespace: n}\n", false),
            ("workloads:\n- {name: a, namespace: 'n\nservices:\n- '}\n", false),
            ("workloads:\n- {name: a, namespace: n\n- {name: b, namespace: n}\n", false),
            ("workloads:\n- {name: a, namespace: n}\nworkloads:\n- {name: b, namespace: n}\n", false),
            ("workloads: []\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", false),
            ("workloads:\n  - {name: a, namespace: n}\n - {name: b, namespace: n}\n", false),
            ("workloads:\n- {name: a, namespace: n}\n---\n- {name: b, namespace: n}\n", false),
            ("workloads:\n- {name: a, namespace: n}\n...\nworkloads:\n- {name: b, namespace: n}\n", false),
            ("--- # \nworkloads:\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", false),
            ("workloads:\r\n- {name: a, namespace: n}\r\n- {name: b, namespace: n}\r\n", false),
            ("workloads:\n- {name: a,\n\tnamespace: n}\n- {name: b, namespace: n}\n", false),
            ("{workloads: [\n{name: a, namespace: n},\n{name: b, namespace: n}]}\n", false),
            ("workload:\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", false),
            ("- {name: a, namespace: n}\n- {name: b, namespace: n}\nworkloads:\n", false),
            ("workloads:\n- {name: a, namespace: n}\n- {name: b, namespace: n}\nservices: 7\n", false),
            ("\u{feff}workloads:\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", false),
            ("workloads\n- {name: a, namespace: n}\n- {name: b, namespace: n}\n", false),
            ("workloads:[]\nservices:\n- {name: a, namespace: n, hostname: h}\n", false),
            ("# nothing\n", false),
        ] {
            let pieces = read(&mut Cursor::new(text), 1);
            assert_eq!(pieces.is_some(), apart, "{text}");
            if let Some(pieces) = pieces {
                assert_eq!(pieces, whole(text.as_bytes()).unwrap(), "{text}");
            }
        }
    }

    #[test]
    fn pieces_are_of_the_size_asked_for() {
        let entry = |n| format!("- {{name: w{n}, namespace: n}}\n");
        let text = format!("workloads:\n{}", (10..30).map(entry).collect::<String>());
        let mut cutter = Cutter::new(text.as_bytes(), 3 * entry(10).len());
        let mut pieces = Vec::new();
        while let Some(piece) = cutter.next().unwrap() {
            pieces.push(piece);
        }
        let places: Vec<_> = pieces.iter().map(|piece| (piece.number, piece.first, piece.entries)).collect();
        assert_eq!(places, [(0, 0, 3), (1, 3, 3), (2, 6, 3), (3, 9, 3), (4, 12, 3), (5, 15, 3), (6, 18, 2)]);
        assert!(read(&mut Cursor::new(&text), text.len()).is_none(), "too small");
    }

    #[test]
    fn an_entry_is_bounded() {
        for (length, apart) in [(MAX_ENTRY / 2, true), (MAX_ENTRY, false)] {
            let text = format!("workloads:\n- {{name: {}, namespace: n}}\n", "a".repeat(length));
            assert_eq!(read(&mut Cursor::new(text), 1).is_some(), apart);
        }
    }
}
