//! For tests only: a CA, a scripted control plane, echo servers.
