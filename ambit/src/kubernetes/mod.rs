//! A mesh on a cluster, asked by its API server: what `ambit status --kubernetes` and `ambit waypoint` do.
//!
//! | file | question |
//! |---|---|
//! | `access` | which cluster, and how is it asked? |
//! | `read` | what does the API server say of everything that matters? |
//! | `objects` | what of an object is read? |
//! | `view` | what follows from it: what is in the mesh, and what is wrong? (pure) |
//! | `pods`, `control_plane`, `policies`, `waypoints` | the same, of each part (pure) |
//! | [`status`] | how is it shown? (pure) |
//! | `waypoint` | which objects make a waypoint? (pure) |
pub(crate) mod access;
mod control_plane;
mod objects;
mod pods;
mod policies;
pub(crate) mod read;
pub mod status;
pub(crate) mod view;
pub(crate) mod waypoint;
mod waypoints;
