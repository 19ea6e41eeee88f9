//! Generates both ends of the signing service over `mesh-proto`'s messages.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../../proto/certificate.proto");
    let descriptors = protox::compile(["certificate.proto"], ["../../proto"])?;
    tonic_prost_build::configure()
        .extern_path(".istio.v1.auth", "::mesh_proto::certificate")
        .compile_fds(descriptors)?;
    Ok(())
}
