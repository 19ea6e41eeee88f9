//! What is wrong with an expression.

/// Why a text is no expression that can be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {why}")]
pub struct InvalidExpression {
    /// The character, from 1.
    pub at: usize,
    /// What is wrong there, and what can be written.
    pub why: String,
}
