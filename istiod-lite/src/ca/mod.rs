//! The certificate authority of the mesh.
//!
//! | file | question |
//! |---|---|
//! | [`material`] | with which key and certificate do we sign? |
//! | [`sign`] | what is in the certificates we sign? |
//! | [`secret`] | and on a cluster, where nobody plugged one in? |
//! | [`root_map`] | where do pods of a cluster find our roots? |
//! | [`token`] | who is calling? |
//! | [`review`] | and on a cluster? |
//! | [`proof`] | which of the two is asked? |
//! | [`authorize`] | for which identity may the caller have a certificate? (pure) |
//! | [`serve`] | Istio's certificate service |
//! | [`reload`] | what if another CA is plugged in? |
//! | [`metrics`] | what is counted? |

pub mod authorize;
pub mod material;
pub mod metrics;
pub mod proof;
pub mod reload;
pub mod review;
pub mod root_map;
pub mod secret;
pub mod serve;
pub mod sign;
pub mod token;
