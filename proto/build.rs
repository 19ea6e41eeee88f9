//! Generates the message types with a pure-Rust protobuf compiler, so a fresh machine needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "workload.proto",
        "policy.proto",
        "discovery.proto",
        "certificate.proto",
        "handoff.proto",
        "ambit.proto",
        "waypoint.proto",
        "ext_authz.proto",
        "rate_limit.proto",
        "otlp.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    prost_build::Config::new()
        // A table of 100,000 workloads decodes into many maps; ordered maps encode the same bytes every time,
        // which is what resource versions are computed from.
        .btree_map(["."])
        // Wire bytes are shared with the receive buffer instead of being copied.
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
