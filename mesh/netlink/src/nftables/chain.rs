//! Chains that the kernel asks.

/// Where in a packet's way a base chain is asked (`NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What comes in, before routing.
    Prerouting,
    /// What this machine makes.
    Output,
    /// What leaves, after routing.
    Postrouting,
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Looks at every packet.
    Filter,
    /// Looks at the first packet of each connection, and translates its addresses.
    Nat,
    /// As filter, and routes a packet again whose mark it changed.
    Route,
}

/// What makes a chain a base chain: the kernel asks it, and accepts what none of its rules decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What it is for.
    pub kind: ChainType,
    /// Where it is asked.
    pub hook: Hook,
    /// Its place among the chains that are asked there: the lowest first.
    pub priority: i32,
}

/// Priorities that nftables' own language has names for.
pub mod priority {
    /// Before connections are tracked.
    pub const RAW: i32 = -300;
    /// Where packets are changed.
    pub const MANGLE: i32 = -150;
    /// Where destinations are translated.
    pub const DSTNAT: i32 = -100;
    /// Where sources are translated.
    pub const SRCNAT: i32 = 100;
}

impl Hook {
    pub(super) fn number(self) -> u32 {
        let number = match self {
            Self::Prerouting => libc::NF_INET_PRE_ROUTING,
            Self::Output => libc::NF_INET_LOCAL_OUT,
            Self::Postrouting => libc::NF_INET_POST_ROUTING,
        };
        u32::try_from(number).expect("hooks are positive")
    }
}

impl ChainType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}
