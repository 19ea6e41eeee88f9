//! For tests only: what stands in for the parts of a mesh that a test is not about.
//!
//! | module | gives |
//! |---|---|
//! | [`ca`] | a certificate authority in this process |
//! | [`tcp`] | two ends of one TCP connection |
//!
//! A failure here is a broken test machine, so everything panics instead of returning errors.

pub mod ca;
pub mod tcp;
