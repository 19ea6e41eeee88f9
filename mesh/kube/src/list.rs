//! What there is of a kind now, for who asks once.

use std::fmt::Write as _;

use http::Request;
use kube::{Client, Error};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::watch::Query;
use crate::write::{WriteError, causes};

/// Objects in a page.
const PAGE: usize = 500;

/// All objects that the query is about, page by page; of a kind that is not installed, none. Those that are not of the form
/// `T` are left out.
///
/// # Errors
/// When they are not ours to read, or nobody answers.
pub async fn list<T: DeserializeOwned>(client: &Client, query: &Query) -> Result<Vec<T>, WriteError> {
    for version in query.resource.versions {
        match pages(client, query, version).await {
            Err(error) if error.is_not_found() => {}
            answer => return answer,
        }
    }
    Ok(Vec::new())
}

async fn pages<T: DeserializeOwned>(client: &Client, query: &Query, version: &str) -> Result<Vec<T>, WriteError> {
    #[derive(Deserialize)]
    struct List {
        metadata: Metadata,
        // Null where there are none.
        items: Option<Vec<serde_json::Value>>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "continue", default)]
        next: String,
    }
    let mut all = Vec::new();
    let mut next = String::new();
    loop {
        let mut uri = format!("{}?limit={PAGE}", query.resource.path(version, query.namespace.as_deref()));
        for (name, value) in [("fieldSelector", &query.fields), ("labelSelector", &query.labels), ("continue", &next)] {
            if !value.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(uri, "&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        let request = Request::get(&uri).body(Vec::new()).map_err(|e| WriteError::Broken(format!("{uri}: {e}")))?;
        let text = client.request_text(request).await.map_err(|error| match error {
            Error::Api(status) => WriteError::Refused { code: status.code, message: status.message },
            other => WriteError::Broken(causes(&other)),
        })?;
        let page: List = serde_json::from_str(&text)
            .map_err(|e| WriteError::Broken(format!("{uri}: the answer cannot be read: {e}")))?;
        all.extend(page.items.into_iter().flatten().filter_map(|item| serde_json::from_value(item).ok()));
        if page.metadata.next.is_empty() {
            return Ok(all);
        }
        next = page.metadata.next;
    }
}
