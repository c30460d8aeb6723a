//! Proofs of an embedded ledger, and their check without it.
//!
//! Takes: a proof or a receipt, what it claims, and the ledger's name and key, which the verifier has from elsewhere.
//! Gives: what is proven, or which link broke. Never: does I/O, nor trusts a key that came with the proof.
//!
//! A subject's proof: checkpoint signature -> the map's root is the last leaf under it -> the record, or none, stands
//! in the map. An anchor's receipt: checkpoint signature -> the signed operation is a leaf under it.

use sluice_merkle::Hash;
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::map::{self, MapProof};
use sluice_merkle::note::{KeyKind, KeyName, VerifierKey};
use sluice_merkle::proof::{TlogProof, TlogProofError};
use sluice_merkle::tree::{leaf_hash, verify_inclusion};

use super::codec::Malformed;
use super::codec::{Reader, Writer};
use super::entry::{Entry, MapHead};
use super::error::LedgerError;
use super::ids::{Origin, Pseudonym, Timestamp};
use super::records::{Anchor, Operation, SubjectRecord};
use super::signature::{PublicKey, Signature};
use super::types::{Assurance, Finality, Head, Position, Proof, Receipt};

const FORMAT: u8 = 1;
/// A path in a log of 2^32 leaves.
const INCLUSION_MAX: usize = 32;

/// Whose proofs are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The ledger's name.
    pub ledger: Origin,
    /// Its Ed25519 key.
    pub key: [u8; 32],
}

/// The link of a proof that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenLink {
    /// The bytes are not a proof.
    #[error("form: {0}")]
    Form(Malformed),
    /// The checkpoint is not one, is another ledger's, or is not signed by the ledger's key.
    #[error("the checkpoint's signature")]
    Checkpoint,
    /// The leaf is not under the checkpoint.
    #[error("the inclusion of the leaf")]
    Inclusion,
    /// The map's root covers something else than the checkpoint.
    #[error("the map's root")]
    MapHead,
    /// The record, or its absence, is not under the map's root.
    #[error("the record under the map's root")]
    Record,
    /// It is about something else than what was asked.
    #[error("what is proven is not what was claimed")]
    Claim,
    /// A proof of another kind of ledger.
    #[error("a proof of another kind of ledger")]
    Kind,
}

/// What a subject's proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectShown {
    /// The record as of the head; a revocation is a record, absence is none.
    pub record: Option<SubjectRecord>,
    /// The final head under which it stands.
    pub head: Head,
    /// What the proof rests on.
    pub assurance: Assurance,
}

/// What an anchor's receipt shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorShown {
    /// Where the anchor stands, and the ledger's time of it.
    pub position: Position,
    /// Leaves under the checkpoint that covers it.
    pub height: u64,
    /// The root over them.
    pub root: Hash,
    /// The keys that signed the anchor.
    pub signers: Vec<PublicKey>,
    /// What the receipt rests on.
    pub assurance: Assurance,
}

/// Checks what stands, or does not, for `subject`.
pub fn verify_subject(proof: &Proof, subject: &Pseudonym, trust: &Trust) -> Result<SubjectShown, BrokenLink> {
    if proof.assurance != Assurance::Operator {
        return Err(BrokenLink::Kind);
    }
    let shown = SubjectProof::from_bytes(&proof.bytes).map_err(BrokenLink::Form)?;
    let SubjectProof { checkpoint, map_head, inclusion, map, record } = shown;
    let signed = SignedCheckpoint::parse(checkpoint.as_bytes()).map_err(|_| BrokenLink::Checkpoint)?;
    let (size, root) = trust.open(&signed)?;
    // The map's root is the last leaf under its checkpoint, so it speaks of everything before.
    let index = size.checked_sub(1).filter(|index| *index == map_head.covers).ok_or(BrokenLink::MapHead)?;
    let leaf = leaf_hash(&Entry::MapHead(map_head).to_bytes());
    verify_inclusion(&leaf, index, size, &inclusion, &root).map_err(|_| BrokenLink::Inclusion)?;
    if proof.subject != *subject || record.as_ref().is_some_and(|record| record.pseudonym != *subject) {
        return Err(BrokenLink::Claim);
    }
    let value = record.as_ref().map(SubjectRecord::value_hash);
    map::verify(&map_head.root, &subject.0, value.as_ref(), &map).map_err(|_| BrokenLink::Record)?;
    let head =
        Head { ledger: trust.ledger.clone(), height: size, root, time: map_head.time, finality: Finality::Final };
    Ok(SubjectShown { record, head, assurance: Assurance::Operator })
}

/// Checks that `anchor` stands. The text is all that counts of a receipt.
pub fn verify_anchor(receipt: &str, anchor: &Anchor, trust: &Trust) -> Result<AnchorShown, BrokenLink> {
    let proof = TlogProof::parse(receipt.as_bytes()).map_err(|_| BrokenLink::Form(Malformed::Text))?;
    let entry = proof.extra().ok_or(BrokenLink::Form(Malformed::Short))?;
    let (size, root) = trust.open(proof.checkpoint())?;
    let index = proof.index();
    verify_inclusion(&leaf_hash(entry), index, size, proof.hashes(), &root).map_err(|_| BrokenLink::Inclusion)?;
    let Entry::Op { time, op } = Entry::from_bytes(entry).map_err(BrokenLink::Form)? else {
        return Err(BrokenLink::Claim);
    };
    if op.operation != Operation::Anchor(anchor.clone()) {
        return Err(BrokenLink::Claim);
    }
    Ok(AnchorShown {
        position: Position { height: index, index: 0, time },
        height: size,
        root,
        signers: op.signatures.iter().map(|Signature { key, .. }| *key).collect(),
        assurance: Assurance::Operator,
    })
}

impl Trust {
    /// The ledger's key as C2SP signed-note names it; its text form is what a trust file holds.
    pub fn verifier_key(&self) -> Result<VerifierKey, BrokenLink> {
        let name = KeyName::new(self.ledger.as_str()).map_err(|_| BrokenLink::Checkpoint)?;
        Ok(VerifierKey::new(name, KeyKind::Ed25519, self.key))
    }

    /// From a verifier key, whose name is the ledger's.
    pub fn from_verifier_key(key: &VerifierKey) -> Result<Self, BrokenLink> {
        if key.kind() != KeyKind::Ed25519 {
            return Err(BrokenLink::Kind);
        }
        let ledger = Origin::parse(key.name().as_str()).map_err(BrokenLink::Form)?;
        Ok(Self { ledger, key: *key.public_key() })
    }

    /// That the checkpoint is this ledger's and signed by its key.
    pub(crate) fn verify(&self, signed: &SignedCheckpoint) -> Result<(), BrokenLink> {
        if signed.checkpoint().origin() != self.ledger.as_str() {
            return Err(BrokenLink::Checkpoint);
        }
        let ed25519 =
            |key: &[u8; 32], message: &[u8], signature: &[u8; 64]| PublicKey::Ed25519(*key).verify(message, signature);
        signed.note().verify([&self.verifier_key()?], &ed25519).map(drop).map_err(|_| BrokenLink::Checkpoint)
    }

    fn open(&self, signed: &SignedCheckpoint) -> Result<(u64, Hash), BrokenLink> {
        self.verify(signed)?;
        Ok((signed.checkpoint().size(), *signed.checkpoint().root()))
    }
}

/// The parts of a subject's proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectProof {
    /// The signed note.
    pub(crate) checkpoint: String,
    pub(crate) map_head: MapHead,
    pub(crate) inclusion: Vec<Hash>,
    pub(crate) map: MapProof,
    pub(crate) record: Option<SubjectRecord>,
}

impl SubjectProof {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(FORMAT).long(self.checkpoint.as_bytes());
        out.u64(self.map_head.time.0).u64(self.map_head.covers).fixed(&self.map_head.root);
        out.u8(u8::try_from(self.inclusion.len()).unwrap_or(u8::MAX));
        self.inclusion.iter().for_each(|hash| {
            out.fixed(hash);
        });
        out.long(&self.map.encode());
        match &self.record {
            None => out.long(&[]),
            Some(record) => out.long(&Operation::Subject(record.clone()).to_bytes()),
        };
        out.finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        if input.u8()? != FORMAT {
            return Err(Malformed::Tag);
        }
        let checkpoint = std::str::from_utf8(input.long()?).map_err(|_| Malformed::Text)?.to_owned();
        let map_head = MapHead { time: Timestamp(input.u64()?), covers: input.u64()?, root: input.array()? };
        let count = usize::from(input.u8()?);
        if count > INCLUSION_MAX {
            return Err(Malformed::TooLong);
        }
        let inclusion = (0..count).map(|_| input.array()).collect::<Result<_, _>>()?;
        let map = MapProof::decode(input.long()?).map_err(|_| Malformed::Contradiction)?;
        let record = match input.long()? {
            [] => None,
            bytes => match Operation::from_bytes(bytes)? {
                Operation::Subject(record) => Some(record),
                _ => return Err(Malformed::Tag),
            },
        };
        input.finish()?;
        Ok(Self { checkpoint, map_head, inclusion, map, record })
    }
}

/// The receipt of an anchor whose log entry is `entry`: a C2SP tlog-proof with the entry as its extra data.
pub(crate) fn anchor_receipt(
    position: Position,
    entry: Vec<u8>,
    inclusion: Vec<Hash>,
    checkpoint: SignedCheckpoint,
) -> Result<Receipt, TlogProofError> {
    let height = checkpoint.checkpoint().size();
    let proof = TlogProof::new(position.height, inclusion, checkpoint)?.with_extra(entry)?;
    Ok(Receipt { assurance: Assurance::Operator, position, height, text: proof.to_string() })
}

impl From<BrokenLink> for LedgerError {
    fn from(link: BrokenLink) -> Self {
        Self::Integrity(super::error::Breach::BadProof(match link {
            BrokenLink::Form(_) => "form",
            BrokenLink::Checkpoint => "the checkpoint's signature",
            BrokenLink::Inclusion => "the inclusion of a leaf",
            BrokenLink::MapHead => "the map's root",
            BrokenLink::Record => "a record",
            BrokenLink::Claim => "another claim",
            BrokenLink::Kind => "another kind of ledger",
        }))
    }
}
