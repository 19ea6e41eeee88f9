//! Header compression (RFC 7541), as much as tunnels need: everything when decoding, because any peer may use it; of
//! encoding only literals, because a CONNECT has few headers and they are seldom the same twice.

mod huffman;
mod table;

use std::borrow::Cow;

use table::Table;

/// Largest dynamic table that we let a peer use, in the bytes of RFC 7541 4.1: the protocol's own default.
const TABLE_SIZE: usize = 4096;
/// How many times its budget a list may be before reading on is not worth the connection: two bytes of a block may name
/// an entry as large as the table.
const READ_ON: usize = 4;

/// Why a header block cannot be read. The connection is lost with it: the two tables differ from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidBlock {
    /// Ends inside a field.
    #[error("the header block ends inside a field")]
    Truncated,
    /// An index that names nothing.
    #[error("the header block names an entry that the table does not have")]
    Index,
    /// A number that does not fit, or a string longer than the block.
    #[error("the header block has a number that is too large")]
    Number,
    /// Not Huffman code.
    #[error("the header block has broken Huffman code")]
    Huffman,
    /// Unpacks to many times what was offered to take.
    #[error("the header block unpacks to more than anybody needs")]
    Bomb,
    /// Wants a larger table than was offered, or wants it after the first field.
    #[error("the header block resizes the table wrongly")]
    Resize,
}

/// Reads the header blocks of one connection, in their order.
pub(crate) struct Decoder {
    table: Table,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: Table::new(TABLE_SIZE) }
    }
}

impl Decoder {
    /// Reads one block and hands each field over. Fields past `budget` (RFC 9113 6.5.2: name, value and 32 for each)
    /// are read, because the table depends on them, but not handed over.
    ///
    /// Returns false when the budget was exceeded.
    ///
    /// # Errors
    /// When the block is broken, or is [`READ_ON`] times the budget; the decoder is then of no more use.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        budget: usize,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<bool, InvalidBlock> {
        let mut input = Input(block);
        let (mut size, mut fits, mut first) = (0, true, true);
        let mut take = |name: &[u8], value: &[u8]| {
            size += name.len() + value.len() + 32;
            fits &= size <= budget;
            if fits {
                field(name, value);
            }
            if size > READ_ON * budget { Err(InvalidBlock::Bomb) } else { Ok(()) }
        };
        while let Some(byte) = input.peek() {
            if byte & 0x80 != 0 {
                let index = input.number(7)?;
                let (name, value) = self.table.get(index).ok_or(InvalidBlock::Index)?;
                take(name, value)?;
            } else if byte & 0xe0 == 0x20 {
                let size = input.number(5)?;
                if !first || size > TABLE_SIZE {
                    return Err(InvalidBlock::Resize);
                }
                self.table.resize(size);
                continue;
            } else {
                let indexed = byte & 0x40 != 0;
                let name = match input.number(if indexed { 6 } else { 4 })? {
                    0 => input.string()?,
                    index => Cow::Borrowed(self.table.get(index).ok_or(InvalidBlock::Index)?.0),
                };
                let value = input.string()?;
                take(&name, &value)?;
                if indexed {
                    let (name, value) = (name.into_owned(), value.into_owned());
                    self.table.add(name, value);
                }
            }
            first = false;
        }
        Ok(fits)
    }
}

/// What of a block has not been read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, InvalidBlock> {
        let (first, rest) = self.0.split_first().ok_or(InvalidBlock::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number whose first byte gives it `bits` (RFC 7541 5.1).
    fn number(&mut self, bits: u32) -> Result<usize, InvalidBlock> {
        let most = (1usize << bits) - 1;
        let mut number = usize::from(self.byte()?) & most;
        if number < most {
            return Ok(number);
        }
        // Four more bytes hold all that a block can mean.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(InvalidBlock::Number)
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, InvalidBlock> {
        let huffman = self.peek().ok_or(InvalidBlock::Truncated)? & 0x80 != 0;
        let length = self.number(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(InvalidBlock::Number)?;
        self.0 = rest;
        if !huffman {
            return Ok(Cow::Borrowed(text));
        }
        let mut decoded = Vec::with_capacity(length * 8 / 5);
        huffman::decode(text, &mut decoded).map_err(|_| InvalidBlock::Huffman)?;
        Ok(Cow::Owned(decoded))
    }
}

/// Appends a field by the number of its name in the static table.
pub(crate) fn encode_known(name: u8, value: &[u8], block: &mut Vec<u8>) {
    number(4, 0, name.into(), block);
    string(value, block);
}

/// Appends a field; `name` is in lower case.
pub(crate) fn encode(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    string(name, block);
    string(value, block);
}

/// Appends a field that the static table has whole.
pub(crate) fn encode_static(index: u8, block: &mut Vec<u8>) {
    number(7, 0x80, index.into(), block);
}

/// Numbers of the static table that tunnels use (RFC 7541, appendix A).
pub(crate) mod known {
    /// `:authority`
    pub(crate) const AUTHORITY: u8 = 1;
    /// `:method`
    pub(crate) const METHOD: u8 = 2;
    /// `:status`
    pub(crate) const STATUS: u8 = 8;
    /// `:status: 200`
    pub(crate) const STATUS_200: u8 = 8;
}

fn string(text: &[u8], block: &mut Vec<u8>) {
    number(7, 0, text.len(), block);
    block.extend_from_slice(text);
}

fn number(bits: u32, flags: u8, mut number: usize, block: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    if number < most {
        return block.push(flags | number as u8);
    }
    block.push(flags | most as u8);
    number -= most;
    while number >= 0x80 {
        block.push(number as u8 | 0x80);
        number >>= 7;
    }
    block.push(number as u8);
}

#[cfg(test)]
mod tests;
