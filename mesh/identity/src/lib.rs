//! Certificates for the identities we hold, and the TLS that checks SPIFFE names.
