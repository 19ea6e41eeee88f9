//! Where objects come from: what a control plane asks of a folder of YAML, or of a watch on an API server.
//!
//! | file | holds |
//! |---|---|
//! | this one | what every source does |
//! | `rejected` | what a source cannot use, wherever it was said |
//! | `closed` | what is refused where nobody knows what was in force (pure) |
//! | [`folder`] | the source that is a folder of YAML, kept up to date; errors with file, line and field |
//! | [`kubernetes`] | the source that is an API server |
//!
//! A source says in [`Batch`]es what changed and what it had to reject. It says everything once at first, and again
//! ([`Change::Replace`]) when it cannot tell what it has missed; what an object says that is rejected, it goes on saying as
//! it was last good.

mod closed;
pub mod folder;
pub mod kubernetes;
mod rejected;

use crate::cluster::Change;

pub use rejected::{Origin, Rejected, Skipped};

/// What a source has to say at one time. What comes in while it is not asked comes together in the next.
#[derive(Debug, Default)]
pub struct Batch {
    /// Since the batch before; in order.
    pub changes: Vec<Change>,
    /// What is wrong now, if that is not known already.
    pub findings: Option<Findings>,
}

/// What a source cannot use of what there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Objects that were refused; where one was good before, that version still serves.
    pub rejected: Vec<Rejected>,
    /// Objects of kinds that are not read.
    pub skipped: Vec<Skipped>,
}

/// Where objects come from.
pub trait Source: Send + 'static {
    /// Waits for something to say. The first batch is everything that there is, even if that is nothing. None: it has
    /// ended, and what was said stays.
    fn next(&mut self) -> impl Future<Output = Option<Batch>> + Send;

    /// The batch is published. A source that keeps what it has said for the next life of this program keeps it now: proxies
    /// do not wait for a disk. Gives what is wrong now, if that is not known already.
    fn published(&mut self) -> impl Future<Output = Option<Findings>> + Send;
}
