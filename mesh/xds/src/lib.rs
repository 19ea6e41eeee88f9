//! The delta xDS protocol, both ends.
