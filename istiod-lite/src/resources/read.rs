//! Reads an object, and checks it.

use std::sync::Arc;

use super::field::{FieldError, FieldPath};
use super::kind::Kind;
use super::object::Object;
use super::{defaults, strict, validate};

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
        };
        validate::object(&object)?;
        Ok(object)
    }
}
