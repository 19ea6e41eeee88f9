//! Backends and matches of values, as both kinds of routes have them.

use mesh_model::route::{Backend, ValueMatch};

use super::world::World;
use super::{backend_ref, http_filter};
use crate::resources::gateway_api::common::{MatchType, ValueMatch as WrittenMatch, WeightedBackend};

/// The backends of a rule of a route in `namespace`.
pub(super) fn of_rule(written: &[WeightedBackend], namespace: &str, world: &World<'_>) -> Vec<Backend> {
    let one = |written: &WeightedBackend| Backend {
        target: backend_ref::target(&written.reference(), namespace, world),
        weight: written.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1),
        filters: http_filter::of(&written.filters, namespace, world),
    };
    written.iter().map(one).collect()
}

/// Matches of headers: names in lower case, of equal ones the first counts.
pub(super) fn header_matches(written: &[WrittenMatch]) -> Vec<ValueMatch> {
    let mut matches: Vec<ValueMatch> = Vec::new();
    for one in written {
        let name = one.name.to_ascii_lowercase();
        if !matches.iter().any(|known| *known.name == *name) {
            matches.push(value_match(&name, one));
        }
    }
    matches
}

/// A match of a value.
pub(super) fn value_match(name: &str, written: &WrittenMatch) -> ValueMatch {
    let regex = written.kind.unwrap_or_default() == MatchType::RegularExpression;
    ValueMatch { name: name.into(), value: written.value.as_str().into(), regex }
}
