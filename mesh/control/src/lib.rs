//! How a program of the mesh reaches its control plane: over gRPC, each side with its proof.
//!
//! | module | holds |
//! |---|---|
//! | [`channel`] | the authenticated channel: TLS to the server, our token with every call |
//! | [`ca_client`] | asks the control plane to sign certificates; the service definition both ends use |
//!
//! Begin with [`channel::connect`]. The tables come over the same channel, in `mesh-xds`. What a certificate is, and when
//! to ask for one, is `mesh-identity`, which asks through its trait
//! [`Authority`](mesh_identity::authority::Authority) and builds without gRPC.

pub mod ca_client;
pub mod channel;
