//! One of what is counted at a port of a service.

use std::sync::Arc;

use super::circuit::Limit;
use super::service_port::ServicePort;

/// One of what is counted, for as long as it lives.
///
/// Requests and retries without a limit are not counted: each would write twice to memory that all threads share.
pub(crate) struct Permit {
    port: Option<Arc<ServicePort>>,
    limit: Limit,
}

impl Permit {
    /// One more; `None` where there are as many as there may be.
    pub(super) fn take(port: &Arc<ServicePort>, limit: Limit, most: Option<u32>) -> Option<Self> {
        if most.is_none() && matches!(limit, Limit::Requests | Limit::Retries) {
            return Some(Self { port: None, limit });
        }
        port.circuit.take(limit, most).then(|| Self { port: Some(port.clone()), limit })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(port) = &self.port {
            port.circuit.give_back(self.limit);
        }
    }
}
