//! What is visible on a wire: counts packets in which a text can be read.
