//! What the mesh is, and what follows from it: no clock, no sockets, no async, no logging.
pub mod labels;
