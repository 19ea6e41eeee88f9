//! What a connection is decided from.

use std::net::SocketAddr;

use crate::balance::Choice;
use crate::tables::Tables;
use crate::workload::Workload;

/// What a connection is decided from.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) tables: &'a Tables,
    pub(super) client: &'a Workload,
    pub(super) dialled: SocketAddr,
    pub(super) by: Choice<'a>,
}
