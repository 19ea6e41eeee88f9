//! A place inside an object, as users write it: `spec.rules[0].from[1].source.ipBlocks[0]`.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A field's name.
    Field(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// A place inside an object; empty is the object itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct FieldPath(pub Vec<Segment>);

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// Where.
    pub path: FieldPath,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl FieldPath {
    /// From a dotted path without indices.
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|s| Segment::Field(s.to_owned())).collect())
    }

    /// This path and a field below it.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Field(name.to_owned()));
        path
    }

    /// This path and an item below it.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Index(index));
        path
    }

    /// An error at this place.
    pub fn error(&self, message: impl Into<String>) -> FieldError {
        FieldError { path: self.clone(), message: message.into() }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if i == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
