//! Huffman decoding of header strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: the lengths alone give the codes, and a code of some length is told from longer ones by
//! being smaller than the first code past that length.

/// The code is broken, or its padding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidHuffman;

/// Length of each symbol's code in bits; the last is the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
const END: u16 = 256;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// First code of this length.
    first: u32,
    /// How many there are.
    count: u32,
    /// Where their symbols begin in [`SYMBOLS`].
    offset: u32,
}

/// Symbols by code length, then by number.
const SYMBOLS: [u16; 257] = symbols();
const ROWS: [Row; LONGEST + 1] = rows();

const fn symbols() -> [u16; 257] {
    let mut sorted = [0; 257];
    let (mut next, mut length) = (0, SHORTEST);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                sorted[next] = symbol as u16;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    sorted
}

const fn rows() -> [Row; LONGEST + 1] {
    let mut rows = [Row { first: 0, count: 0, offset: 0 }; LONGEST + 1];
    let (mut code, mut offset, mut length) = (0, 0, SHORTEST);
    while length <= LONGEST {
        let (mut count, mut symbol) = (0, 0);
        while symbol < LENGTHS.len() {
            count += (LENGTHS[symbol] as usize == length) as u32;
            symbol += 1;
        }
        rows[length] = Row { first: code, count, offset };
        code = (code + count) << 1;
        offset += count;
        length += 1;
    }
    rows
}

/// Appends what `input` says to `output`.
///
/// # Errors
/// A code for the end of the string, padding longer than 7 bits, or padding that is not all ones.
pub(super) fn decode(input: &[u8], output: &mut Vec<u8>) -> Result<(), InvalidHuffman> {
    let (mut code, mut length) = (0u32, 0usize);
    for byte in input {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if length > LONGEST {
                return Err(InvalidHuffman);
            }
            let row = &ROWS[length];
            let place = code.wrapping_sub(row.first);
            if place < row.count {
                match SYMBOLS[(row.offset + place) as usize] {
                    END => return Err(InvalidHuffman),
                    // Every other symbol is below 256.
                    symbol => output.push(symbol as u8),
                }
                (code, length) = (0, 0);
            }
        }
    }
    // What is left has to be the beginning of the end-of-string code: ones.
    if length > 7 || code != (1 << length) - 1 { Err(InvalidHuffman) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<String, InvalidHuffman> {
        let mut output = Vec::new();
        decode(input, &mut output).map(|()| String::from_utf8(output).unwrap())
    }

    #[test]
    fn examples_of_rfc_7541_appendix_c() {
        for (input, expected) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            assert_eq!(decoded(input).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for (name, input) in [
            ("end of string", &[0xff, 0xff, 0xff, 0xff][..]),
            ("a whole byte of padding", &[0x64, 0x02, 0xff]),
            ("padding with a zero", &[0x1e]),
        ] {
            assert_eq!(decoded(input), Err(InvalidHuffman), "{name}");
        }
    }

    #[test]
    fn the_lengths_fill_the_code_space_exactly() {
        let used: u64 = LENGTHS.iter().map(|l| 1u64 << (LONGEST - *l as usize)).sum();
        assert_eq!(used, 1 << LONGEST);
    }
}
