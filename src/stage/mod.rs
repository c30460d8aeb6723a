//! Stage: a permitted unit is durable before anything leaves the house.
//!
//! Takes: [`Permitted`]. Gives: [`Staged`], whose existence proves that the operation has an id and, if there is an
//! upstream to be told, that id and ciphertext are durable. Never: sends anything; keeps plaintext.
//!
//! Without an upstream nothing leaves before `record`, so stage and record are one commit and this stage only names
//! the operation. With one, the unit lies on a [`Desk`] until it is recorded or taken back.

mod desk;
mod kept;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_fhir::tree::Node;

use self::desk::Hold;
pub use self::desk::{Busy, Desk, Parked};
use crate::consent::door::Permitted;
use crate::error::Result;
use crate::normalize::{Provenance, Resource};
use crate::store::Batch;

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

    /// From its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
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

/// What is known of an operation between stage and record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Durable. After a restart that says nothing about whether it was sent.
    Staged,
    /// Sent, and not answered.
    Unknown,
    /// An operator decides.
    Parked,
}

/// Whether units are staged.
pub enum Stage {
    /// No upstream: nothing leaves before it is recorded.
    Local,
    /// Before they are told to an upstream.
    Desk(Arc<Desk>),
}

/// A unit that a crash can no longer lose. Only `stage` makes one.
#[derive(Debug)]
pub struct Staged {
    permitted: Permitted,
    operation: OperationId,
    ids: Vec<Option<String>>,
    hold: Option<Hold>,
}

/// An operation that an earlier task left behind.
#[derive(Debug)]
pub struct Leftover {
    ids: Vec<Option<String>>,
    provenance: Option<Provenance>,
    hold: Hold,
}

/// By what the same unit, sent again, is known.
#[derive(Debug, Clone)]
pub struct Twin {
    /// The key of the row that holds its answer.
    pub key: Bytes,
    /// That row, as it was read before the unit was judged. Where it has changed since, the twin has its answer by now.
    pub answer: Option<Bytes>,
}

/// Stages a unit, if its twin is neither under way nor answered meanwhile.
///
/// # Errors
/// An outage of the store; of the upstream if the same unit is still under way; 413 for what has too many subjects.
pub async fn unit(permitted: Permitted, twin: Option<Twin>, stage: &Stage) -> Result<Staged> {
    match stage {
        Stage::Local => Ok(local(permitted)),
        Stage::Desk(desk) => desk.stage(permitted, twin).await,
    }
}

/// Destroys what a recorded operation was kept under.
pub async fn close(operation: OperationId, stage: &Stage) {
    // A crash right here leaves a key that no row is sealed with, and the row by which it is swept: the commit of the
    // record took the body away.
    if let Stage::Desk(desk) = stage
        && let Err(error) = desk.destroy(operation).await
    {
        tracing::warn!(%operation, %error, "the key of a recorded operation stays until it is swept");
    }
}

/// Names the operation of a unit that is told to nobody before it is recorded.
pub fn local(permitted: Permitted) -> Staged {
    Staged { permitted, operation: OperationId::random(), ids: Vec::new(), hold: None }
}

/// A leftover that has gone the way in again goes on as the operation that it was.
pub fn again(permitted: Permitted, leftover: Leftover) -> Staged {
    let Leftover { ids, hold, .. } = leftover;
    Staged { permitted, operation: hold.operation(), ids, hold: Some(hold) }
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

    /// The id of ours that a resource of the unit gets at the upstream; none where the upstream chooses.
    pub fn client_id(&self, at: usize) -> Option<&str> {
        self.ids.get(at)?.as_deref()
    }

    /// How long it has been in the state that it is in.
    pub fn age(&self) -> Duration {
        self.hold.as_ref().map_or(Duration::ZERO, Hold::age)
    }

    /// Adds to the commit of `record` that the operation is staged no more, if it still is: two tasks can't both
    /// record it.
    #[must_use]
    pub fn settle(&self, batch: Batch) -> Batch {
        match &self.hold {
            Some(hold) => hold.settle(batch),
            None => batch,
        }
    }
}

impl Leftover {
    /// The operation's id.
    pub fn operation(&self) -> OperationId {
        self.hold.operation()
    }

    /// What is known of it.
    pub fn state(&self) -> State {
        self.hold.state()
    }

    /// What the mappings had changed before it was staged.
    pub fn provenance(&self) -> Option<Provenance> {
        self.provenance.clone()
    }
}

/// The id that a resource carries, if it is one.
pub fn carried(resource: &Resource) -> Option<String> {
    let id = resource.tree().root().member("id").and_then(Node::as_str)?;
    sluice_fhir::reference::is_id(&id).then(|| id.into_owned())
}
