//! What one check knows of profiles: the library, what was asked before, and what was said already.

use std::collections::HashMap;

use crate::profile::Library;
use crate::profile::element::Place;
use crate::tree::NodeId;

/// What profiles are held against, and what is known of them by now.
pub(super) struct Profiles<'w> {
    pub(super) library: &'w Library,
    /// What was asked without reporting it: by element and profile.
    pub(super) known: HashMap<(NodeId, usize, Place), Answer>,
    /// Profiles and value sets that were reported as not checked.
    pub(super) reported: Vec<String>,
    pub(super) nesting: u32,
    /// Above 0, nothing is reported: whether there is an error is all that is asked.
    pub(super) asking: u32,
    /// What must be supported, and obligations, are told too.
    pub(super) tells_expectations: bool,
}

impl<'w> Profiles<'w> {
    pub(super) fn new(library: &'w Library, tells_expectations: bool) -> Self {
        Self { library, known: HashMap::new(), reported: Vec::new(), nesting: 0, asking: 0, tells_expectations }
    }
}

/// Yes, no, or not to be told here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    Open,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}
