//! What is said of a value that is not what it should be.

/// A value that is not what it should be.
pub(super) fn expected(field: &str, value: &str, expected: &str) -> String {
    format!("{field} {value:?}: expected {expected}")
}
