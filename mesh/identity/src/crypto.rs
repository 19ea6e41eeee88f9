//! The cryptography of the mesh: which suites, key exchanges and signatures there are.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};

/// AES-GCM only; every machine of a mesh has it in hardware.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::cipher_suite as suite;
    let cipher_suites = vec![
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
});

static POST_QUANTUM: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(CryptoProvider { kx_groups, ..(**PROVIDER).clone() })
});

/// Signatures that are understood, whichever the provider.
pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    PROVIDER.signature_verification_algorithms
}

/// The cryptography of the mesh; with `post_quantum` keys are exchanged only by X25519MLKEM768. Shared: a provider is large.
pub(crate) fn provider(post_quantum: bool) -> Arc<CryptoProvider> {
    if post_quantum { POST_QUANTUM.clone() } else { PROVIDER.clone() }
}
