//! Certificates for the identities we hold, and the TLS that checks SPIFFE names.
//!
//! | module | holds |
//! |---|---|
//! | [`certificate`] | a key, the request to sign it, and the certificate that came back; SPIFFE ids in certificates |
//! | `crypto` | the cryptography of the mesh |
//! | [`tls`] | client and server TLS in which both sides prove a SPIFFE id |
//! | [`shown`] | what of certificates a stranger may show before they are looked at (pure) |
//! | [`peer_watch`] | one open connection's peer, looked at again when lists change |
//! | `chain` | whether a certificate is genuine, in its time, for its use, and not revoked |
//! | [`mod@describe`] | what a certificate says of itself, for who looks |
//! | [`revocation`] | certificates taken back before their time |
//! | [`renewal`] | when to renew, how to back off (pure) |
//! | `schedule` | who is fetched next (pure) |
//! | [`authority`] | whoever signs, as a trait: over gRPC it is `mesh-control`, which this crate builds without |
//! | [`store`] | one fresh certificate per identity, fetched once, shared by many connections |
//!
//! Begin with [`store::Store::get`]: it is what a connection calls. Keys are made here, stay in memory and are never
//! printed.

pub mod authority;
pub mod certificate;
mod chain;
mod crypto;
pub mod describe;
pub mod peer_watch;
mod refused;
pub mod renewal;
pub mod revocation;
mod schedule;
pub mod shown;
pub mod store;
pub mod tls;

#[cfg(test)]
mod test_ca;

pub use certificate::WorkloadCertificate;
pub use store::Store;
pub use tls::Credentials;
