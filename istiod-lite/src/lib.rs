//! The control plane.

pub mod cluster;
pub mod folder;
pub mod resources;
pub mod translate;
