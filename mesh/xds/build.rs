//! Generates both ends of the aggregated discovery service over `mesh-proto`'s messages.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../../proto/discovery.proto");
    let descriptors = protox::compile(["discovery.proto"], ["../../proto"])?;
    tonic_prost_build::configure()
        .extern_path(".envoy.service.discovery.v3", "::mesh_proto::discovery")
        .compile_fds(descriptors)?;
    Ok(())
}
