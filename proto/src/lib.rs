//! The messages on the wire, nothing else: Istio's and Envoy's packages, field numbers and type URLs,
//! under short names, and a few messages of our own. No gRPC here: the two services are generated where they are spoken, ADS in
//! `mesh-xds` and signing in `mesh-identity`.
//!
//! | module | package | spoken between |
//! |---|---|---|
//! | [`workload`] | `istio.workload` | control plane → proxies |
//! | [`policy`] | `istio.security` | control plane → proxies |
//! | [`discovery`] | `envoy.service.discovery.v3` | control plane ↔ proxies |
//! | [`certificate`] | `istio.v1.auth` | proxies → CA |
//! | [`ext_authz`] | `envoy.service.auth.v3` | waypoints → authorizers of users |
//! | [`rate_limit`] | `envoy.service.ratelimit.v3` | waypoints → rate limit services of users |
//! | [`handoff`] | `istio.workload.zds` | node agent ↔ ztunnel |
//! | [`ambit`] | `ambit.v1` | control plane → proxies, within [`workload`] and [`policy`], where others skip it; routes → waypoints |
//! | [`otlp`] | of OpenTelemetry's packages | waypoints → collectors of spans |
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated from the .proto files, which carry the documentation"
)]

// The generated code of one package refers to another by `super`: the nesting below mirrors the packages.
mod generated {
    pub mod istio {
        pub mod workload {
            include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));
            pub mod zds {
                include!(concat!(env!("OUT_DIR"), "/istio.workload.zds.rs"));
            }
        }
        pub mod security {
            include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
        }
        pub mod auth {
            include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
        }
    }
    pub mod ambit {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/ambit.v1.rs"));
        }
    }
    pub mod ext_authz {
        include!(concat!(env!("OUT_DIR"), "/envoy.service.auth.v3.rs"));
    }
    pub mod rate_limit {
        include!(concat!(env!("OUT_DIR"), "/envoy.service.ratelimit.v3.rs"));
    }
    pub mod otlp {
        include!(concat!(env!("OUT_DIR"), "/opentelemetry.rs"));
    }
    pub mod envoy {
        include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
    }
}

pub use generated::ambit::v1 as ambit;
pub use generated::envoy as discovery;
pub use generated::ext_authz;
pub use generated::istio::auth as certificate;
pub use generated::istio::security as policy;
pub use generated::istio::workload;
pub use generated::istio::workload::zds as handoff;
pub use generated::otlp;
pub use generated::rate_limit;
/// What an extension holds, a length of time, and a moment.
pub use prost_types::{Any, Duration, Timestamp};
