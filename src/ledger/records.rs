//! What stands on a ledger: institutions, devices, subject records and anchors, in codes and pseudonyms only.
//!
//! Takes: fields, or bytes from outside. Gives: [`Operation`]s with one canonical byte form each, and [`SignedOp`]s.
//! Never: decides who may sign (that is [`super::rules`]); never holds health data or a bare hash of any.
//!
//! Every record has a version, put by compare-and-set: version n+1 is taken only where n stands. The id of an
//! operation is the SHA-256 of its canonical unsigned bytes, so the same content is the same operation on every ledger.

use sha2::{Digest as _, Sha256};

pub use super::ids::{Name, OpId, Origin, Pseudonym, Timestamp};

use super::codec::{Malformed, Reader, Writer};
use super::error::Rejection;
use super::signature::{PublicKey, SignFailed, Signature, Signer};

/// The format that this code writes and reads.
const FORMAT: u8 = 1;
/// What every signature on an operation is over, before the ledger's name and the operation's bytes: an operation
/// signed for one ledger is void on another.
const SIGNED: &[u8] = b"sluice-ledger-op-1\n";

/// What an institution is to the others. The order is the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Treats patients and sends records.
    Hospital,
    /// Pays for treatment.
    Insurer,
    /// Researches and makes drugs.
    Pharma,
    /// Keeps a register of a disease or a procedure.
    Registry,
    /// Oversees.
    Regulator,
    /// Watches for adverse events.
    Monitor,
}

impl Role {
    /// All roles, in order.
    pub const ALL: [Self; 6] =
        [Self::Hospital, Self::Insurer, Self::Pharma, Self::Registry, Self::Regulator, Self::Monitor];
}

/// Whether an institution takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It does.
    Admitted,
    /// It does not, until admitted again; nor do its devices.
    Suspended,
}

/// A member of the consortium, admitted by its administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Institution {
    /// Its id.
    pub id: Name,
    /// From 1, without gaps.
    pub version: u64,
    /// Whether it takes part.
    pub standing: Standing,
    /// Strictly ascending, at least one.
    pub roles: Vec<Role>,
    /// Whether it may file a Consent for a patient who holds no key.
    pub attests: bool,
    /// Approves and withdraws its devices.
    pub master: PublicKey,
}

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// In a practitioner's hand: binds patients' keys, and attests.
    Practitioner,
    /// A gateway's own key: anchors, and files for patients without keys. It never binds.
    Gateway,
}

/// Whether a device's approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Approval {
    /// It does, within its validity.
    Approved,
    /// It was withdrawn.
    Withdrawn,
}

/// A key approved by an institution's master key. The key is its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its key.
    pub key: PublicKey,
    /// Whose it is; never changes.
    pub institution: Name,
    /// From 1, without gaps.
    pub version: u64,
    /// What it may do.
    pub kind: DeviceKind,
    /// Whether the approval stands.
    pub approval: Approval,
    /// First moment at which it is valid.
    pub valid_from: Timestamp,
    /// First moment at which it is not any more.
    pub valid_until: Timestamp,
}

/// Whether a patient's policies speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectState {
    /// The policies under the consent root are in force.
    Active,
    /// Everything was revoked: nothing permits.
    Revoked,
    /// The patient's data were erased. Final: no version follows.
    Erased,
}

/// Who filed a version of a subject record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FiledBy {
    /// The patient's key.
    Patient,
    /// An institution attested it: on behalf of a patient without keys, or to recover a lost key.
    Attested(Name),
}

/// All that the ledger knows of one patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRecord {
    /// Who.
    pub pseudonym: Pseudonym,
    /// From 1, without gaps, at most `u32::MAX`.
    pub version: u64,
    /// Whether the policies speak.
    pub state: SubjectState,
    /// Commits to the policies; see [`super::root`].
    pub consent_root: [u8; 32],
    /// The patient's keys, strictly ascending, at most [`Self::KEYS_MAX`]; empty where the patient holds none.
    pub keys: Vec<PublicKey>,
    /// Who filed this version.
    pub filed_by: FiledBy,
}

impl SubjectRecord {
    /// Most keys of one patient.
    pub const KEYS_MAX: usize = 8;

    /// What the prefix map holds under the pseudonym: SHA-256 of the canonical operation that puts this record, with
    /// zeros for the pseudonym, which the map's own leaf commits to.
    pub fn value_hash(&self) -> [u8; 32] {
        let mut out = Writer::new();
        write_subject(&Self { pseudonym: Pseudonym([0; 32]), ..self.clone() }, &mut out);
        Sha256::digest(out.finish()).into()
    }
}

/// A gateway's checkpoint, put under the ledger's time and witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The gateway's log.
    pub origin: Origin,
    /// Counts the origin's anchors, ascending.
    pub beat: u64,
    /// Leaves in the log.
    pub size: u64,
    /// The log's root.
    pub root: [u8; 32],
    /// SHA-256 of the signed checkpoint.
    pub checkpoint_hash: [u8; 32],
}

/// One operation, unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Admit, change or suspend an institution.
    Institution(Institution),
    /// Approve, change or withdraw a device.
    Device(Device),
    /// File a subject record.
    Subject(SubjectRecord),
    /// Anchor a checkpoint.
    Anchor(Anchor),
}

/// An operation with the signatures that carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOp {
    /// What.
    pub operation: Operation,
    /// By whom: strictly ascending by key, 1 to [`Self::SIGNATURES_MAX`].
    pub signatures: Vec<Signature>,
}

impl Operation {
    /// Longest canonical form, in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// The one byte form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Institution(record) => write_institution(record, &mut out),
            Self::Device(record) => write_device(record, &mut out),
            Self::Subject(record) => write_subject(record, &mut out),
            Self::Anchor(anchor) => write_anchor(anchor, &mut out),
        }
        out.finish()
    }

    /// Reads the canonical form and nothing else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let mut input = Reader::new(bytes);
        if input.u8()? != FORMAT {
            return Err(Malformed::Tag);
        }
        let operation = match input.u8()? {
            TAG_INSTITUTION => Self::Institution(read_institution(&mut input)?),
            TAG_DEVICE => Self::Device(read_device(&mut input)?),
            TAG_SUBJECT => Self::Subject(read_subject(&mut input)?),
            TAG_ANCHOR => Self::Anchor(read_anchor(&mut input)?),
            _ => return Err(Malformed::Tag),
        };
        input.finish()?;
        operation.check()?;
        Ok(operation)
    }

    /// The bounds that the types do not hold by themselves. What passes is written and read back as it is.
    pub fn check(&self) -> Result<(), Malformed> {
        match self {
            Self::Institution(record) => {
                version(record.version)?;
                if record.roles.is_empty() { Err(Malformed::Contradiction) } else { ascending(&record.roles) }
            }
            Self::Device(record) => {
                version(record.version)?;
                if record.valid_from < record.valid_until { Ok(()) } else { Err(Malformed::Contradiction) }
            }
            Self::Subject(record) => {
                version(record.version)?;
                if record.keys.len() > SubjectRecord::KEYS_MAX {
                    return Err(Malformed::TooLong);
                }
                if record.keys.is_empty() && record.filed_by == FiledBy::Patient {
                    return Err(Malformed::Contradiction);
                }
                ascending(&record.keys)
            }
            Self::Anchor(_) => Ok(()),
        }
    }

    /// SHA-256 of the canonical bytes.
    pub fn id(&self) -> OpId {
        OpId(Sha256::digest(self.to_bytes()).into())
    }

    /// The bytes that a signer signs for the ledger of that name.
    pub fn message(&self, ledger: &Origin) -> Vec<u8> {
        let mut out = Writer::new();
        out.fixed(SIGNED).fixed(ledger.as_str().as_bytes()).u8(b'\n').fixed(&self.to_bytes());
        out.finish()
    }

    /// Signs for the ledger of that name. The signers may come in any order; one key signs once.
    pub fn sign(self, ledger: &Origin, signers: &[&dyn Signer]) -> Result<SignedOp, SignFailed> {
        let message = self.message(ledger);
        let mut signatures =
            signers.iter().map(|signer| Signature::by(*signer, &message)).collect::<Result<Vec<_>, _>>()?;
        signatures.sort_by_key(|signature| signature.key);
        signatures.dedup_by_key(|signature| signature.key);
        Ok(SignedOp { operation: self, signatures })
    }
}

impl SignedOp {
    /// Most signatures on one operation.
    pub const SIGNATURES_MAX: usize = 4;
    /// Longest form, in bytes.
    pub const BYTES_MAX: usize = 2 + Operation::BYTES_MAX + 1 + Self::SIGNATURES_MAX * (1 + 33 + 64);

    /// The operation's length and bytes, then the signatures.
    pub fn to_bytes(&self) -> Vec<u8> {
        let operation = self.operation.to_bytes();
        let mut out = Writer::new();
        out.u16(u16::try_from(operation.len()).unwrap_or(u16::MAX)).fixed(&operation);
        out.u8(u8::try_from(self.signatures.len()).unwrap_or(u8::MAX));
        self.signatures.iter().for_each(|signature| signature.write(&mut out));
        out.finish()
    }

    /// Reads what [`Self::to_bytes`] writes; checks no signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let mut input = Reader::new(bytes);
        let length = usize::from(input.u16()?);
        let operation = Operation::from_bytes(input.take(length)?)?;
        let count = usize::from(input.u8()?);
        if count > Self::SIGNATURES_MAX {
            return Err(Malformed::TooLong);
        }
        let signatures = (0..count).map(|_| Signature::read(&mut input)).collect::<Result<Vec<_>, _>>()?;
        input.finish()?;
        let signed = Self { operation, signatures };
        signed.check()?;
        Ok(signed)
    }

    /// The id of the operation; signatures have no part in it.
    pub fn id(&self) -> OpId {
        self.operation.id()
    }

    /// Bounds, and every signature against the key that it claims. Whether those keys may is the rules' question.
    pub fn verify(&self, ledger: &Origin) -> Result<(), Rejection> {
        self.check()?;
        let message = self.operation.message(ledger);
        self.signatures.iter().try_for_each(|signature| signature.verify(&message))
    }

    /// Whether `key` is among the signers.
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        self.signatures.binary_search_by_key(key, |signature| signature.key).is_ok()
    }

    fn check(&self) -> Result<(), Malformed> {
        if !(1..=Self::SIGNATURES_MAX).contains(&self.signatures.len()) {
            return Err(Malformed::Range);
        }
        if !self.signatures.is_sorted_by(|a, b| a.key < b.key) {
            return Err(Malformed::Order);
        }
        self.operation.check()
    }
}

const TAG_INSTITUTION: u8 = 1;
const TAG_DEVICE: u8 = 2;
const TAG_SUBJECT: u8 = 3;
const TAG_ANCHOR: u8 = 4;

/// Versions start at 1, and are kept in 32 bits: four billion changes of one record.
fn version(version: u64) -> Result<(), Malformed> {
    if (1..=u64::from(u32::MAX)).contains(&version) { Ok(()) } else { Err(Malformed::Range) }
}

fn ascending<T: Ord>(list: &[T]) -> Result<(), Malformed> {
    if list.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Malformed::Order) }
}

fn write_institution(record: &Institution, out: &mut Writer) {
    out.u8(FORMAT).u8(TAG_INSTITUTION);
    record.id.write(out);
    out.u64(record.version).u8(match record.standing {
        Standing::Admitted => 1,
        Standing::Suspended => 2,
    });
    out.u8(u8::try_from(record.roles.len()).unwrap_or(u8::MAX));
    record.roles.iter().for_each(|role| {
        out.u8(*role as u8 + 1);
    });
    out.u8(u8::from(record.attests));
    record.master.write(out);
}

fn read_institution(input: &mut Reader<'_>) -> Result<Institution, Malformed> {
    let id = Name::read(input)?;
    let version = input.u64()?;
    let standing = match input.u8()? {
        1 => Standing::Admitted,
        2 => Standing::Suspended,
        _ => return Err(Malformed::Tag),
    };
    let count = usize::from(input.u8()?);
    let roles = (0..count)
        .map(|_| {
            let tag = usize::from(input.u8()?);
            tag.checked_sub(1).and_then(|index| Role::ALL.get(index)).copied().ok_or(Malformed::Tag)
        })
        .collect::<Result<_, _>>()?;
    let attests = match input.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed::Tag),
    };
    Ok(Institution { id, version, standing, roles, attests, master: PublicKey::read(input)? })
}

fn write_device(record: &Device, out: &mut Writer) {
    out.u8(FORMAT).u8(TAG_DEVICE);
    record.key.write(out);
    record.institution.write(out);
    out.u64(record.version)
        .u8(match record.kind {
            DeviceKind::Practitioner => 1,
            DeviceKind::Gateway => 2,
        })
        .u8(match record.approval {
            Approval::Approved => 1,
            Approval::Withdrawn => 2,
        })
        .u64(record.valid_from.0)
        .u64(record.valid_until.0);
}

fn read_device(input: &mut Reader<'_>) -> Result<Device, Malformed> {
    Ok(Device {
        key: PublicKey::read(input)?,
        institution: Name::read(input)?,
        version: input.u64()?,
        kind: match input.u8()? {
            1 => DeviceKind::Practitioner,
            2 => DeviceKind::Gateway,
            _ => return Err(Malformed::Tag),
        },
        approval: match input.u8()? {
            1 => Approval::Approved,
            2 => Approval::Withdrawn,
            _ => return Err(Malformed::Tag),
        },
        valid_from: Timestamp(input.u64()?),
        valid_until: Timestamp(input.u64()?),
    })
}

fn write_subject(record: &SubjectRecord, out: &mut Writer) {
    out.u8(FORMAT).u8(TAG_SUBJECT).fixed(&record.pseudonym.0).u64(record.version).u8(record.state.tag());
    out.fixed(&record.consent_root).u8(u8::try_from(record.keys.len()).unwrap_or(u8::MAX));
    record.keys.iter().for_each(|key| key.write(out));
    match &record.filed_by {
        FiledBy::Patient => {
            out.u8(1);
        }
        FiledBy::Attested(institution) => {
            out.u8(2);
            institution.write(out);
        }
    }
}

fn read_subject(input: &mut Reader<'_>) -> Result<SubjectRecord, Malformed> {
    Ok(SubjectRecord {
        pseudonym: Pseudonym(input.array()?),
        version: input.u64()?,
        state: SubjectState::from_tag(input.u8()?)?,
        consent_root: input.array()?,
        keys: {
            let count = usize::from(input.u8()?);
            (0..count).map(|_| PublicKey::read(input)).collect::<Result<_, _>>()?
        },
        filed_by: match input.u8()? {
            1 => FiledBy::Patient,
            2 => FiledBy::Attested(Name::read(input)?),
            _ => return Err(Malformed::Tag),
        },
    })
}

impl SubjectState {
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Active => 1,
            Self::Revoked => 2,
            Self::Erased => 3,
        }
    }

    pub(crate) fn from_tag(tag: u8) -> Result<Self, Malformed> {
        match tag {
            1 => Ok(Self::Active),
            2 => Ok(Self::Revoked),
            3 => Ok(Self::Erased),
            _ => Err(Malformed::Tag),
        }
    }
}

fn write_anchor(anchor: &Anchor, out: &mut Writer) {
    out.u8(FORMAT).u8(TAG_ANCHOR);
    anchor.origin.write(out);
    out.u64(anchor.beat).u64(anchor.size).fixed(&anchor.root).fixed(&anchor.checkpoint_hash);
}

fn read_anchor(input: &mut Reader<'_>) -> Result<Anchor, Malformed> {
    Ok(Anchor {
        origin: Origin::read(input)?,
        beat: input.u64()?,
        size: input.u64()?,
        root: input.array()?,
        checkpoint_hash: input.array()?,
    })
}
