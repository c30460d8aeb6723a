//! What can go wrong with a ledger, by what the caller must do about it.
//!
//! Takes: a cause found by an adapter. Gives: one of six classes. Never: carries more than keys of the ledger itself.

use std::time::Duration;

use super::codec::Malformed;
use super::ids::{OpId, Timestamp};
use crate::error::{Error, Peer, Refusal};

/// When to come again where the ledger did not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The classes of failure. The class, not the text, decides what a caller does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Definitive: not committed, and the same operation never will be as things stand. Report it; on a conflict read
    /// again and decide again.
    #[error("the ledger rejects the operation: {0}")]
    Rejected(Rejection),
    /// Certainly not submitted. Retry with backoff.
    #[error("the ledger is unavailable: {reason}")]
    Unavailable {
        /// When to come again, if the peer said so.
        retry_after: Option<Duration>,
        /// What is not there.
        reason: &'static str,
    },
    /// May have been committed. Only `outcome` resolves it; the identical bytes may be sent again.
    #[error("the ledger may or may not have committed operation {op}")]
    Ambiguous {
        /// The operation in doubt.
        op: OpId,
    },
    /// An answer exists and is too old to rely on. Fail closed.
    #[error("the ledger's answer is {age:?} old")]
    Stale {
        /// How old it is.
        age: Duration,
    },
    /// The ledger or its operator contradicts what was signed before. Stop, raise an alarm, never clear by itself.
    #[error("the ledger contradicts itself: {0}")]
    Integrity(Breach),
    /// The disk failed. Writing stops until a restart has replayed what is durable; reading goes on.
    #[error("the ledger's storage failed: {0}")]
    Storage(String),
}

/// Why an operation was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another version stands; 0 means that none does.
    #[error("version {have} stands, so the next one must be its successor")]
    Conflict {
        /// The version that stands.
        have: u64,
    },
    /// A signature does not verify.
    #[error("a signature does not verify")]
    BadSignature,
    /// The signers have no right to this.
    #[error("not authorised: {0}")]
    NotAuthorised(Authority),
    /// The signer's approval is not valid at the ledger's time.
    #[error("the signer's approval is not valid at {at}")]
    Expired {
        /// The ledger's time of the decision.
        at: Timestamp,
    },
    /// Not the canonical form of an operation.
    #[error("malformed: {0}")]
    Malformed(Malformed),
    /// Well formed, and beyond what this ledger does.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// An anchor that goes back, or a second one for the same beat or size.
    #[error("the anchor contradicts beat {beat} of the same origin: {reason}")]
    AnchorRegression {
        /// The newest beat that stands.
        beat: u64,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Whose signature was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Authority {
    /// The consortium's administrator admits institutions.
    #[error("the administrator's signature is needed")]
    Administrator,
    /// The institution's master key approves and withdraws devices.
    #[error("the institution's master key is needed")]
    Master,
    /// A record bound to a patient's key takes that key.
    #[error("the patient's key is needed")]
    Patient,
    /// Binding a key takes a practitioner's approved device beside the patient's new key.
    #[error("a practitioner's approved device is needed")]
    Practitioner,
    /// Recovery takes two attesters of different houses.
    #[error("a second attester of another institution is needed")]
    SecondAttester,
    /// Filing on a patient's behalf takes an institution that is attested for it.
    #[error("an institution that may file for patients is needed")]
    Attested,
    /// Anchoring takes a key of the institution that the origin names.
    #[error("a key of the institution that the origin names is needed")]
    Origin,
    /// The institution is not admitted, or is suspended.
    #[error("the institution is not admitted")]
    Institution,
}

/// How a ledger contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Two histories of the same ledger.
    #[error("two histories exist up to {height}")]
    Fork {
        /// The height at which both speak.
        height: u64,
    },
    /// It ends before something that was signed or seen before.
    #[error("it ends at {have}, and {known} was known")]
    Rollback {
        /// Where it ends.
        have: u64,
        /// What was known of it.
        known: u64,
    },
    /// A proof, root or signature does not verify.
    #[error("a proof does not verify: {0}")]
    BadProof(&'static str),
    /// Another ledger than the one configured.
    #[error("this is another ledger than the one configured")]
    WrongLedger,
    /// A committed byte has changed.
    #[error("what was committed at byte {offset} cannot be read any more")]
    Rot {
        /// Where in the log.
        offset: u64,
    },
}

impl From<Rejection> for LedgerError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Malformed> for Rejection {
    fn from(cause: Malformed) -> Self {
        Self::Malformed(cause)
    }
}

impl From<Malformed> for LedgerError {
    fn from(cause: Malformed) -> Self {
        Self::Rejected(Rejection::Malformed(cause))
    }
}

impl From<Breach> for LedgerError {
    fn from(breach: Breach) -> Self {
        Self::Integrity(breach)
    }
}

impl From<std::io::Error> for LedgerError {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

/// How a stage tells it on. What the ledger decided is final for the sender; everything else is an outage of the
/// ledger, an integrity error too: who stops using a ledger serves nobody by it, and never grants.
impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        let text = error.to_string();
        match error {
            LedgerError::Rejected(rejection) => {
                let refusal = match rejection {
                    Rejection::Conflict { .. } | Rejection::AnchorRegression { .. } => Refusal::Conflict,
                    Rejection::BadSignature | Rejection::NotAuthorised(_) | Rejection::Expired { .. } => {
                        Refusal::Forbidden
                    }
                    Rejection::Malformed(_) => Refusal::Malformed,
                    Rejection::Unsupported(_) => Refusal::Invalid,
                };
                Self::refusal(refusal, "ledger.rejected", text)
            }
            LedgerError::Unavailable { retry_after, .. } => {
                Self::outage(Peer::Ledger, retry_after.unwrap_or(RETRY_AFTER), text)
            }
            LedgerError::Ambiguous { .. }
            | LedgerError::Stale { .. }
            | LedgerError::Integrity(_)
            | LedgerError::Storage(_) => Self::outage(Peer::Ledger, RETRY_AFTER, text),
        }
    }
}
