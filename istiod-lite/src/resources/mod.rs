//! The Kubernetes kinds we read, as types.
//!
//! Core kinds are `k8s-openapi`'s. Istio's are our own ([`authorization_policy`], [`peer_authentication`], [`request_authentication`],
//! [`service_entry`], [`workload_entry`], [`destination_rule`], [`virtual_service`], [`telemetry`]), its mesh configuration ([`mesh_config`]), and so are the Gateway API's ([`gateway_api`]) and the one that is ours ([`traffic_policy`]). What
//! people set of how waypoints run is a ConfigMap as well ([`waypoint_parameters`]). All are read by `strict`, which refuses a
//! field that the kind does not have: a typing mistake must never make an object say less than its author wrote. `life` says where a pod
//! is in its life.

pub mod authorization_policy;
mod defaults;
pub mod destination_rule;
pub mod field;
pub mod gateway_api;
pub mod host;
pub mod key_source;
mod kind;
pub mod labels;
pub(crate) mod life;
pub mod mesh_config;
mod object;
pub mod peer_authentication;
mod read;
mod recognize;
pub mod request_authentication;
pub mod service_entry;
mod strict;
pub mod telemetry;
pub mod traffic_policy;
pub mod unread;
mod validate;
pub mod virtual_service;
pub mod waypoint_parameters;
pub mod workload_entry;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use field::{FieldError, FieldPath};
pub use gateway_api::{Gateway, GatewayClass, GrpcRoute, HttpRoute, TcpRoute, TlsRoute};
pub use key_source::KeySource;
pub use kind::{Key, Kind};
pub use mesh_config::MeshConfig;
pub use object::Object;
pub use peer_authentication::PeerAuthentication;
pub use read::InvalidObject;
pub use recognize::Recognized;
pub use request_authentication::RequestAuthentication;
pub use service_entry::ServiceEntry;
pub use telemetry::Telemetry;
pub use traffic_policy::TrafficPolicy;
pub use virtual_service::VirtualService;
pub use workload_entry::WorkloadEntry;
