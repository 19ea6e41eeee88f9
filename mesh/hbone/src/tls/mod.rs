//! TLS in which rustls does the handshake and the keys, and the records are sealed and opened here: in place, in the
//! buffers that the kernel fills and empties, so that no byte is copied for their sake.

pub(crate) mod handshake;
mod queue;
pub(crate) mod record;
