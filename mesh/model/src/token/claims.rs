//! What a valid token has proven.

use std::sync::Arc;

use serde_json::{Map, Value};

/// Claims that are lists in every token, whose items spaces part (RFC 8693 4.2; Istio adds the second).
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// What a valid token has proven: its claims, as policies compare them.
#[derive(Clone, Debug, PartialEq)]
pub struct Token(Map<String, Value>);

impl Token {
    /// Of claims that were verified. `space_delimited` names claims beside `scope` and `permission` that are lists.
    pub fn new(mut claims: Map<String, Value>, space_delimited: &[Arc<str>]) -> Self {
        for name in SPACE_DELIMITED.into_iter().chain(space_delimited.iter().map(|name| &**name)) {
            if let Some(Value::String(text)) = claims.get(name) {
                let items = text.split(' ').filter(|item| !item.is_empty());
                let items = items.map(|item| Value::String(item.to_owned())).collect();
                claims.insert(name.to_owned(), Value::Array(items));
            }
        }
        Self(claims)
    }

    /// The claim at a path.
    pub fn claim(&self, path: &[Arc<str>]) -> Option<&Value> {
        at(&self.0, path)
    }

    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// `iss/sub`, as logs show who asks.
    pub fn principal(&self) -> String {
        format!("{}/{}", self.text("iss").unwrap_or_default(), self.text("sub").unwrap_or_default())
    }
}

/// The value at a path; none where it leads through something that is no object.
pub(super) fn at<'a>(claims: &'a Map<String, Value>, path: &[Arc<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(&**first)?, |value, name| value.as_object()?.get(&**name))
}
