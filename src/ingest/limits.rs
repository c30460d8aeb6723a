//! What bounds units, and what a body beyond the bounds gets.
//!
//! Takes: the settings. Gives: limits and refusals. Never: reads a body.

use sluice_fhir::tree;

use super::split;
use crate::error::{Error, Peer, Refusal};
use crate::store::spool::SpoolError;

/// What bounds units.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one resource.
    pub resource_bytes_max: usize,
    /// Bytes of a Bundle that is one unit, since it is held in memory whole.
    pub transaction_bytes_max: usize,
    /// Entries of a Bundle, lines of a stream.
    pub entries_max: usize,
    /// Nesting of a resource.
    pub depth_max: usize,
}

impl Limits {
    pub(super) fn tree(&self) -> tree::Limits {
        tree::Limits { bytes_max: self.resource_bytes_max, depth_max: self.depth_max, ..tree::Limits::default() }
    }

    pub(super) fn split(&self) -> split::Limits {
        split::Limits {
            // An entry is its resource, its URL and its request.
            piece_bytes_max: self.resource_bytes_max.saturating_add(64 * 1024),
            entries_max: self.entries_max,
            depth_max: u32::try_from(self.depth_max).unwrap_or(u32::MAX).saturating_add(3),
        }
    }
}

/// A refusal of a unit that is too large.
pub(super) fn too_large(bytes_max: usize) -> Error {
    let text = format!("a unit of at most {bytes_max} bytes; a larger Bundle can be sent as a batch");
    Error::refusal(Refusal::TooLarge, "limits.unit", text)
}

/// An outage of the spool.
pub fn unreadable(error: &SpoolError) -> Error {
    Error::outage(Peer::Capacity, std::time::Duration::from_secs(5), format!("spool: {error}"))
}
