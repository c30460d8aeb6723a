//! Is this leaf in a log that I believe?
//!
//! Takes a leaf's hash, a proof and a policy; gives how sure one may be, or the link of the chain
//! that is broken: leaf, inclusion proof, checkpoint, the log's signature, the witnesses'. What
//! lies before the leaf (a record, its commitment) and behind the checkpoint (a ledger) is the
//! caller's. Never does I/O and never trusts a key that came with the proof.

use std::fmt;

use crate::Hash;
use crate::checkpoint::SignedCheckpoint;
use crate::note::Verifier;
use crate::policy::{Disbelief, Endorsement, Policy};
use crate::proof::{TlogProof, TlogProofError};
use crate::tree::{ConsistencyError, InclusionError, verify_consistency, verify_inclusion};

/// A link of the chain from a leaf to those who vouch for it, named as `sluice verify` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// The receipt is not one.
    Form,
    /// The leaf is not where the receipt says, under this root.
    Inclusion,
    /// The log is not one that is believed, or did not sign.
    Checkpoint,
    /// A witness's cosignature is wrong, or too few cosigned.
    Witness,
    /// A later checkpoint does not go on from an earlier one.
    Consistency,
}

impl Link {
    /// The link's name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Inclusion => "inclusion",
            Self::Checkpoint => "checkpoint",
            Self::Witness => "witness",
            Self::Consistency => "consistency",
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It cannot be read.
    #[error(transparent)]
    Form(#[from] TlogProofError),
    /// Its checkpoint is not believed.
    #[error(transparent)]
    Checkpoint(#[from] Disbelief),
    /// Its leaf is not in the tree.
    #[error(transparent)]
    Inclusion(#[from] InclusionError),
    /// Its log was rewritten.
    #[error(transparent)]
    Consistency(#[from] ConsistencyError),
    /// The two checkpoints are of different logs.
    #[error("the checkpoints are of different logs")]
    OtherLog,
}

impl ReceiptError {
    /// Which link is broken.
    pub fn link(&self) -> Link {
        match self {
            Self::Form(_) => Link::Form,
            Self::Inclusion(_) => Link::Inclusion,
            Self::Checkpoint(Disbelief::UnknownLog | Disbelief::NotSignedByLog | Disbelief::LogSignature) => {
                Link::Checkpoint
            }
            Self::Checkpoint(Disbelief::Cosignature { .. } | Disbelief::NoQuorum { .. }) => Link::Witness,
            Self::Consistency(_) | Self::OtherLog => Link::Consistency,
        }
    }
}

/// How sure one may be that a log shows everyone the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// Nobody but the log's operator says so.
    Own,
    /// Others vouch for it.
    Witnessed {
        /// How many witnesses cosigned.
        cosigned: usize,
        /// Of how many that the verifier knows.
        witnesses: usize,
    },
}

impl Assurance {
    fn of(endorsement: &Endorsement<'_>) -> Self {
        match endorsement.cosigned.len() {
            0 => Self::Own,
            cosigned => Self::Witnessed { cosigned, witnesses: endorsement.witnesses },
        }
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("self"),
            Self::Witnessed { cosigned, witnesses } => write!(f, "witnessed {cosigned}/{witnesses}"),
        }
    }
}

/// What a receipt that holds has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How sure one may be.
    pub assurance: Assurance,
    /// The log's origin.
    pub origin: String,
    /// The leaf's index.
    pub index: u64,
    /// The size of the tree it is shown to be in.
    pub size: u64,
    /// The earliest time, in seconds since the epoch, at which a witness saw that tree: the leaf
    /// existed by then.
    pub existed_by_s: Option<u64>,
}

/// Reads a receipt and checks it: the leaf with this hash stands in a log that the policy believes
/// (c2sp.org/tlog-proof, verifying a tlog proof).
pub fn verify(
    policy: &Policy,
    leaf_hash: &Hash,
    receipt: &[u8],
    verifier: &impl Verifier,
) -> Result<Verified, ReceiptError> {
    verify_proof(policy, leaf_hash, &TlogProof::parse(receipt)?, verifier)
}

/// [`verify`] for a receipt that was read already.
pub fn verify_proof(
    policy: &Policy,
    leaf_hash: &Hash,
    proof: &TlogProof,
    verifier: &impl Verifier,
) -> Result<Verified, ReceiptError> {
    let endorsement = policy.check(proof.checkpoint(), verifier)?;
    let checkpoint = proof.checkpoint().checkpoint();
    verify_inclusion(leaf_hash, proof.index(), checkpoint.size(), proof.hashes(), checkpoint.root())?;
    Ok(Verified {
        assurance: Assurance::of(&endorsement),
        origin: checkpoint.origin().to_owned(),
        index: proof.index(),
        size: checkpoint.size(),
        existed_by_s: endorsement.cosigned.iter().filter_map(|it| it.time_s).min(),
    })
}

/// Checks that a log's later checkpoint, which the policy believes, goes on from an earlier one
/// that it believes as well.
pub fn verify_growth(
    policy: &Policy,
    earlier: &SignedCheckpoint,
    later: &SignedCheckpoint,
    proof: &[Hash],
    verifier: &impl Verifier,
) -> Result<Assurance, ReceiptError> {
    policy.check(earlier, verifier)?;
    let endorsement = policy.check(later, verifier)?;
    let (earlier, later) = (earlier.checkpoint(), later.checkpoint());
    if earlier.origin() != later.origin() {
        return Err(ReceiptError::OtherLog);
    }
    verify_consistency(earlier.size(), later.size(), earlier.root(), later.root(), proof)?;
    Ok(Assurance::of(&endorsement))
}

#[cfg(test)]
mod tests;
