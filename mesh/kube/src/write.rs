//! Objects made and deleted, and parts of them set.

use http::{Method, Request};
use kube::{Client, Error};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::resource::Resource;

/// What the API server did not do.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It refuses, with HTTP's code.
    #[error("the API server refuses ({code}): {message}")]
    Refused {
        /// HTTP's.
        code: u16,
        /// In its words.
        message: String,
    },
    /// It could not be asked, or its answer could not be read.
    #[error("no answer of the API server: {0}")]
    Broken(String),
}

impl WriteError {
    /// There is no such object, or no such kind.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Asked again, it may be done: somebody else was faster, the server is busy, or there is none at the moment.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Refused { code: 409 | 429 | 500.., .. })
    }
}

/// Reads an object.
///
/// # Errors
/// When it is not there, or not ours to read.
pub async fn get<T: DeserializeOwned>(
    client: &Client,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<T, WriteError> {
    send(client, Method::GET, &resource.path_of(namespace, name), "", Vec::new()).await
}

/// Makes an object; one that is there already stays as it is, and that is a conflict. Gives it as the server made it.
///
/// # Errors
/// When it was not made.
pub async fn create<T: DeserializeOwned>(
    client: &Client,
    resource: Resource,
    namespace: &str,
    object: &Value,
) -> Result<T, WriteError> {
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let path = resource.path(resource.versions[0], namespace);
    send(client, Method::POST, &path, "application/json", object.to_string().into_bytes()).await
}

/// Asks whether an object could be made; none is. What the API server asks others about it (admission webhooks) it asks them.
///
/// # Errors
/// When it could not be made.
pub async fn could_create(
    client: &Client,
    resource: Resource,
    namespace: &str,
    object: &Value,
) -> Result<(), WriteError> {
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let path = format!("{}?dryRun=All", resource.path(resource.versions[0], namespace));
    let body = object.to_string().into_bytes();
    send::<serde::de::IgnoredAny>(client, Method::POST, &path, "application/json", body).await.map(drop)
}

/// Sets a part of an object, and owns it from then on (server-side apply). `subresource` is empty, or for example `/status`.
/// `force`: fields that somebody else owns are taken over.
///
/// # Errors
/// When it was not set.
pub async fn apply(
    client: &Client,
    (resource, version): (Resource, &str),
    (namespace, name): (&str, &str),
    subresource: &str,
    object: &Value,
    (manager, force): (&str, bool),
) -> Result<(), WriteError> {
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let manager = utf8_percent_encode(manager, NON_ALPHANUMERIC);
    let path =
        format!("{}/{name}{subresource}?fieldManager={manager}&force={force}", resource.path(version, namespace));
    // JSON is YAML.
    let body = object.to_string().into_bytes();
    send::<serde::de::IgnoredAny>(client, Method::PATCH, &path, "application/apply-patch+yaml", body).await.map(drop)
}

/// Sets a part of an object, whoever else sets it (JSON merge patch): what is `null` is taken away. `subresource` is empty, or
/// for example `/status`. With a `metadata.uid` in it, another object of the same name is a conflict. `manager` is whom
/// `metadata.managedFields` names as who wrote it.
///
/// # Errors
/// When it was not set.
pub async fn merge(
    client: &Client,
    resource: Resource,
    (namespace, name): (&str, &str),
    subresource: &str,
    part: &Value,
    manager: &str,
) -> Result<(), WriteError> {
    let manager = utf8_percent_encode(manager, NON_ALPHANUMERIC);
    let path = format!("{}{subresource}?fieldManager={manager}", resource.path_of(namespace, name));
    let body = part.to_string().into_bytes();
    send::<serde::de::IgnoredAny>(client, Method::PATCH, &path, "application/merge-patch+json", body).await.map(drop)
}

/// Deletes an object.
///
/// # Errors
/// When it is not there, or not ours to delete.
pub async fn delete(client: &Client, resource: Resource, namespace: &str, name: &str) -> Result<(), WriteError> {
    let path = resource.path_of(namespace, name);
    send::<serde::de::IgnoredAny>(client, Method::DELETE, &path, "", Vec::new()).await.map(drop)
}

/// Deletes the object that has this UID; another one of the same name is a conflict.
///
/// # Errors
/// When it is not there, or not ours to delete.
pub async fn delete_one(
    client: &Client,
    resource: Resource,
    (namespace, name): (&str, &str),
    uid: &str,
) -> Result<(), WriteError> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let (path, body) = (resource.path_of(namespace, name), options.to_string().into_bytes());
    send::<serde::de::IgnoredAny>(client, Method::DELETE, &path, "application/json", body).await.map(drop)
}

async fn send<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    content: &str,
    body: Vec<u8>,
) -> Result<T, WriteError> {
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content).body(body);
    let request = request.map_err(|e| WriteError::Broken(format!("{path}: {e}")))?;
    let text = client.request_text(request).await.map_err(|error| match error {
        Error::Api(status) => WriteError::Refused { code: status.code, message: status.message },
        other => WriteError::Broken(causes(&other)),
    })?;
    serde_json::from_str(&text).map_err(|e| WriteError::Broken(format!("{path}: the answer cannot be read: {e}")))
}

/// An error with what caused it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
