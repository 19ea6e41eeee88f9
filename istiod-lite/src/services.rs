//! The two gRPC services on one port, told apart by path.

use std::convert::Infallible;
use std::task::{Context, Poll};

use mesh_identity::ca_client::service::istio_certificate_service_server::IstioCertificateServiceServer;
use mesh_xds::server::Discovery;
use mesh_xds::service::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

use crate::ca::serve::CertificateAuthority;

type Certificates = IstioCertificateServiceServer<CertificateAuthority>;
type Resources = AggregatedDiscoveryServiceServer<Discovery>;

/// Discovery and certificates. (tonic's own router would bring a whole web framework for two paths.)
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) certificates: Certificates,
    pub(crate) resources: Resources,
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().trim_start_matches('/').split('/').next() {
            Some(<Certificates as NamedService>::NAME) => self.certificates.call(request),
            Some(<Resources as NamedService>::NAME) => self.resources.call(request),
            _ => Box::pin(async { Ok(Status::unimplemented("no such service").into_http()) }),
        }
    }
}
