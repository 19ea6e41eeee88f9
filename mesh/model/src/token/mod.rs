//! JSON Web Tokens that callers send with their requests (RFC 7519), up to their signature, which is checked where there are keys.
//!
//! | file | question |
//! |---|---|
//! | [`rule`] | which tokens does a service take, and what becomes of them? |
//! | [`find`] | where in a request are they? |
//! | [`read`](mod@read) | what does one say? |
//! | [`check`] | may it be used, now and here? |
//! | [`claims`] | what has it proven? |
//! | [`hand_on`] | what is the application told of it? |
//! | `json` | JSON that says each thing once |

pub mod check;
pub mod claims;
pub mod fault;
pub mod find;
pub mod hand_on;
mod json;
pub mod read;
pub mod rule;

pub use claims::Token;
pub use fault::TokenFault;
pub use read::{Unverified, read};
pub use rule::JwtRule;

#[cfg(test)]
mod tests;
