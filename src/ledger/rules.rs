//! Who may sign what, and which version may follow which.
//!
//! Takes: an operation whose signatures verify, the state before it, the ledger's time. Gives: nothing, or the exact
//! reason against it. Never: reads a clock, touches a disk, or looks at more than the records that the operation names.
//!
//! | operation | needs |
//! |---|---|
//! | institution | the administrator |
//! | device | its institution's master key; the institution is admitted (to withdraw, it need not be) |
//! | subject, bound to a patient's key | one of the keys that stand |
//! | subject, binding a key | one of the new keys, and a practitioner's valid device |
//! | subject, recovering a lost key | one of the new keys, a practitioner's valid device, and a second attester: such a device of another institution, or the administrator. Nothing but the keys changes |
//! | subject, without keys | a valid device or the master key of an admitted institution that attests |
//! | anchor | a gateway's valid device, or the master key, of the institution that leads the origin |
//!
//! So no gateway, nor any institution alone, can write a record that a patient's key holds.

use super::error::{Authority, Rejection};
use super::ids::{Name, Origin, Pseudonym, Timestamp};
use super::records::{
    Anchor, Approval, Device, DeviceKind, FiledBy, Institution, Operation, SignedOp, Standing, SubjectRecord,
    SubjectState,
};
use super::signature::PublicKey;

/// The state that rules read.
pub trait View {
    /// Who admits institutions.
    fn administrator(&self) -> PublicKey;
    /// An institution by its id.
    fn institution(&self, id: &Name) -> Option<&Institution>;
    /// A device by its key.
    fn device(&self, key: &PublicKey) -> Option<&Device>;
    /// A subject's record.
    fn subject(&self, pseudonym: &Pseudonym) -> Option<SubjectRecord>;
    /// The newest anchor of an origin.
    fn anchor(&self, origin: &Origin) -> Option<&Anchor>;
}

/// Whether `signed` may follow `view` at `now`. Its signatures have been verified before.
pub fn authorize(view: &impl View, signed: &SignedOp, now: Timestamp) -> Result<(), Rejection> {
    let rules = Rules { view, signed, now };
    match &signed.operation {
        Operation::Institution(record) => rules.institution(record),
        Operation::Device(record) => rules.device(record),
        Operation::Subject(record) => rules.subject(record),
        Operation::Anchor(anchor) => rules.anchor(anchor),
    }
}

struct Rules<'a, V> {
    view: &'a V,
    signed: &'a SignedOp,
    now: Timestamp,
}

impl<V: View> Rules<'_, V> {
    fn institution(&self, record: &Institution) -> Result<(), Rejection> {
        need(self.signed.signed_by(&self.view.administrator()), Authority::Administrator)?;
        successor(record.version, self.view.institution(&record.id).map(|standing| standing.version))
    }

    fn device(&self, record: &Device) -> Result<(), Rejection> {
        let institution =
            self.view.institution(&record.institution).ok_or(Rejection::NotAuthorised(Authority::Institution))?;
        let admitted = institution.standing == Standing::Admitted || record.approval == Approval::Withdrawn;
        need(admitted, Authority::Institution)?;
        need(self.signed.signed_by(&institution.master), Authority::Master)?;
        let standing = self.view.device(&record.key);
        // A key that one institution approved is not another's to take over.
        let same_house = standing.as_ref().is_none_or(|device| device.institution == record.institution);
        need(same_house, Authority::Master)?;
        successor(record.version, standing.map(|device| device.version))
    }

    fn subject(&self, record: &SubjectRecord) -> Result<(), Rejection> {
        let standing = self.view.subject(&record.pseudonym);
        successor(record.version, standing.as_ref().map(|subject| subject.version))?;
        if standing.as_ref().is_some_and(|subject| subject.state == SubjectState::Erased) {
            return Err(Rejection::Unsupported("the subject was erased, and nothing follows that"));
        }
        let bound = standing.filter(|subject| !subject.keys.is_empty());
        match (bound, &record.filed_by) {
            (Some(bound), FiledBy::Patient) => need(self.any_signed(&bound.keys), Authority::Patient),
            (Some(bound), FiledBy::Attested(house)) => self.recovery(&bound, record, house),
            (None, FiledBy::Patient) => {
                need(self.any_signed(&record.keys), Authority::Patient)?;
                self.practitioner(None).map(drop)
            }
            (None, FiledBy::Attested(house)) => {
                need(record.keys.is_empty(), Authority::Patient)?;
                self.attested(house)
            }
        }
    }

    /// A lost key: everything but the keys stays as it is, so that recovering and deciding are two visible acts.
    fn recovery(&self, bound: &SubjectRecord, record: &SubjectRecord, house: &Name) -> Result<(), Rejection> {
        let only_keys = record.consent_root == bound.consent_root && record.state == bound.state;
        need(only_keys && self.any_signed(&record.keys), Authority::Patient)?;
        // The record names the house that attested; the second attester is of another one.
        self.practitioner(Some((house, true)))?;
        if self.signed.signed_by(&self.view.administrator()) {
            return Ok(());
        }
        self.practitioner(Some((house, false))).map(drop).map_err(|rejection| match rejection {
            Rejection::NotAuthorised(Authority::Practitioner) => Rejection::NotAuthorised(Authority::SecondAttester),
            other => other,
        })
    }

    fn attested(&self, house: &Name) -> Result<(), Rejection> {
        let institution = self.admitted(house)?;
        need(institution.attests, Authority::Attested)?;
        if self.signed.signed_by(&institution.master) {
            return Ok(());
        }
        self.valid_device(Authority::Attested, |device| device.institution == *house).map(drop)
    }

    fn anchor(&self, anchor: &Anchor) -> Result<(), Rejection> {
        let owner = anchor.origin.as_str().split('/').next().unwrap_or_default();
        let institution = self.admitted(&Name::parse(owner)?)?;
        if !self.signed.signed_by(&institution.master) {
            self.valid_device(Authority::Origin, |device| {
                device.kind == DeviceKind::Gateway && device.institution == institution.id
            })?;
        }
        let Some(last) = self.view.anchor(&anchor.origin) else { return Ok(()) };
        let regression = |reason| Err(Rejection::AnchorRegression { beat: last.beat, reason });
        if anchor.beat <= last.beat {
            return regression("the beat does not advance");
        }
        if anchor.size < last.size {
            return regression("the size shrinks");
        }
        if anchor.size == last.size && anchor.root != last.root {
            return regression("a second root for one size");
        }
        Ok(())
    }

    /// A practitioner's valid device among the signers; with `house`, one of (or not of) that house.
    fn practitioner(&self, house: Option<(&Name, bool)>) -> Result<&Device, Rejection> {
        self.valid_device(Authority::Practitioner, |device| {
            device.kind == DeviceKind::Practitioner
                && house.is_none_or(|(name, same)| (device.institution == *name) == same)
        })
    }

    /// A signer's device that `fits`, is approved, in its time, and of an admitted institution. If one fits and only
    /// its time or approval does not hold, that is the reason given.
    fn valid_device(&self, needed: Authority, fits: impl Fn(&Device) -> bool) -> Result<&Device, Rejection> {
        let mut rejection = Rejection::NotAuthorised(needed);
        for signature in &self.signed.signatures {
            let Some(device) = self.view.device(&signature.key).filter(|device| fits(device)) else { continue };
            if self.admitted(&device.institution).is_err() {
                rejection = Rejection::NotAuthorised(Authority::Institution);
            } else if device.approval == Approval::Approved
                && (device.valid_from..device.valid_until).contains(&self.now)
            {
                return Ok(device);
            } else {
                rejection = Rejection::Expired { at: self.now };
            }
        }
        Err(rejection)
    }

    fn admitted(&self, id: &Name) -> Result<&Institution, Rejection> {
        self.view
            .institution(id)
            .filter(|institution| institution.standing == Standing::Admitted)
            .ok_or(Rejection::NotAuthorised(Authority::Institution))
    }

    fn any_signed(&self, keys: &[PublicKey]) -> bool {
        keys.iter().any(|key| self.signed.signed_by(key))
    }
}

fn need(holds: bool, authority: Authority) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(Rejection::NotAuthorised(authority)) }
}

/// Compare-and-set: the next version follows the one that stands, and the first follows none.
fn successor(version: u64, standing: Option<u64>) -> Result<(), Rejection> {
    let have = standing.unwrap_or(0);
    if have.checked_add(1) == Some(version) { Ok(()) } else { Err(Rejection::Conflict { have }) }
}
