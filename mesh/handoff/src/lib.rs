//! The node agent gives ztunnel a pod and its network namespace.
