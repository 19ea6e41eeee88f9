//! The control plane: reads Kubernetes or a folder of YAML, serves tables and certificates.
