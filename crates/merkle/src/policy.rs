//! Whom a verifier believes, c2sp.org/tlog-policy.
//!
//! Takes the keys of logs and witnesses and a quorum; judges a checkpoint by them. Never learns a
//! key from what it judges.

mod parse;

pub use parse::{PolicyError, PolicyErrorKind};

use crate::checkpoint::SignedCheckpoint;
use crate::note::{KeyKind, KeyName, Signed, Verifier, VerifierKey, VerifyError};

/// The logs, the witnesses, and how many of these must have cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    quorum: Quorum,
}

/// Which cosignatures suffice.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Quorum {
    None,
    /// By its place in [`Policy::witnesses`].
    Witness(usize),
    Group {
        threshold: usize,
        members: Vec<Quorum>,
    },
}

/// Why a set of keys is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A log's key is not of type 0x01, or a witness's is not of type 0x04.
    #[error("a log's key is of type 0x01 and a witness's of type 0x04")]
    WrongKind,
    /// The same public key stands twice among the logs, or among the witnesses.
    #[error("a public key stands once among the logs and once among the witnesses")]
    Duplicate,
    /// More cosignatures are asked for than there are witnesses.
    #[error("no more cosignatures can be asked for than there are witnesses")]
    Threshold,
}

/// Why a checkpoint is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// The policy has no log of this origin.
    #[error("no log of this origin is trusted")]
    UnknownLog,
    /// The log has not signed.
    #[error("the checkpoint is not signed by its log")]
    NotSignedByLog,
    /// A line under a trusted log's name and key id does not verify.
    #[error("the log's signature does not verify")]
    LogSignature,
    /// A line under a trusted witness's name and key id does not verify.
    #[error("the cosignature of witness {name} does not verify")]
    Cosignature {
        /// The witness.
        name: KeyName,
    },
    /// Too few of the right witnesses cosigned.
    #[error("{cosigned} of {witnesses} witnesses cosigned, which is no quorum")]
    NoQuorum {
        /// How many did.
        cosigned: usize,
        /// How many there are.
        witnesses: usize,
    },
}

/// Who stands behind a checkpoint that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement<'p> {
    /// The log's key.
    pub log: &'p VerifierKey,
    /// The witnesses that cosigned, each with its time.
    pub cosigned: Vec<Signed<'p>>,
    /// How many witnesses the policy has.
    pub witnesses: usize,
}

impl Policy {
    /// Any of these logs, cosigned by at least `threshold` of these witnesses.
    pub fn new(logs: Vec<VerifierKey>, witnesses: Vec<VerifierKey>, threshold: usize) -> Result<Self, KeysError> {
        if threshold > witnesses.len() {
            return Err(KeysError::Threshold);
        }
        let quorum = if threshold == 0 {
            Quorum::None
        } else {
            Quorum::Group { threshold, members: (0..witnesses.len()).map(Quorum::Witness).collect() }
        };
        Self::with_quorum(logs, witnesses, quorum)
    }

    fn with_quorum(logs: Vec<VerifierKey>, witnesses: Vec<VerifierKey>, quorum: Quorum) -> Result<Self, KeysError> {
        for (keys, kind) in [(&logs, KeyKind::Ed25519), (&witnesses, KeyKind::Cosignature)] {
            if keys.iter().any(|key| key.kind() != kind) {
                return Err(KeysError::WrongKind);
            }
            let mut public_keys: Vec<_> = keys.iter().map(VerifierKey::public_key).collect();
            public_keys.sort_unstable();
            public_keys.dedup();
            if public_keys.len() != keys.len() {
                return Err(KeysError::Duplicate);
            }
        }
        Ok(Self { logs, witnesses, quorum })
    }

    /// The logs believed.
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// The witnesses known.
    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// Judges a checkpoint: signed by a log whose key is named after its origin, every signature of
    /// a known key good, and the quorum reached (c2sp.org/tlog-proof, steps 2 and 3).
    pub fn check(&self, checkpoint: &SignedCheckpoint, verifier: &impl Verifier) -> Result<Endorsement<'_>, Disbelief> {
        let origin = checkpoint.checkpoint().origin();
        let logs: Vec<_> = self.logs.iter().filter(|key| key.name().as_str() == origin).collect();
        if logs.is_empty() {
            return Err(Disbelief::UnknownLog);
        }
        let by_log = checkpoint.note().verify(logs, verifier).map_err(|error| match error {
            VerifyError::NoTrustedSignature => Disbelief::NotSignedByLog,
            VerifyError::BadSignature { .. } => Disbelief::LogSignature,
        })?;
        let cosigned = match checkpoint.note().verify(&self.witnesses, verifier) {
            Ok(cosigned) => cosigned,
            Err(VerifyError::NoTrustedSignature) => Vec::new(),
            Err(VerifyError::BadSignature { name }) => return Err(Disbelief::Cosignature { name }),
        };
        let log = by_log.first().ok_or(Disbelief::NotSignedByLog)?.by;
        let witnesses = self.witnesses.len();
        if !self.quorum.reached(&|witness| cosigned.iter().any(|it| Some(it.by) == self.witnesses.get(witness))) {
            return Err(Disbelief::NoQuorum { cosigned: cosigned.len(), witnesses });
        }
        Ok(Endorsement { log, cosigned, witnesses })
    }
}

impl Quorum {
    fn reached(&self, cosigned: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::None => true,
            Self::Witness(witness) => cosigned(*witness),
            Self::Group { threshold, members } => {
                members.iter().filter(|member| member.reached(cosigned)).count() >= *threshold
            }
        }
    }
}

#[cfg(test)]
mod tests;
