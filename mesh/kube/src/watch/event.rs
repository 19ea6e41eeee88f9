//! What is watched, and what is said of it.

use crate::raw::Meta;
use crate::resource::Resource;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Query {
    /// The kind.
    pub resource: Resource,
    /// Of this namespace only.
    pub namespace: Option<String>,
    /// For example `spec.nodeName=n1`; empty for all.
    pub fields: String,
    /// For example `app=web,tier!=test`; empty for all.
    pub labels: String,
}

impl Query {
    /// All objects of a kind.
    pub fn all(resource: Resource) -> Self {
        Self { resource, namespace: None, fields: String::new(), labels: String::new() }
    }
}

/// What a watch says. `T` is what the objects were read as.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<T> {
    /// These are all that there are. What a watch begins with, and begins again with when it has missed something.
    All(Vec<T>),
    /// It is new, or different.
    Apply(T),
    /// It is gone.
    Delete(Meta),
}
