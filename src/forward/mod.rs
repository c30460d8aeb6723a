//! Forward: a staged unit is told to the hospital's FHIR server.
//!
//! Takes: [`Staged`]. Gives: [`Answered`], whose existence proves that the upstream has said yes, or that there is
//! none. Never: posts again what was not answered.

use crate::stage::Staged;

/// A unit to which the upstream, if there is one, has said yes. Only `forward` makes one.
#[derive(Debug)]
pub struct Answered {
    staged: Staged,
    upstream: Option<Vec<Located>>,
}

/// Where the upstream put one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// 200 or 201.
    pub status: u16,
    /// The resource's id there.
    pub id: String,
    /// Its version there, as the upstream writes it.
    pub version: Option<String>,
    /// When it was written there, as the upstream writes it.
    pub last_modified: Option<String>,
}

/// Without an upstream nothing is told to anyone.
pub fn nowhere(staged: Staged) -> Answered {
    Answered { staged, upstream: None }
}

impl Answered {
    /// The unit.
    pub fn staged(&self) -> &Staged {
        &self.staged
    }

    /// Where each resource stands at the upstream, in the order of the unit; none without an upstream.
    pub fn upstream(&self) -> Option<&[Located]> {
        self.upstream.as_deref()
    }
}
