//! Reads an object, and checks it.

use std::sync::Arc;

use super::field::{FieldError, FieldPath};
use super::kind::Kind;
use super::object::Object;
use super::{defaults, gateway_api, strict, validate};

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct InvalidObject {
    /// The field.
    pub path: FieldPath,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

impl From<FieldError> for InvalidObject {
    fn from(e: FieldError) -> Self {
        Self { path: e.path, message: e.message }
    }
}

impl Object {
    /// Reads an object of a kind, and checks it as the API server would.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn from_value(kind: Kind, value: &serde_json::Value) -> Result<Self, InvalidObject> {
        fn typed<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Result<Arc<T>, FieldError> {
            strict::read(value).map(Arc::new)
        }
        let object = match kind {
            Kind::Namespace => Self::Namespace(typed(value)?),
            Kind::Node => Self::Node(typed(value)?),
            Kind::ServiceAccount => Self::ServiceAccount(typed(value)?),
            Kind::Pod => {
                let mut pod = typed(value)?;
                defaults::pod(Arc::make_mut(&mut pod));
                Self::Pod(pod)
            }
            Kind::Service => Self::Service(typed(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(typed(value)?),
            Kind::Endpoints => Self::Endpoints(typed(value)?),
            Kind::AuthorizationPolicy => Self::AuthorizationPolicy(typed(value)?),
            Kind::PeerAuthentication => Self::PeerAuthentication(typed(value)?),
            Kind::RequestAuthentication => Self::RequestAuthentication(typed(value)?),
            Kind::GatewayClass => Self::GatewayClass(typed(value)?),
            Kind::Gateway => Self::Gateway(typed(value)?),
            Kind::HttpRoute => Self::HttpRoute(typed(value)?),
            Kind::GrpcRoute => Self::GrpcRoute(typed(value)?),
            Kind::TcpRoute => Self::TcpRoute(typed(value)?),
            Kind::TlsRoute => Self::TlsRoute(typed(value)?),
            Kind::ServiceEntry => Self::ServiceEntry(typed(value)?),
            Kind::WorkloadEntry => Self::WorkloadEntry(typed(value)?),
            Kind::DestinationRule => Self::DestinationRule(typed(value)?),
            Kind::VirtualService => Self::VirtualService(typed(value)?),
            Kind::Telemetry => Self::Telemetry(typed(value)?),
            Kind::TrafficPolicy => Self::TrafficPolicy(typed(value)?),
            Kind::ConfigMap => Self::ConfigMap(typed(value)?),
        };
        validate::object(&object)?;
        Ok(object)
    }

    /// Reads an object as an API server keeps it, and checks it. Of Kubernetes' own kinds the server has refused what is
    /// misspelt, and a newer one has fields that we do not know: those are skipped. The definitions of other kinds are
    /// whoever's who installed them: those are read as strictly as a file.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn from_server(kind: Kind, text: &str) -> Result<Self, InvalidObject> {
        fn typed<T: serde::de::DeserializeOwned>(text: &str) -> Result<Arc<T>, FieldError> {
            serde_json::from_str(text).map(Arc::new).map_err(|e| FieldPath::default().error(e.to_string()))
        }
        let object = match kind {
            Kind::Namespace => Self::Namespace(typed(text)?),
            Kind::Node => Self::Node(typed(text)?),
            Kind::ServiceAccount => Self::ServiceAccount(typed(text)?),
            Kind::Pod => Self::Pod(typed(text)?),
            Kind::Service => Self::Service(typed(text)?),
            Kind::EndpointSlice => Self::EndpointSlice(typed(text)?),
            Kind::Endpoints => Self::Endpoints(typed(text)?),
            Kind::ConfigMap => Self::ConfigMap(typed(text)?),
            Kind::AuthorizationPolicy
            | Kind::PeerAuthentication
            | Kind::RequestAuthentication
            | Kind::GatewayClass
            | Kind::Gateway
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::TlsRoute
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::DestinationRule
            | Kind::VirtualService
            | Kind::Telemetry
            | Kind::TrafficPolicy => {
                let mut value = serde_json::from_str(text).map_err(|e| FieldPath::default().error(e.to_string()))?;
                gateway_api::reduce_foreign(kind, &mut value);
                return Self::from_value(kind, &value);
            }
        };
        validate::object(&object)?;
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_newer_api_server_are_skipped_and_those_of_other_definitions_are_not() {
        let text = |spec: &str| format!(r#"{{"metadata": {{"name": "a", "namespace": "n"}}, "spec": {spec}}}"#);
        let pod = text(r#"{"containers": [{"name": "c", "newer": {"a": [1]}}], "newer": 1}"#);
        assert!(Object::from_server(Kind::Pod, &pod).is_ok());
        let policy = text(r#"{"action": "DENY", "newer": 1}"#);
        let error = Object::from_server(Kind::AuthorizationPolicy, &policy).unwrap_err();
        assert!(error.to_string().starts_with("spec.newer: unknown field"), "{error}");
        // What is read is checked all the same.
        let service = text(r#"{"ports": [{"port": 0}]}"#);
        let error = Object::from_server(Kind::Service, &service).unwrap_err();
        assert_eq!(error.to_string(), "spec.ports[0].port: 0 is not a port: write 1 to 65535");
        assert!(Object::from_server(Kind::Node, "{").is_err());
    }
}
