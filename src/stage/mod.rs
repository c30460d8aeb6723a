//! Stage: a permitted unit is durable before anything leaves the house.
//!
//! Takes: [`Permitted`]. Gives: [`Staged`], whose existence proves that the operation has an id and, if there is an
//! upstream to be told, that id and ciphertext are durable. Never: sends anything.
//!
//! Without an upstream nothing leaves before `record`, so stage and record are one commit and this stage only names
//! the operation.

use std::fmt;

use crate::consent::door::Permitted;

/// The id of an operation: random, so it tells nothing; what a receipt is asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(uuid::Uuid);

impl OperationId {
    /// A new one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// From its text, as a receipt's URL has it.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(Self)
    }

    /// Its 16 bytes, as keys of rows have them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unit that a crash can no longer lose. Only `stage` makes one.
#[derive(Debug)]
pub struct Staged {
    permitted: Permitted,
    operation: OperationId,
}

/// Names the operation of a unit that is told to nobody before it is recorded.
pub fn local(permitted: Permitted) -> Staged {
    Staged { permitted, operation: OperationId::random() }
}

impl Staged {
    /// The unit.
    pub fn permitted(&self) -> &Permitted {
        &self.permitted
    }

    /// The operation's id.
    pub fn operation(&self) -> OperationId {
        self.operation
    }
}
