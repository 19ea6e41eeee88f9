//! The certificate authority of the mesh.
//!
//! | file | question |
//! |---|---|
//! | [`material`] | with which key and certificate do we sign? |
//! | [`sign`] | what is in the certificates we sign? |
//! | [`token`] | who is calling? |
//! | [`authorize`] | for which identity may the caller have a certificate? (pure) |
//! | [`serve`] | Istio's certificate service |

pub mod authorize;
pub mod material;
pub mod serve;
pub mod sign;
pub mod token;
