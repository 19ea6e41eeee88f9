//! For tests only: what stands in for the parts of a mesh that a test is not about.
//!
//! | module | gives |
//! |---|---|
//! | [`ca`] | a certificate authority in this process |
//! | [`control_plane`] | settings of a control plane, and tokens for it |
//! | [`frames`] | HTTP/2 written by hand |
//! | [`hbone`] | both ends of a tunnel |
//! | [`maze`] | certificates that could all have signed each other |
//! | [`tcp`] | two ends of one TCP connection, and applications |
//! | [`random`] | numbers without pattern, the same ones every time |
//!
//! A failure here is a broken test machine, so everything panics instead of returning errors.

pub mod ca;
pub mod control_plane;
pub mod frames;
pub mod hbone;
pub mod maze;
pub mod random;
pub mod tcp;
