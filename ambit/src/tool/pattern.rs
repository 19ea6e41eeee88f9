//! A stream of bytes that both ends can make for themselves, so that the receiver knows what every byte must be:
//! a lost, doubled, swapped or changed byte is found, and its place named.

/// A place in the stream.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    seed: u64,
    at: u64,
    expected: Vec<u8>,
}

impl Pattern {
    /// The beginning of stream number `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Pattern { seed, at: 0, expected: Vec::new() }
    }

    /// How far it got, in bytes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Writes the next bytes into `buffer`.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        let expected = self.next(buffer.len());
        buffer.copy_from_slice(expected);
    }

    /// Compares received bytes with the next ones. `Err` is the place of the first wrong byte.
    pub(super) fn check(&mut self, received: &[u8]) -> Result<(), u64> {
        let start = self.at;
        let expected = self.next(received.len());
        match expected.iter().zip(received).position(|(a, b)| a != b) {
            // One comparison of whole memory first: the search is for the rare case.
            _ if expected == received => Ok(()),
            place => Err(start + place.unwrap_or_default() as u64),
        }
    }

    fn next(&mut self, length: usize) -> &[u8] {
        let skip = (self.at % 8) as usize;
        let first = self.at / 8;
        let words = (skip + length).div_ceil(8);
        self.expected.resize(words * 8, 0);
        for (place, index) in self.expected.chunks_exact_mut(8).zip(first..) {
            place.copy_from_slice(&word(self.seed, index).to_le_bytes());
        }
        self.at += length as u64;
        &self.expected[skip..skip + length]
    }
}

/// Word `index` of the stream: the SplitMix64 generator, which can begin anywhere.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_are_the_same_stream() {
        let mut whole = vec![0; 1000];
        Pattern::new(7).fill(&mut whole);
        for size in [1, 3, 8, 13, 64, 999] {
            let mut checker = Pattern::new(7);
            for piece in whole.chunks(size) {
                checker.check(piece).unwrap();
            }
            assert_eq!(checker.at(), 1000);
        }
    }

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let mut whole = vec![0; 1000];
        Pattern::new(7).fill(&mut whole);
        whole[777] ^= 1;
        let mut checker = Pattern::new(7);
        checker.check(&whole[..500]).unwrap();
        assert_eq!(checker.check(&whole[500..]), Err(777));
        assert!(Pattern::new(8).check(&whole[..8]).is_err(), "another seed is another stream");
    }
}
