//! Policies that cover a workload or a service, made ready once by each data thread and kept until something about them changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use mesh_model::policy::PolicySet;
use mesh_model::tables::Covering;

/// Sets that a thread keeps. All are let go of when there are more: those in use are soon made again.
const MOST: usize = 1024;

/// The policies that cover a workload or a service.
#[derive(Debug)]
pub struct Covered {
    /// Those that are known.
    pub policies: PolicySet,
    /// One that it names and that nobody has sent (yet). Until it comes, nothing can be decided.
    pub missing: Option<Arc<str>>,
}

impl From<Covering> for Covered {
    fn from(covering: Covering) -> Self {
        let missing = covering.missing.first().map(|missing| missing.to_string().into());
        Self { policies: PolicySet::new(covering.policies), missing }
    }
}

/// What is kept of `V`s by their names.
#[derive(Debug)]
pub struct Kept<K, V>(HashMap<K, Made<V>>);

#[derive(Debug)]
struct Made<V> {
    /// Held, so that no other one gets its address meanwhile.
    of: Arc<V>,
    revision: u64,
    covered: Rc<Covered>,
    /// The last one in which nothing was missing, and its revision.
    whole: Option<(u64, Rc<Covered>)>,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone, V> Kept<K, V> {
    /// What covers `of`, whose name is `key`, while the policies have this revision
    /// ([`policy_revision`](mesh_model::tables::Tables::policy_revision)); `covering` looks it up where it is not known.
    pub fn covered(&mut self, key: &K, of: &Arc<V>, revision: u64, covering: impl FnOnce() -> Covering) -> Rc<Covered> {
        if let Some(made) = self.0.get(key)
            && made.revision == revision
            && Arc::ptr_eq(&made.of, of)
        {
            return made.covered.clone();
        }
        let covered = Rc::new(Covered::from(covering()));
        let before = self.0.remove(key).filter(|made| Arc::ptr_eq(&made.of, of)).and_then(|made| made.whole);
        let whole = covered.missing.is_none().then(|| (revision, covered.clone())).or(before);
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key.clone(), Made { of: of.clone(), revision, covered: covered.clone(), whole });
        covered
    }
}

impl<K: Hash + Eq, V> Kept<K, V> {
    /// What covered `of` when nothing of that was missing, whatever has come of the policies since; and what their revision was.
    pub fn last_whole(&self, key: &K, of: &Arc<V>) -> Option<(u64, Rc<Covered>)> {
        self.0.get(key).filter(|made| Arc::ptr_eq(&made.of, of))?.whole.clone()
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::address::NamespacedName;

    use super::*;

    #[test]
    fn what_is_kept_is_made_again_when_anything_has_changed() {
        let (mut kept, mut looked_up) = (Kept::default(), 0);
        let missing = |name: &str| Covering { missing: vec![NamespacedName::new("shop", name)], ..Covering::default() };
        let (one, other) = (Arc::new("one"), Arc::new("other"));
        // (whose, revision, what there is to look up, what is said)
        for (of, revision, now, said) in [
            (&one, 1, "a", "shop/a"),
            (&one, 1, "b", "shop/a"),
            (&one, 2, "c", "shop/c"),
            (&other, 2, "d", "shop/d"),
            (&other, 2, "e", "shop/d"),
        ] {
            let covered = kept.covered(&0, of, revision, || {
                looked_up += 1;
                missing(now)
            });
            assert_eq!(covered.missing.as_deref(), Some(said));
        }
        assert_eq!(looked_up, 3);
        assert!(kept.last_whole(&0, &other).is_none(), "something was always missing");
        kept.covered(&0, &other, 3, Covering::default);
        kept.covered(&0, &other, 4, || missing("f"));
        assert!(kept.last_whole(&0, &other).is_some_and(|(revision, whole)| revision == 3 && whole.missing.is_none()));
        assert!(kept.last_whole(&0, &one).is_none(), "it is of the other");
        for key in 0..2 * MOST {
            kept.covered(&key, &one, 2, Covering::default);
            assert!(kept.0.len() <= MOST);
        }
    }
}
