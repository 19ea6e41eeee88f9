//! A kit to run real meshes in tests. The promises themselves are in `tests/`, one file each.
//!
//! A test starts `ambit up` on a folder of YAML of its own, lets real programs talk inside the pods, edits the YAML,
//! kills programs, and looks at wires, logs and metrics. Nothing is mocked. The test binary is the `ambit` command
//! too (see [`harness::main`]), or set `AMBIT_EXE` to the one to test, for example a release build.
//!
//! | module | question |
//! |---|---|
//! | [`harness`] | which trials are there, which mesh do they share, what is told when one fails? |
//! | [`mesh`] | a running mesh: begin here |
//! | [`folder`] | the user's YAML, edited while the mesh runs |
//! | [`yaml`] | pods, services and namespaces in few words |
//! | [`cluster`] | a real Kubernetes cluster |
//! | [`command`] | running `ambit` and waiting no longer than agreed |
//! | [`traffic`] | requests at a steady pace in the background |
//! | [`gateway`] | the gateway of another network, as a pod |
//! | [`observe`] | metrics and state of a node's ztunnel |
//! | [`process`] | the mesh's processes, as the machine outside sees them |
//! | [`soak`] | everything at once, for a while: what is left of it? |
//! | [`upstream`] | a mesh whose control plane is upstream's istiod |
//! | [`until`] | waiting for an effect instead of sleeping |
pub mod cluster;
pub mod command;
pub mod folder;
pub mod gateway;
pub mod harness;
pub mod mesh;
pub mod observe;
pub mod process;
pub mod soak;
pub mod traffic;
pub mod until;
pub mod upstream;
pub mod yaml;

pub use command::Output;
pub use harness::{Suite, skip};
pub use mesh::Mesh;
