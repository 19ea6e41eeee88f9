//! The two gRPC services on one port, told apart by path. Nothing of a call but its headers is read before they say who
//! is calling.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_control::ca_client::service::istio_certificate_service_server::IstioCertificateServiceServer;
use mesh_xds::budget::{Budget, Full};
use mesh_xds::server::Discovery;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

use crate::ca::metrics::CaMetrics;
use crate::ca::serve::CertificateAuthority;
use crate::serve::gate::{Admitted, Gate};

/// How long a certificate may take, from the headers of the request to the answer.
const SIGNING: Duration = Duration::from_secs(10);
/// Requests for certificates that are read or signed at one time, of all callers.
const REQUESTS: usize = 1024;
/// And of one: ztunnel has 8 on their way.
const REQUESTS_EACH: usize = 16;

type Certificates = IstioCertificateServiceServer<CertificateAuthority>;

/// Discovery and certificates. (tonic's own router would bring a whole web framework for two paths.)
#[derive(Clone)]
pub(crate) struct Services {
    gate: Gate,
    /// None: somebody else signs.
    certificates: Option<Certificates>,
    resources: Discovery,
    requests: Arc<Budget<String>>,
    metrics: CaMetrics,
}

impl Services {
    pub(crate) fn new(
        gate: Gate,
        certificates: Option<Certificates>,
        resources: Discovery,
        metrics: CaMetrics,
    ) -> Self {
        Self { gate, certificates, resources, requests: Budget::new(REQUESTS, REQUESTS_EACH), metrics }
    }

    async fn answer(mut self, mut request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let path = request.uri().path().trim_start_matches('/');
        let service = path.split('/').next().unwrap_or_default().to_owned();
        let admitted = self.gate.admit(request.headers(), request.extensions().get()).await;
        if admitted.is_err() && service == <Certificates as NamedService>::NAME {
            self.metrics.requests.inc();
            self.metrics.not_allowed.inc();
        }
        let caller = admitted?;
        request.extensions_mut().insert(Admitted(caller.clone()));
        match service.as_str() {
            <Certificates as NamedService>::NAME => {
                let Some(mut certificates) = self.certificates else {
                    let why = "certificates are not signed here: istiod signs them (CA_ADDRESS)";
                    return Err(Status::unimplemented(why));
                };
                let _reserved = self.requests.take(caller.name(), 1).map_err(|full| {
                    tracing::warn!(caller = caller.name(), ?full, "more requests for certificates than there may be");
                    Status::resource_exhausted(match full {
                        Full::Own => format!("{REQUESTS_EACH} requests of this caller wait for certificates already"),
                        Full::All => format!("{REQUESTS} requests wait for certificates already"),
                    })
                })?;
                let late = |_| Status::deadline_exceeded(format!("the request was not complete after {SIGNING:?}"));
                let Ok(answer) = tokio::time::timeout(SIGNING, certificates.call(request)).await.map_err(late)?;
                Ok(answer)
            }
            <Discovery as NamedService>::NAME => {
                let Ok(answer) = self.resources.call(request).await;
                Ok(answer)
            }
            _ => Err(Status::unimplemented("no such service")),
        }
    }
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let services = self.clone();
        Box::pin(async move { Ok(services.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}
