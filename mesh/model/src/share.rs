//! Fair shares of what is bounded: how much of it one source may hold, so that a greedy one starves nobody.
//!
//! The rule: a source may hold as much as is left for all others. Alone it gets half of the bound, *n* greedy ones get
//! one part in *n* + 1 each once all of them come and go, and who holds nothing finds room as long as anything is left.
//!
//! Shares nest. What a member of a group may hold is its share of what the group may still take: so [`left`] of one
//! level is what is free on the next. An IPv6 address is a member of its network of 64 bits: a machine that owns a whole
//! network gains nothing from its 2^64 addresses, and in a cluster, where each node has such a network for its pods,
//! one pod of it cannot take the others' part.
//!
//! [`Ledger`] counts for one thread; [`Shares`] is for places that threads share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::SpiffeId;

/// Who holds a share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Who has proven nothing, known by the address it comes from.
    Address(IpAddr),
    /// The upper 64 bits of an IPv6 address: a group of addresses.
    Network(u64),
    /// Who has proven who it is: all of its connections, wherever they come from.
    Identity(SpiffeId),
}

impl Source {
    /// The source that an address stands for; an IPv4-mapped one is the IPv4 address.
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(ip.to_canonical())
    }

    /// The group that it shares a share with.
    pub fn group(&self) -> Option<Self> {
        match self {
            Self::Address(IpAddr::V6(ip)) => Some(Self::Network((ip.to_bits() >> 64) as u64)),
            Self::Address(IpAddr::V4(_)) | Self::Network(_) | Self::Identity(_) => None,
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::Network(bits) => write!(f, "{}/64", std::net::Ipv6Addr::from_bits(u128::from(*bits) << 64)),
            Self::Identity(id) => id.fmt(f),
        }
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Nothing is left for anybody.
    #[error("nothing is left")]
    All,
    /// The source, or the group of addresses it belongs to, holds its share.
    #[error("this source holds as much as one may while others may want some")]
    Source,
}

/// How much more may be taken by who holds `held`, while `free` is left: as long as it holds less than is left then.
pub const fn left(free: usize, held: usize) -> usize {
    free.saturating_sub(held).div_ceil(2)
}

/// Who holds how much. A source that holds nothing takes no memory.
#[derive(Debug, Default)]
pub struct Ledger {
    all: usize,
    held: HashMap<Source, usize>,
}

impl Ledger {
    /// What all of them hold.
    pub fn all(&self) -> usize {
        self.all
    }

    /// What `source` holds.
    pub fn held(&self, source: &Source) -> usize {
        self.held.get(source).copied().unwrap_or(0)
    }

    /// How much more `source` may take while `free` is left for everybody; more than nothing.
    ///
    /// # Errors
    /// When that is nothing, with what is full.
    pub fn room(&self, free: usize, source: &Source) -> Result<usize, Full> {
        if free == 0 {
            return Err(Full::All);
        }
        let free = source.group().map_or(free, |group| left(free, self.held(&group)));
        match left(free, self.held(source)) {
            0 => Err(Full::Source),
            room => Ok(room),
        }
    }

    /// Writes down that `source` has taken `amount`.
    pub fn take(&mut self, source: &Source, amount: usize) {
        self.all += amount;
        for holder in std::iter::once(source.clone()).chain(source.group()) {
            *self.held.entry(holder).or_default() += amount;
        }
    }

    /// Writes down that `source` has given `amount` back.
    pub fn give_back(&mut self, source: &Source, amount: usize) {
        self.all = self.all.saturating_sub(amount);
        for holder in std::iter::once(source.clone()).chain(source.group()) {
            if let Some(held) = self.held.get_mut(&holder) {
                *held = held.saturating_sub(amount);
                if *held == 0 {
                    self.held.remove(&holder);
                }
            }
        }
    }
}

/// Places, of which each source may hold a share. For all threads: the lock is held for a look and a count.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    ledger: Mutex<Ledger>,
}

impl Shares {
    /// `most` places. `usize::MAX` where something else bounds them: see [`Shares::enter_of`].
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, ledger: Mutex::default() })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for `source`.
    ///
    /// # Errors
    /// When there is none for it.
    pub fn enter(self: &Arc<Self>, source: &Source) -> Result<Share, Full> {
        self.enter_of(usize::MAX, source)
    }

    /// As [`Shares::enter`], while no more than `free` places are left elsewhere: where these shares are part of one.
    ///
    /// # Errors
    /// When there is none for it.
    pub fn enter_of(self: &Arc<Self>, free: usize, source: &Source) -> Result<Share, Full> {
        let mut ledger = self.ledger();
        ledger.room(free.min(self.most.saturating_sub(ledger.all())), source)?;
        ledger.take(source, 1);
        Ok(Share { shares: self.clone(), source: source.clone() })
    }

    /// Places taken by all.
    pub fn all(&self) -> usize {
        self.ledger().all()
    }

    /// Places that `source` holds.
    pub fn held(&self, source: &Source) -> usize {
        self.ledger().held(source)
    }
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    source: Source,
}

impl Share {
    /// Whose it is.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.ledger().give_back(&self.source, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        match text.parse() {
            Ok(ip) => Source::address(ip),
            Err(_) => Source::Identity(text.parse().expect("an address or a SPIFFE id")),
        }
    }

    const SHOP: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn a_source_may_hold_as_much_as_is_left_for_the_others() {
        for (free, held, expected) in [
            (100, 0, 50),
            (51, 49, 1),
            (50, 50, 0),
            (50, 0, 25),
            // What somebody else gave back.
            (60, 50, 5),
            (40, 50, 0),
            // The last one is for who has none.
            (1, 0, 1),
            (1, 1, 0),
            (0, 0, 0),
        ] {
            assert_eq!(left(free, held), expected, "{held} held, {free} free");
            // Taken one by one, it is as many.
            let taken = (0..).take_while(|n| held + n < free - n.min(&free)).count();
            assert_eq!(taken, expected, "{held} held, {free} free, one by one");
        }
    }

    #[test]
    fn room_by_who_holds_what() {
        use Full::{All, Source as Own};
        // What sources hold, what is free, who asks, how much it may take.
        for (row, held, free, asks, expected) in [
            ("alone", vec![], 100, "10.0.0.1", Ok(50)),
            ("the greedy one", vec![("10.0.0.1", 50)], 50, "10.0.0.1", Err(Own)),
            ("beside the greedy one", vec![("10.0.0.1", 50)], 50, "10.0.0.2", Ok(25)),
            ("IPv4-mapped is IPv4", vec![("::ffff:10.0.0.1", 50)], 50, "10.0.0.1", Err(Own)),
            ("an identity is not its address", vec![("10.0.0.1", 50)], 50, SHOP, Ok(25)),
            ("an identity", vec![(SHOP, 50)], 50, SHOP, Err(Own)),
            ("the last place", vec![("10.0.0.1", 50), ("10.0.0.2", 49)], 1, "10.0.0.3", Ok(1)),
            ("none left", vec![("10.0.0.1", 100)], 0, "10.0.0.3", Err(All)),
            // The network of an address gets half, and the address half of that.
            ("alone, IPv6", vec![], 100, "fd00::1", Ok(25)),
            ("greedy, IPv6", vec![("fd00::1", 25)], 75, "fd00::1", Err(Own)),
            ("its neighbour", vec![("fd00::1", 25)], 75, "fd00::2", Ok(13)),
            ("a network of greedy ones", vec![("fd00::1", 25), ("fd00::2", 25)], 50, "fd00::3", Err(Own)),
            ("another network", vec![("fd00::1", 25), ("fd00::2", 25)], 50, "fd00:0:0:1::1", Ok(13)),
            ("IPv4 beside it", vec![("fd00::1", 25), ("fd00::2", 25)], 50, "10.0.0.1", Ok(25)),
        ] {
            let mut ledger = Ledger::default();
            for (who, amount) in held {
                ledger.take(&source(who), amount);
            }
            assert_eq!(ledger.room(free, &source(asks)), expected, "{row}");
        }
    }

    /// A machine that owns a network has no more from its addresses than one that has one.
    #[test]
    fn addresses_of_one_network_take_half_and_others_find_room() {
        let shares = Shares::new(256);
        let mut held = Vec::new();
        for number in 0..100_000_u128 {
            let attacker = Source::Address(IpAddr::V6((0xfd00 << 112 | number).into()));
            held.extend(shares.enter(&attacker));
        }
        assert_eq!(held.len(), 128);
        let good = source("fd00:0:0:1::1");
        assert!((0..32).map(|_| shares.enter(&good)).collect::<Result<Vec<_>, _>>().is_ok());
    }

    #[test]
    fn what_is_given_back_is_forgotten() {
        let shares = Shares::new(8);
        let (greedy, modest) = (source("fd00::1"), source(SHOP));
        let mut held = Vec::new();
        let full = loop {
            match shares.enter(&greedy) {
                Ok(share) => held.push(share),
                Err(full) => break full,
            }
        };
        assert_eq!((held.len(), full), (2, Full::Source));
        assert_eq!(held[0].source(), &greedy);
        held.extend(shares.enter(&modest));
        assert_eq!((shares.all(), shares.held(&greedy), shares.held(&modest)), (3, 2, 1));
        // Elsewhere nothing is left.
        assert_eq!(shares.enter_of(0, &source("10.0.0.1")).map(drop), Err(Full::All));
        assert_eq!(shares.enter_of(1, &source("10.0.0.1")).map(drop), Ok(()));
        drop(held);
        let ledger = shares.ledger();
        assert_eq!((ledger.all(), ledger.held.len()), (0, 0), "{ledger:?}");
    }

    #[test]
    fn sources_as_they_are_told() {
        for (source, expected) in [
            (source("10.0.0.1"), "10.0.0.1"),
            (source("fd00:1:2:3:4::1"), "fd00:1:2:3:4::1"),
            (source("fd00:1:2:3:4::1").group().expect("IPv6"), "fd00:1:2:3::/64"),
            (source(SHOP), SHOP),
        ] {
            assert_eq!(source.to_string(), expected);
        }
    }
}
