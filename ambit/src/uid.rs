//! Unique names for objects, in the form Kubernetes gives them.
use aws_lc_rs::rand;

/// A random (version 4) UUID.
pub(crate) fn new() -> String {
    let mut b = [0u8; 16];
    // The system's randomness does not fail on a machine that got this far.
    rand::fill(&mut b).unwrap_or_else(|_| unreachable!("no randomness"));
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
