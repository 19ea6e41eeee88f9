//! Edits of headers: checked once, applied to each request or answer.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::HeaderEdit;

/// One filter's edits.
#[derive(Clone, Debug, Default)]
pub(super) struct Edit {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    /// Of requests: `Host` is the authority's, and so no header.
    pub(super) host: Option<Arc<str>>,
}

impl Edit {
    /// Of a request.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn of_request(edit: &HeaderEdit) -> Result<Self, String> {
        let is_host = |(name, _): &&(Arc<str>, Arc<str>)| &**name == "host";
        let host = edit.set.iter().chain(&edit.add).find(is_host).map(|(_, value)| value.clone());
        Ok(Self { host, ..Self::new(edit)? })
    }

    /// Of an answer.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn of_answer(edit: &HeaderEdit) -> Result<Self, String> {
        Self::new(edit)
    }

    fn new(edit: &HeaderEdit) -> Result<Self, String> {
        let pairs = |list: &[(Arc<str>, Arc<str>)]| {
            let pair = |(name, text): &(Arc<str>, Arc<str>)| Ok((self::name(name)?, value(name, text)?));
            list.iter().filter(|(name, _)| &**name != "host").map(pair).collect::<Result<_, String>>()
        };
        let removed = edit.remove.iter().filter(|name| &***name != "host").map(|text| name(text));
        Ok(Self {
            remove: removed.collect::<Result<_, _>>()?,
            set: pairs(&edit.set)?,
            add: pairs(&edit.add)?,
            host: None,
        })
    }

    /// Takes away, sets, adds: in this order, as Envoy does.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

fn name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is no name of a header"))?;
    match name {
        header::CONNECTION
        | header::CONTENT_LENGTH
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE => Err(format!("header {name} is the connection's: no route can edit it")),
        name if matches!(name.as_str(), "keep-alive" | "proxy-connection") => {
            Err(format!("header {name} is the connection's: no route can edit it"))
        }
        name => Ok(name),
    }
}

fn value(name: &str, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("{text:?} is no value of header {name}"))
}
