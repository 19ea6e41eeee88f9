//! Sets.

/// A set of addresses of one kind, which rules look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// The table it is in.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Of IPv6 addresses, not of IPv4.
    pub v6: bool,
}
