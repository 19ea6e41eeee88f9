//! What a request is counted by until its answer has ended.

use crate::room::Part;
use crate::upstream::{Active, Carried, Permit};

/// What is counted. Fields are dropped in this order: who waits for a connection is told last.
pub(super) struct Held {
    _carried: Option<Carried>,
    _permits: (Permit, Option<Permit>),
    _active: Active,
    _under_way: Option<Part>,
}

impl Held {
    /// A request, carried by a connection of HTTP/2 if there is one, with its permits: its own, and that of being tried again; and its
    /// caller's place for it, where it has a tunnel of its own.
    pub(super) fn new(
        carried: Option<Carried>,
        permits: (Permit, Option<Permit>),
        active: Active,
        under_way: Option<Part>,
    ) -> Self {
        Self { _carried: carried, _permits: permits, _active: active, _under_way: under_way }
    }
}
