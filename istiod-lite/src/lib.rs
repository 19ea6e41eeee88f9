//! The control plane: reads Kubernetes objects, tells proxies what follows from them, and signs their certificates.
//!
//! ```text
//! source ──▶ cluster ──▶ translate ──▶ publish ──▶ proxies (discovery)
//! (YAML)     (objects)   (model)          │
//!                          └──▶ status    └──▶ ca: who may ask for which identity
//!    changes ─────────────▶ what differs ─▶ what differs
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`resources`] | the Kubernetes kinds we read, as types, and what is refused in them |
//! | [`mode`] | a whole mesh, or waypoints alone: what is ours to do (pure) |
//! | [`cluster`] | what Kubernetes says now, by kind; who names whom, and what depends on what (pure) |
//! | [`source`] | where objects come from: changes, and what is rejected. A folder of YAML, or an API server |
//! | [`jwks`] | the keys that tokens are checked with, fetched from where RequestAuthentications say: a source around the source |
//! | [`translate`] | cluster → model, one file per kind, and what differs of it after a change (pure) |
//! | [`publish`] | what changed since last time, as resources |
//! | [`held`] | what of it the tables of every proxy hold |
//! | [`status`] | tells the user what was accepted, and why not |
//! | [`deploy`] | runs waypoints on a cluster |
//! | [`untaint`] | takes the taint of nodes that wait for their node agent |
//! | [`leader`] | of several replicas, which one writes |
//! | [`ca`] | the certificate authority: signs, and decides for whom |
//! | [`serve`], `services` | TLS, and who may subscribe; the two services on one port |
//! | [`admission`] | refuses what is wrong where it is written: the API server's webhook |
//! | [`metrics`] | what is measured |
//! | `debug` | what can be asked on localhost |
//! | [`config`], [`app`] | what was set; the wiring |
//!
//! Each line uses only the lines above it. Begin with [`translate::translate()`] to see what it is all for, and with
//! [`source`] to see where it comes from.

pub mod admission;
pub mod app;
pub mod ca;
pub mod cluster;
pub mod config;
mod debug;
pub mod deploy;
pub mod held;
pub mod jwks;
pub mod leader;
pub mod metrics;
pub mod mode;
pub mod publish;
pub mod resources;
pub mod serve;
mod services;
pub mod source;
pub mod status;
pub mod translate;
pub mod untaint;

pub use app::{main, run};
pub use config::Config;
