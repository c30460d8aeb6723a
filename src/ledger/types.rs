//! What a ledger answers with.
//!
//! Takes: nothing. Gives: heads, snapshots, tickets, changes, proofs. Never: does any work.

use std::fmt;

use super::codec::Malformed;
use super::error::{LedgerError, Rejection};
use super::ids::{OpId, Origin, Pseudonym, Timestamp};
use super::records::{SignedOp, SubjectRecord};

/// How settled something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finality {
    /// Durable or included, and not yet beyond dispute. A revocation counts from here.
    Seen,
    /// Beyond dispute by this ledger's rule. A grant counts from here.
    Final,
}

/// How settled a change can get, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinalityModel {
    /// The host's signed checkpoint over it is durable.
    Checkpoint,
    /// A block is final once it is there (QBFT, Fabric).
    Immediate,
    /// Final a number of blocks later.
    Delayed,
}

/// Who stands behind a proof. Every proof says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assurance {
    /// The operator's own signature.
    Operator,
    /// The operator's and those of `signed` of `known` witnesses.
    Witnessed {
        /// Cosignatures found good.
        signed: u16,
        /// Witnesses of the policy.
        known: u16,
    },
    /// A Hyperledger Fabric network.
    Fabric,
    /// An EVM chain.
    Evm,
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("self"),
            Self::Witnessed { signed, known } => write!(f, "witnessed {signed}/{known}"),
            Self::Fabric => f.write_str("fabric"),
            Self::Evm => f.write_str("evm"),
        }
    }
}

/// What a ledger can do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent abilities, each named")]
pub struct Caps {
    /// When a change is final.
    pub finality: FinalityModel,
    /// Whether `prove` can prove that there is no record.
    pub absence_proof: bool,
    /// Whether the ledger itself compares and sets.
    pub native_cas: bool,
    /// Whether the gateway can pay for a patient's operation.
    pub sponsor: bool,
    /// Whether P-256 signatures are checked by the ledger.
    pub p256: bool,
    /// Most operations in one `submit`.
    pub ops_max: usize,
    /// What its proofs rest on.
    pub assurance: Assurance,
}

/// A state of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which ledger.
    pub ledger: Origin,
    /// Leaves or blocks up to here.
    pub height: u64,
    /// The root hash over them.
    pub root: [u8; 32],
    /// The ledger's time of it.
    pub time: Timestamp,
    /// How settled it is.
    pub finality: Finality,
}

/// Records at one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The head at which all of them stand.
    pub head: Head,
    /// One for each subject asked for, in that order; `None` where the ledger knows none.
    pub records: Vec<Option<SubjectRecord>>,
}

/// Where an operation stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The leaf's index, or the block.
    pub height: u64,
    /// Within the block; 0 where a height holds one operation.
    pub index: u32,
    /// The ledger's time of it.
    pub time: Timestamp,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The ledger has not seen it.
    Unknown,
    /// Submitted, not yet committed.
    Pending,
    /// It stands.
    Committed(Position),
    /// It does not, and why.
    Rejected(Rejection),
    /// It can never be committed any more.
    Dead,
}

/// The answer to one submitted operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which.
    pub op: OpId,
    /// What is known of it now.
    pub outcome: Outcome,
}

impl Ticket {
    /// The position, or the error that the caller must deal with.
    pub fn committed(self) -> Result<Position, LedgerError> {
        match self.outcome {
            Outcome::Committed(position) => Ok(position),
            Outcome::Rejected(why) => Err(LedgerError::Rejected(why)),
            Outcome::Pending | Outcome::Unknown => Err(LedgerError::Ambiguous { op: self.op }),
            Outcome::Dead => Err(LedgerError::Unavailable { retry_after: None, reason: "the submission ran out" }),
        }
    }
}

/// Where a watcher goes on. Opaque; only its own ledger reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// Longest form, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Before everything.
    pub fn start() -> Self {
        Self::default()
    }

    /// To be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From what was stored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::BYTES_MAX { Err(Malformed::TooLong) } else { Ok(Self(bytes.to_vec())) }
    }
}

impl Cursor {
    /// Before the change at `height` of a ledger that counts by height alone.
    pub(crate) fn at(height: u64) -> Self {
        Self(height.to_be_bytes().to_vec())
    }

    /// What [`Self::at`] was given; the start is 0.
    pub(crate) fn height(&self) -> Result<u64, Malformed> {
        if self.0.is_empty() {
            return Ok(0);
        }
        self.0.as_slice().try_into().map(u64::from_be_bytes).map_err(|_| Malformed::Range)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An operation is seen: durable on this ledger, not yet final.
    Applied {
        /// Go on from here.
        cursor: Cursor,
        /// Where it stands.
        position: Position,
        /// What it is.
        op: SignedOp,
    },
    /// An operation that was seen is gone from the ledger's history. Never comes from an embedded ledger.
    Retracted {
        /// Go on from here.
        cursor: Cursor,
        /// Which.
        op: OpId,
    },
    /// Everything up to this head is final.
    Finalized {
        /// Go on from here.
        cursor: Cursor,
        /// The head.
        head: Head,
    },
}

impl Change {
    /// Where to go on after this change.
    pub fn cursor(&self) -> &Cursor {
        match self {
            Self::Applied { cursor, .. } | Self::Retracted { cursor, .. } | Self::Finalized { cursor, .. } => cursor,
        }
    }
}

/// That a subject's record stands, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What it rests on.
    pub assurance: Assurance,
    /// Whom it is about.
    pub subject: Pseudonym,
    /// In the form of the ledger's kind.
    pub bytes: Vec<u8>,
}

/// That an anchor stands. For an embedded ledger the text is a C2SP tlog-proof with the log entry as its extra data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What it rests on.
    pub assurance: Assurance,
    /// Where the anchor stands.
    pub position: Position,
    /// The head that covers it.
    pub height: u64,
    /// In the form of the ledger's kind.
    pub text: String,
}
