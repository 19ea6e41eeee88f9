//! What a source cannot use of what there is, for whoever wrote it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::resources::Key;
use crate::resources::unread::Unread;

/// An object that is wrong, and where; wherever it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Where it was said.
    #[serde(flatten)]
    pub origin: Origin,
    /// The object's kind, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The object's namespace, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The field, for example `spec.rules[0].from[0].source.ipBlocks[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// True: an earlier version of the object is still served.
    pub last_good_kept: bool,
}

/// Where an object was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// In a file.
    File {
        /// The file.
        file: PathBuf,
        /// From 1; 0 when it is the file as a whole.
        line: usize,
        /// From 1; 0 when it is the file as a whole.
        column: usize,
    },
    /// At an API server.
    #[serde(rename_all = "camelCase")]
    Cluster {
        /// The state of the object.
        resource_version: String,
        /// Counts what its author wrote; 0 where the kind does not count.
        generation: i64,
    },
}

/// An object that is not read. Only in files: a watch asks for kinds that are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// Its `apiVersion` and `kind`.
    pub kind: String,
    /// Its name, when it has one.
    pub name: Option<String>,
    /// Why not.
    pub what: Unread,
}

impl Skipped {
    /// What it means for who wrote it.
    pub fn meaning(&self) -> String {
        self.what.meaning(&self.kind)
    }
}

impl Rejected {
    /// Something about a file as a whole.
    pub fn file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            origin: Origin::File { file: file.to_owned(), line: 0, column: 0 },
            kind: None,
            namespace: None,
            name: None,
            field: None,
            message: message.into(),
            last_good_kept: false,
        }
    }

    /// What is wrong and where in the object, in the words of every place that says it: conditions, events, refusals of the admission
    /// webhook.
    pub fn sentence(&self) -> String {
        match self.field.as_deref().filter(|field| !field.is_empty()) {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// Something about an object of a file that itself is well formed.
    pub(crate) fn object(file: &Path, line: usize, key: &Key, message: impl Into<String>) -> Self {
        Self {
            origin: Origin::File { file: file.to_owned(), line, column: 1 },
            kind: Some(key.kind.as_str().to_owned()),
            namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
            name: Some(key.name.to_string()),
            ..Self::file(file, message)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: 0, .. } => write!(f, "{}", file.display()),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Cluster { resource_version, generation: 0 } => {
                write!(f, "cluster, resourceVersion {resource_version}")
            }
            Self::Cluster { generation, .. } => write!(f, "cluster, generation {generation}"),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.origin)?;
        if let Some(kind) = &self.kind {
            write!(f, " {kind}")?;
        }
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}:")?,
            (None, Some(name)) => write!(f, " {name}:")?,
            _ if self.kind.is_some() => write!(f, ":")?,
            _ => {}
        }
        write!(f, " {}", self.sentence())
    }
}

impl std::error::Error for Rejected {}
