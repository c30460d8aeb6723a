//! What institutions agree on: who takes part, what each patient decided, and which checkpoints existed when.
//!
//! Takes: signed operations in codes and pseudonyms. Gives: one [`Ledger`] trait over every kind of ledger, with
//! snapshots, proofs that verify offline, and a gap-free stream of changes. Never: sees health data, or a bare hash
//! of any; never decides on consent; never retries by itself.
//!
//! Three ideas carry correctness. Every record is put by compare-and-set on its version, and an operation's id is the
//! hash of its content, so a replay is harmless. [`LedgerError::Ambiguous`] is only ever resolved by
//! [`Ledger::outcome`]. And finality is asymmetric: a revocation is honoured when it is seen, a grant when it is final.

mod codec;
pub mod embedded;
mod entry;
pub mod error;
mod ids;
pub mod keyring;
pub mod proof;
pub mod records;
pub mod root;
pub mod rules;
pub mod signature;
mod state;
pub mod subjects;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use codec::Malformed;
pub use embedded::{Embedded, Known, Options};
pub use error::{Authority, Breach, LedgerError, Rejection};
pub use proof::Trust;
pub use records::{
    Anchor, Approval, Device, DeviceKind, FiledBy, Institution, Name, OpId, Operation, Origin, Pseudonym, Role,
    SignedOp, Standing, SubjectRecord, SubjectState, Timestamp,
};
pub use signature::{PublicKey, SignFailed, Signature, Signer};
pub use types::{
    Assurance, Caps, Change, Cursor, Finality, FinalityModel, Head, Outcome, Position, Proof, Receipt, Snapshot, Ticket,
};

/// A ledger. Seven operations, and what the ledger can do.
///
/// Every implementation passes the same conformance suite. No operation retries: the class of the error says what the
/// caller may do.
pub trait Ledger: Send + Sync + 'static {
    /// What this ledger can do; probed at start, then constant.
    fn caps(&self) -> &Caps;

    /// The newest head of at least that finality. Monotone within a process and across restarts.
    fn head(&self, at_least: Finality) -> BoxFuture<'_, Result<Head, LedgerError>>;

    /// The records of all `subjects` at one head, in the order asked; `Stale` if the answer is older than `age_max`.
    fn lookup<'a>(
        &'a self,
        subjects: &'a [Pseudonym],
        age_max: Duration,
    ) -> BoxFuture<'a, Result<Snapshot, LedgerError>>;

    /// A proof of presence (a revocation included) or absence of `subject` under a final head that is not before
    /// `at`. It verifies offline by [`proof::verify_subject`].
    fn prove<'a>(&'a self, subject: &'a Pseudonym, at: &'a Head) -> BoxFuture<'a, Result<Proof, LedgerError>>;

    /// Submits operations, in order; one ticket for each. An operation that was committed before gives its first
    /// ticket again. What is committed is durable before this returns. An operation that the ledger rejects does not
    /// hold up the others.
    fn submit<'a>(&'a self, ops: &'a [SignedOp]) -> BoxFuture<'a, Result<Vec<Ticket>, LedgerError>>;

    /// What became of an operation: the only way to resolve [`LedgerError::Ambiguous`].
    fn outcome<'a>(&'a self, op: &'a OpId) -> BoxFuture<'a, Result<Outcome, LedgerError>>;

    /// Everything that happens after `from`, without gaps, then whatever comes, until the ledger closes. Each change
    /// carries the cursor to go on from; a consumer stores it in the same commit as the change's effect.
    fn watch(&self, from: Cursor) -> BoxStream<'static, Result<Change, LedgerError>>;

    /// Anchors a gateway's checkpoint, signed by the key that this adapter was given, and waits until it is final.
    ///
    /// Idempotent by (origin, beat): the same anchor gives a receipt again. A smaller size, a second root of one size
    /// or another checkpoint for a beat is rejected. The receipt verifies offline by [`proof::verify_anchor`].
    fn anchor<'a>(&'a self, anchor: &'a Anchor) -> BoxFuture<'a, Result<Receipt, LedgerError>>;
}
