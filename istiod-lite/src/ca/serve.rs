//! Istio's certificate service.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_control::ca_client::service::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use mesh_control::ca_client::{IstioCertificateRequest, IstioCertificateResponse, requested_identity};
use mesh_model::address::NamespacedName;
use mesh_runtime::timestamp::Timestamp;
use tonic::{Request, Response, Status};

use super::authorize::authorize;
use super::material::Current;
use super::metrics::CaMetrics;
use super::sign::{Lifetimes, SignError, Signed};
use crate::serve::connections::ConnectionInfo;
use crate::serve::gate::{Admitted, Known, known, refused};

/// Largest request read, in bytes.
const MAX_REQUEST: usize = 64 << 10;

/// Signs for those who may ask.
pub struct CertificateAuthority {
    /// What is signed with.
    pub material: Current,
    /// What runs where.
    pub cluster: Known,
    /// Of every identity.
    pub trust_domain: Arc<str>,
    /// Service accounts of node proxies.
    pub trusted: Vec<NamespacedName>,
    /// Of certificates.
    pub lifetimes: Lifetimes,
    /// What it counts.
    pub metrics: CaMetrics,
}

impl CertificateAuthority {
    /// The gRPC service.
    pub fn into_service(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateAuthority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let from = request.extensions().get().map(ConnectionInfo::from);
        // Who was not let in does not come this far.
        let Admitted(caller) = request.extensions().get().cloned().ok_or_else(refused)?;
        self.metrics.requests.inc();
        let request = request.into_inner();
        let cluster = known(&self.cluster).await?;
        let asked = requested_identity(&request);
        let id = authorize(&cluster, &self.trust_domain, &self.trusted, &caller, asked).map_err(|reason| {
            tracing::warn!(?from, caller = %caller.account, %reason, "certificate refused");
            self.metrics.not_allowed.inc();
            refused()
        })?;
        // A node proxy vouches for the pods of its node; the others are proven by their token, for as long as it lasts.
        let until = asked.is_none().then_some(caller.expires);
        let (seconds, now) = (request.validity_duration, SystemTime::now());
        let material = self.material.borrow().clone();
        let signed = material.sign(&request.csr, &id, seconds, until, self.lifetimes, now);
        let Signed { chain, serial, not_after } = signed.map_err(|reason| {
            tracing::warn!(?from, caller = %caller.account, %id, %reason, "certificate not signed");
            let counter = match reason {
                SignError::Csr(_) | SignError::Signature | SignError::Key(_) => &self.metrics.malformed,
                _ => &self.metrics.not_signed,
            };
            counter.inc();
            Status::invalid_argument(reason.to_string())
        })?;
        let expires = format!("{:.0}", Timestamp::from(not_after));
        tracing::info!(?from, caller = %caller.account, %id, serial, expires, "certificate issued");
        self.metrics.signed.inc();
        Ok(Response::new(IstioCertificateResponse { cert_chain: chain }))
    }
}
