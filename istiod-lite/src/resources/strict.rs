//! Reads a value as a type, and refuses every field that the type does not have.
//!
//! Serde's way skips such fields, and so do the types of `k8s-openapi`: a typing mistake would make an object say
//! less than its author wrote. The types say which fields they have when they are read, so none has to be listed here.

use std::cell::RefCell;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value, json};

use super::field::{FieldError, FieldPath, Segment};
use mesh_runtime::nearest::nearest;

/// A list of names longer than this helps nobody.
const MOST_NAMES: usize = 12;

/// Reads `value`.
///
/// # Errors
/// Names the first field that the type does not have, with what was probably meant; else the first value that does not
/// fit.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    let notes = Notes::default();
    let read = T::deserialize(Reader { value, at: Trail::Root, notes: &notes });
    if let Some(unknown) = notes.unknown.take().into_iter().next() {
        return Err(explain::<T>(value, &unknown));
    }
    read.map_err(|error| notes.failed.take().unwrap_or_default().error(error.to_string()))
}

/// What is met on the way.
#[derive(Default)]
struct Notes {
    unknown: RefCell<Vec<Unknown>>,
    /// Where the first value is that does not fit.
    failed: RefCell<Option<FieldPath>>,
    /// Every structure and its fields: noted only when something has to be explained.
    structures: Option<RefCell<Vec<(FieldPath, Fields)>>>,
}

type Fields = &'static [&'static str];

/// A field that its structure does not have.
struct Unknown {
    path: FieldPath,
    name: String,
    siblings: Fields,
}

/// The way from the object to the value that is being read. On the stack: nothing is allocated while all is well.
#[derive(Clone, Copy)]
enum Trail<'a> {
    Root,
    Field(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    fn path(&self) -> FieldPath {
        match self {
            Self::Root => FieldPath::default(),
            Self::Field(above, name) => above.path().field(name),
            Self::Index(above, index) => above.path().index(*index),
        }
    }
}

/// Says what was probably meant.
fn explain<T: DeserializeOwned>(value: &Value, unknown: &Unknown) -> FieldError {
    let Unknown { path, name, siblings } = unknown;
    let say = |meant: String| path.error(format!("unknown field `{name}`: {meant}"));
    if let Some(near) = nearest(name, siblings.iter().copied()) {
        return say(format!("did you mean `{near}`?"));
    }
    let above = FieldPath(path.0[..path.0.len() - 1].to_vec());
    let enclosing = structures::<T>(value).into_iter().filter(|(at, _)| above.0.starts_with(&at.0));
    // An object whose `spec` is empty never shows the fields of it: asked with one that is there.
    let below = structures::<T>(&json!({"metadata": {}, "spec": {}})).into_iter().filter(|(at, _)| {
        above.0.is_empty() && matches!(&at.0[..], [Segment::Field(part)] if part == "spec" || part == "metadata")
    });
    let home = enclosing.chain(below).find(|(_, fields)| fields.contains(&name.as_str()));
    if let Some((home, _)) = home {
        let place = home.field(name);
        return say(format!("it belongs to `{place}`; is it indented as it should be?"));
    }
    if siblings.len() <= MOST_NAMES {
        return say(format!("there are {}", siblings.join(", ")));
    }
    let owner = if above.0.is_empty() { "the object".to_owned() } else { format!("`{above}`") };
    say(format!("{owner} has no such field"))
}

/// The structures that are met while a value is read, and their fields.
fn structures<T: DeserializeOwned>(value: &Value) -> Vec<(FieldPath, Fields)> {
    let notes = Notes { structures: Some(RefCell::default()), ..Notes::default() };
    // Whether it fits is not the question.
    let _ = T::deserialize(Reader { value, at: Trail::Root, notes: &notes });
    notes.structures.map(RefCell::into_inner).unwrap_or_default()
}

/// Reads one value.
struct Reader<'a, 'de> {
    value: &'de Value,
    at: Trail<'a>,
    notes: &'a Notes,
}

impl<'de> Deserializer<'de> for Reader<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(items) => {
                visitor.visit_seq(Items { items: items.iter(), next: 0, at: self.at, notes: self.notes })
            }
            Value::Object(fields) => visitor.visit_map(Entries::of(fields, self.at, self.notes)),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: Fields,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(fields) => {
                if let Some(structures) = &self.notes.structures {
                    structures.borrow_mut().push((self.at.path(), known));
                }
                for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
                    let path = self.at.path().field(name);
                    let unknown = Unknown { path, name: name.clone(), siblings: known };
                    self.notes.unknown.borrow_mut().push(unknown);
                }
                visitor.visit_map(Entries::of(fields, self.at, self.notes))
            }
            // Derived types would take a list for their fields in order.
            Value::Array(_) => Err(Error::custom("a list, where fields with names are expected")),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// The items of a list.
struct Items<'a, 'de> {
    items: std::slice::Iter<'de, Value>,
    next: usize,
    at: Trail<'a>,
    notes: &'a Notes,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let at = Trail::Index(&self.at, self.next);
        self.next += 1;
        below(seed, value, at, self.notes).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The fields of a structure, or the entries of a map.
struct Entries<'a, 'de> {
    fields: serde_json::map::Iter<'de>,
    value: Option<(&'de String, &'de Value)>,
    at: Trail<'a>,
    notes: &'a Notes,
}

impl<'a, 'de> Entries<'a, 'de> {
    fn of(fields: &'de Map<String, Value>, at: Trail<'a>, notes: &'a Notes) -> Self {
        Self { fields: fields.iter(), value: None, at, notes }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some((name, value));
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.value.take() else { return Err(Error::custom("a value before its key")) };
        below(seed, value, Trail::Field(&self.at, name), self.notes)
    }
}

/// Reads what is below; notes where, if it does not fit.
fn below<'de, S: DeserializeSeed<'de>>(
    seed: S,
    value: &'de Value,
    at: Trail<'_>,
    notes: &Notes,
) -> Result<S::Value, Error> {
    seed.deserialize(Reader { value, at, notes }).inspect_err(|_| {
        notes.failed.borrow_mut().get_or_insert_with(|| at.path());
    })
}

#[cfg(test)]
mod tests;
