//! Receipts of the ledger, as they are stored and shown.
//!
//! Takes: what the ledger answered to an anchor. Gives: JSON that travels with proofs, and the anchor that it is about.
//! Never: judges it: [`crate::ledger::proof::verify_anchor`] does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluice_merkle::checkpoint::SignedCheckpoint;

use crate::ledger::{Anchor, Origin, Receipt};

/// A checkpoint with its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchored {
    /// Leaves under it.
    pub size: u64,
    /// The signed checkpoint: a C2SP note.
    pub checkpoint: Arc<str>,
    /// That it stands on the ledger.
    pub receipt: AnchorReceipt,
}

/// That a checkpoint stands on the ledger. With the checkpoint it verifies offline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorReceipt {
    /// What it rests on: `self`, `witnessed k/n`, `fabric`, `evm`.
    pub assurance: String,
    /// The number of the anchor among the origin's.
    pub beat: u64,
    /// Where the anchor stands: the ledger's leaf, or the block.
    pub position: u64,
    /// The ledger's time of it: milliseconds since 1970.
    #[serde(rename = "time")]
    pub time_ms: u64,
    /// In the form of the ledger's kind; for an embedded one a C2SP tlog-proof.
    pub text: String,
}

impl AnchorReceipt {
    /// From what the ledger answered to the anchor of this beat.
    pub fn new(beat: u64, receipt: Receipt) -> Self {
        Self {
            assurance: receipt.assurance.to_string(),
            beat,
            position: receipt.position.height,
            time_ms: receipt.position.time.0,
            text: receipt.text,
        }
    }

    /// The anchor that the receipt has to be about, if it is to cover this checkpoint; none for what is no checkpoint
    /// or names no log that a ledger takes.
    pub fn anchor(&self, checkpoint: &str) -> Option<Anchor> {
        anchor(self.beat, checkpoint)
    }
}

/// The anchor of a signed checkpoint.
pub(super) fn anchor(beat: u64, checkpoint: &str) -> Option<Anchor> {
    let signed = SignedCheckpoint::parse(checkpoint.as_bytes()).ok()?;
    let it = signed.checkpoint();
    Some(Anchor {
        origin: Origin::parse(it.origin()).ok()?,
        beat,
        size: it.size(),
        root: *it.root(),
        checkpoint_hash: Sha256::digest(checkpoint.as_bytes()).into(),
    })
}
