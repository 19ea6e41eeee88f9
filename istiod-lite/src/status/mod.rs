//! Tells the user what was accepted, and why not: in the log once per change, in a file that `ambit` reads, on the debug
//! page, and on a cluster on the objects themselves.
//!
//! | file | question |
//! |---|---|
//! | this one | what is there to say? |
//! | `conditions` | what is to be on which object of a cluster? (pure) |
//! | `attached` | what is to be said on which route or Gateway? (pure) |
//! | `parents` | and in `status.parents` of a route, `status.ancestors` of a policy? (pure) |
//! | `gateway` | and in the status of a Gateway of ours? (pure) |
//! | `rejected` | and on a route or Gateway that was rejected? (pure) |
//! | `deployed` | and on a Gateway whose waypoint could not be made? (pure) |
//! | `write` | writes it there |
//! | `object` | what of an object is read for it? |
//! | `addresses` | writes there which addresses were allocated |

mod addresses;
mod attached;
mod conditions;
mod deployed;
mod gateway;
mod object;
mod parents;
mod rejected;
pub mod write;

pub use deployed::{Problem, Problems};
pub(crate) use parents::condition;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use mesh_runtime::files;
use serde::{Deserialize, Serialize};

use crate::resources::Key;
use crate::resources::unread::Unread;
use crate::source::{Rejected, Skipped};
use crate::translate::condition::PolicyStatus;

/// All there is to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Objects that were refused; where one was good before, that version still serves.
    pub rejected: Vec<Rejected>,
    /// What becomes of each policy.
    pub policies: Vec<PolicyStatus>,
    /// Objects of kinds that are not read.
    pub skipped: Vec<Skipped>,
}

impl Status {
    /// Says in the log what is new since `before`, and what is mended.
    pub fn log_news(&self, before: &Self) {
        let old: BTreeSet<String> = before.rejected.iter().map(ToString::to_string).collect();
        let new: BTreeSet<String> = self.rejected.iter().map(ToString::to_string).collect();
        for error in self.rejected.iter().filter(|error| !old.contains(&error.to_string())) {
            let kept = error.last_good_kept;
            tracing::error!(last_good_kept = kept, "rejected: {error}");
        }
        for error in old.difference(&new) {
            tracing::info!("no longer rejected: {error}");
        }
        // A mesh may have thousands.
        let known: HashMap<&Key, Vec<&PolicyStatus>> =
            before.policies.iter().fold(HashMap::new(), |mut all, policy| {
                all.entry(&policy.key).or_insert_with(Vec::new).push(policy);
                all
            });
        let is_new = |policy: &&PolicyStatus| known.get(&policy.key).is_none_or(|known| !known.contains(policy));
        for policy in self.policies.iter().filter(is_new) {
            for c in &policy.conditions {
                if c.is_accepted() {
                    tracing::info!(policy = %policy.key, "{}", c.message);
                } else {
                    tracing::warn!(policy = %policy.key, status = c.status, reason = &*c.reason, "{}", c.message);
                }
            }
        }
        for skipped in self.skipped.iter().filter(|skipped| !before.skipped.contains(skipped)) {
            let Skipped { file, line, kind, name, what } = skipped;
            let (file, name) = (file.display(), name.as_deref().unwrap_or("?"));
            let meaning = skipped.meaning();
            match what {
                Unread::SaysNothing => tracing::info!("{file}:{line}: {kind} {name}: skipped, {meaning}"),
                Unread::NotEnforced | Unread::Unknown => {
                    tracing::warn!("{file}:{line}: {kind} {name}: ignored: {meaning}");
                }
            }
        }
    }

    /// Writes it as JSON, in one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::replace(path, serde_json::to_vec_pretty(self)?)
    }
}
