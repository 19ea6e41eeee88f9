//! Labels of an object, and what can be asked for one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::shared::{self, Shared};

/// What has labels.
pub trait Labelled {
    /// The value of a label, if it is there.
    fn label(&self, name: &str) -> Option<&str>;
}

impl Labelled for ObjectMeta {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
}

impl Labelled for BTreeMap<String, String> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

type List = [(Arc<str>, Arc<str>)];

static LISTS: Shared<List> = LazyLock::new(Mutex::default);

/// Labels that many objects have alike, as the pods of one Deployment do: equal ones are kept once. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<List>);

impl Labels {
    /// By name, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl Labelled for Labels {
    fn label(&self, name: &str) -> Option<&str> {
        let position = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.0.get(position).map(|(_, value)| &**value)
    }
}

impl From<Option<&BTreeMap<String, String>>> for Labels {
    fn from(labels: Option<&BTreeMap<String, String>>) -> Self {
        let labels = labels.into_iter().flatten();
        let list: Vec<_> = labels.map(|(name, value)| (shared::text(name), shared::text(value))).collect();
        Self(shared::one(&LISTS, &list, |list| list.into()))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_and_equal_ones_are_kept_once() {
        let of = |pairs: &[(&str, &str)]| {
            let map: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Labels::from(Some(&map))
        };
        let labels = of(&[("b", "2"), ("a", "1"), ("c", "")]);
        let found = ["a", "b", "c", "d", ""].map(|name| labels.label(name));
        assert_eq!(found, [Some("1"), Some("2"), Some(""), None, None]);
        assert!(Arc::ptr_eq(&labels.0, &of(&[("a", "1"), ("b", "2"), ("c", "")]).0));
        assert_ne!(labels, of(&[("a", "1"), ("b", "2")]));
        assert_eq!(Labels::from(None), of(&[]));
    }
}
