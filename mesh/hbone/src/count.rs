//! Who counts bytes.

/// Told of bytes as they pass.
pub trait Count {
    /// Bytes read from the first stream and handed to the second.
    fn forth(&self, bytes: usize);
    /// Bytes read from the second stream and handed to the first.
    fn back(&self, bytes: usize);
}
