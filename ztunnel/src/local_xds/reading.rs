//! The file as a stream: its lists, one entry at a time, and what they mean.

use std::fmt;

use mesh_model::resource::Resource;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Options;

use super::{address, policy};

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// What it means.
    pub resources: Vec<Resource>,
    /// What means nothing.
    pub refused: Vec<Refused>,
}

/// One entry that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry}: {reason}")]
pub struct Refused {
    /// Which: its kind, namespace and name, as far as it has them, or its place in the list.
    pub entry: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Largest file, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 30;

pub(super) fn options() -> Options {
    let mut options = Options::default();
    options.with_snippet = false;
    // A namespace may be called `n`.
    options.strict_booleans = true;
    if let Some(budget) = &mut options.budget {
        // The bytes bound the rest.
        budget.max_reader_input_bytes = Some(MAX_BYTES);
        (budget.max_events, budget.max_nodes, budget.max_total_scalar_bytes) = (usize::MAX, usize::MAX, usize::MAX);
    }
    options
}

/// What was read so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) local: Local,
    /// The first policy that was refused.
    pub(super) policy: Option<Refused>,
}

/// The lists that a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Workloads,
    Services,
    Policies,
}

impl List {
    const NAMES: &[&str] = &["workloads", "services", "policies"];

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "workloads" => Self::Workloads,
            "services" => Self::Services,
            "policies" => Self::Policies,
            _ => return None,
        })
    }

    /// What one entry of it is called.
    fn entry(self) -> &'static str {
        match self {
            Self::Workloads => "workload",
            Self::Services => "service",
            Self::Policies => "policy",
        }
    }
}

impl Reading {
    /// What comes after it in the file.
    pub(super) fn append(&mut self, later: Self) {
        self.local.resources.extend(later.local.resources);
        self.local.refused.extend(later.local.refused);
        self.policy = self.policy.take().or(later.policy);
    }

    pub(super) fn take(&mut self, list: List, place: usize, value: &Value) {
        let resource = match list {
            List::Workloads => entry(value).and_then(address::workload).map(|w| Resource::Workload(w.into())),
            List::Services => entry(value).and_then(address::service).map(|s| Resource::Service(s.into())),
            List::Policies => entry(value).and_then(policy::policy).map(|p| Resource::Policy(p.into())),
        };
        let reason = match resource {
            Ok(resource) => return self.local.resources.push(resource),
            Err(reason) => reason,
        };
        let part = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("");
        let entry = match part("name") {
            "" => format!("{} number {} of the list", list.entry(), place + 1),
            name => format!("{} {}/{name}", list.entry(), part("namespace")),
        };
        let refused = Refused { entry, reason };
        match list {
            List::Policies => drop(self.policy.get_or_insert(refused)),
            List::Workloads | List::Services => self.local.refused.push(refused),
        }
    }
}

/// An entry in its form, or what is wrong with it and where.
fn entry<'v, T: Deserialize<'v>>(value: &'v Value) -> Result<T, String> {
    // The way to what is wrong is looked for only when something is.
    T::deserialize(value).or_else(|_| serde_path_to_error::deserialize(value)).map_err(|e| e.to_string())
}

/// The file: a map of lists, or nothing at all.
pub(super) struct File<'a>(pub(super) &'a mut Reading);

impl<'de> Visitor<'de> for File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lists {}", List::NAMES.join(", "))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let Some(list) = List::named(&name) else {
                map.next_value::<IgnoredAny>()?;
                return Err(serde::de::Error::unknown_field(&name, List::NAMES));
            };
            map.next_value_seed(Entries { list, first: 0, reading: self.0 })?;
        }
        Ok(())
    }
}

/// One list or a part of it, or nothing at all. Gives the place after its last entry.
pub(super) struct Entries<'a> {
    pub(super) list: List,
    /// The place of its first entry.
    pub(super) first: usize,
    pub(super) reading: &'a mut Reading,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<usize, D::Error> {
        yaml.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list, each entry a {}", self.list.entry())
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok(self.first)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<usize, A::Error> {
        let mut place = self.first;
        while let Some(value) = entries.next_element::<Value>()? {
            self.reading.take(self.list, place, &value);
            place += 1;
        }
        Ok(place)
    }
}
