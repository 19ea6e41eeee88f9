//! Hashes that mean the same in every waypoint and every version: an endpoint that was chosen by one is chosen again.

use super::super::traffic::{HashTable, MOST_RING};

/// FNV-1a from `seed`, with the bits of both spread: FNV leaves the high bits of like texts alike, and would take a seed of few bits for a
/// part of the text.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    mix(fnv(mix(0xcbf2_9ce4_8422_2325 ^ seed), bytes))
}

pub(super) fn fnv(from: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(from, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Two rounds of multiply and shift.
pub(super) fn mix(mut hash: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    hash ^ hash >> 33
}

/// Which endpoint a hash finds. Endpoints that come or go move few of the hashes of the others.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    /// Points by their place on the ring, and whose each is.
    Ring(Vec<(u64, u32)>),
    /// Whose each entry is.
    Maglev(Vec<u32>),
}

impl Lookup {
    /// For endpoints of these names and weights: at least one, no weight 0.
    pub(super) fn new(table: HashTable, members: &[(&str, u32)]) -> Self {
        match table {
            HashTable::Ring(least) => Self::Ring(ring(least.clamp(1, MOST_RING), members)),
            HashTable::Maglev(size) => Self::Maglev(maglev(size.max(2), members)),
        }
    }

    /// The endpoint that a hash finds.
    pub(super) fn find(&self, hash: u64) -> usize {
        let found = match self {
            Self::Ring(points) => {
                let after = points.partition_point(|(point, _)| *point < hash);
                points.get(after).or(points.first()).map(|(_, member)| *member)
            }
            Self::Maglev(entries) => {
                let at = hash.checked_rem(entries.len() as u64);
                at.and_then(|at| entries.get(usize::try_from(at).ok()?)).copied()
            }
        };
        found.unwrap_or_default() as usize
    }
}

/// Each member has points by its weight, at least one.
fn ring(least: u32, members: &[(&str, u32)]) -> Vec<(u64, u32)> {
    let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut points = Vec::new();
    for (member, (name, weight)) in (0..).zip(members) {
        let own = (u64::from(least) * u64::from(*weight)).div_ceil(total.max(1));
        points.extend((0..own).map(|number| (hash(number, name.as_bytes()), member)));
    }
    points.sort_unstable();
    points
}

/// As the Maglev paper fills its table; a member of less weight sits out turns.
fn maglev(size: u32, members: &[(&str, u32)]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    struct Turn {
        at: u64,
        skip: u64,
        weight: u64,
        credit: u64,
    }
    let size = u64::from(size);
    let turn = |(name, weight): &(&str, u32)| Turn {
        at: hash(0, name.as_bytes()) % size,
        skip: hash(1, name.as_bytes()) % (size - 1) + 1,
        weight: u64::from(*weight),
        credit: 0,
    };
    let mut turns: Vec<Turn> = members.iter().map(turn).collect();
    let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap_or(1).max(1);
    let mut entries = vec![FREE; usize::try_from(size).unwrap_or_default()];
    let mut left = entries.len();
    while left > 0 {
        for (member, turn) in (0..).zip(&mut turns) {
            turn.credit += turn.weight;
            if left == 0 || turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            // The size is a prime, so each member comes to each entry.
            loop {
                let entry = usize::try_from(turn.at).unwrap_or_default();
                turn.at = (turn.at + turn.skip) % size;
                if entries[entry] == FREE {
                    entries[entry] = member;
                    left -= 1;
                    break;
                }
            }
        }
    }
    entries
}
