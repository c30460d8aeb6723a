//! Failures on purpose, for tests of what happens after them.

use std::fmt;
use std::sync::Arc;

/// A failure to have at a persist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and nothing was written.
    Undone,
    /// It fails, but everything was written.
    Done,
}

/// Decides by the persist's number, from 1, which one fails.
#[derive(Clone)]
pub struct Faults(Arc<dyn Fn(u64) -> Option<Fault> + Send + Sync>);

impl Faults {
    /// Faults as the function says.
    pub fn new(at: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    /// What the persist of this number meets.
    pub(super) fn at(&self, persist: u64) -> Option<Fault> {
        (self.0)(persist)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults(..)")
    }
}
