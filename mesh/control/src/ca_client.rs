//! Asks the control plane to sign, by Istio's certificate service (Istio ambient contract, section 8.1).

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_identity::authority::{Authority, AuthorityError, Signing};
use mesh_model::identity::SpiffeId;
pub use mesh_proto::certificate::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::{Struct, Value, value::Kind};
use tonic::{Code, Status};

use crate::channel::ControlChannel;

/// The service, both ends: the client used here, and the server that a control plane implements.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from certificate.proto, which documents it")]
pub mod service {
    tonic::include_proto!("istio.v1.auth");
}

use service::istio_certificate_service_client::IstioCertificateServiceClient;

/// The key in the request's metadata that names the identity asked for.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
/// The key in the request's metadata that names who is to sign.
pub const CERT_SIGNER: &str = "CertSigner";

/// The CA of the control plane.
#[derive(Clone)]
pub struct CaClient {
    client: IstioCertificateServiceClient<ControlChannel>,
    cert_signer: Option<String>,
    for_itself: bool,
}

impl CaClient {
    /// Asks over `channel`; `cert_signer` is passed on to the CA where it has several.
    pub fn new(channel: ControlChannel, cert_signer: Option<String>) -> Self {
        Self { client: IstioCertificateServiceClient::new(channel), cert_signer, for_itself: false }
    }

    /// Asks for the identity that its token proves, and for no other: what a CA lets everybody do, and not only node
    /// proxies.
    pub fn for_itself(self) -> Self {
        Self { for_itself: true, ..self }
    }
}

impl Authority for CaClient {
    fn sign<'a>(&'a self, id: &'a SpiffeId, csr_pem: &'a str, lifetime: Duration) -> Signing<'a> {
        let on_behalf = (!self.for_itself).then_some(id);
        let request = request(on_behalf, csr_pem, lifetime, self.cert_signer.as_deref());
        let mut client = self.client.clone();
        Box::pin(async move {
            let answer = client.create_certificate(request).await.map_err(|status| explain(&status, id))?;
            Ok(answer.into_inner().cert_chain)
        })
    }
}

/// The request for one identity: `on_behalf` of another, or one's own.
fn request(
    on_behalf: Option<&SpiffeId>,
    csr_pem: &str,
    lifetime: Duration,
    cert_signer: Option<&str>,
) -> IstioCertificateRequest {
    let text = |text: String| Value { kind: Some(Kind::StringValue(text)) };
    let mut fields: BTreeMap<_, _> =
        on_behalf.iter().map(|id| (IMPERSONATED_IDENTITY.to_owned(), text(id.to_string()))).collect();
    if let Some(signer) = cert_signer {
        fields.insert(CERT_SIGNER.to_owned(), text(signer.to_owned()));
    }
    IstioCertificateRequest {
        csr: csr_pem.to_owned(),
        // A CA takes 0 for its own default, which is not what somebody asked for who wants half a second.
        validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX).max(1),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
    }
}

/// For a CA: the identity a request asks for, when it asks for another than the caller's own.
pub fn requested_identity(request: &IstioCertificateRequest) -> Option<&str> {
    match request.metadata.as_ref()?.fields.get(IMPERSONATED_IDENTITY)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Says what a refusal means; CAs say little, on purpose.
fn explain(status: &Status, id: &SpiffeId) -> AuthorityError {
    let (code, message) = (status.code(), status.message());
    let hint = match code {
        Code::Unauthenticated | Code::PermissionDenied => format!(
            "the CA refused this node a certificate for {id}: either our token is not accepted, or the CA does not \
             know a pod with this service account on this node (for a new pod that passes within moments)"
        ),
        Code::Unavailable => "the CA cannot be reached".to_owned(),
        Code::InvalidArgument => "the CA does not accept the request; is the lifetime beyond its limit?".to_owned(),
        _ => "the CA failed".to_owned(),
    };
    AuthorityError(format!("{hint} ({code:?}: {message})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    /// Trap 50: in a Struct in field 4; the lifetime is field 3.
    #[test]
    fn the_identity_travels_in_the_metadata() {
        let asked = id("spiffe://td/ns/shop/sa/cart");
        let own = request(None, "CSR", Duration::from_secs(90), None);
        assert_eq!(own.metadata.unwrap().fields.len(), 0);
        let plain = request(Some(&asked), "CSR", Duration::from_secs(90), None);
        assert_eq!((plain.csr.as_str(), plain.validity_duration), ("CSR", 90));
        let fields = plain.metadata.unwrap().fields;
        assert_eq!(fields.len(), 1);
        assert_eq!(fields["ImpersonatedIdentity"].kind, Some(Kind::StringValue("spiffe://td/ns/shop/sa/cart".into())));

        let signed = request(Some(&asked), "CSR", Duration::from_millis(1), Some("corp"));
        assert_eq!(signed.validity_duration, 1);
        assert_eq!(signed.metadata.unwrap().fields["CertSigner"].kind, Some(Kind::StringValue("corp".into())));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let error = explain(&Status::unauthenticated("request authenticate failure"), &id("spiffe://td/ns/a/sa/b"));
        let text = error.to_string();
        assert!(text.contains("spiffe://td/ns/a/sa/b") && text.contains("token"), "{text}");
        assert!(text.contains("Unauthenticated: request authenticate failure"), "{text}");
    }
}
