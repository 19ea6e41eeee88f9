//! The kernel's networking over netlink, as far as a mesh programs it. No program of ours calls `ip` or `nft`.
//!
//! | module | holds |
//! |---|---|
//! | [`routing`] | interfaces, addresses, routes and the rules that choose a routing table (`rtnetlink(7)`) |
//! | [`nftables`] | tables, chains, rules and sets of the packet filter, changed in transactions |
//! | `socket` | a netlink socket in a network namespace: requests, answers, dumps |
//! | `message` | what a message looks like: header, attributes |
//!
//! Everything blocks, for as long as the kernel works on it: it does so while the request is sent, so there is nothing to
//! wait for. Who must not be held up asks on a thread for blocking work.

mod message;
pub mod nftables;
pub mod routing;
mod socket;

pub use socket::Error;
