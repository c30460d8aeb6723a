//! The local mirror of the ledger's subject records, by which decisions are made: never a call to a ledger per resource.
//!
//! Takes what the ledger's changes say, gives for a pseudonym the record that is final and the one that is coming.
//! While version n+1 is seen but not final a permit needs both; a change that was retracted keeps denying until its
//! absence is final. A mirror older than allowed answers nothing. In memory; what fills it is durable elsewhere.
//!
//! An open-addressing table over fixed slots: pseudonyms are keyed hashes, so their own bytes spread them and nobody
//! without the key can choose two that collide. It grows by a quarter, so a record costs at most 80 bytes.

use std::collections::HashMap;

use super::decide::{Decision, Outcome, rule};
use super::pseudonym::Pseudonym;

/// What the ledger says of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its policies hold.
    Active,
    /// The subject withdrew everything.
    Revoked,
    /// The subject was erased: nothing may be decided by it again.
    Erased,
}

/// One version of a subject's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts from 1; the ledger's compare-and-set is on it.
    pub version: u64,
    /// What it says.
    pub state: State,
    /// Number of the policy set, as the caller has interned it.
    pub policies: u32,
}

/// What is known of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct View {
    /// The record that is final.
    pub last: Option<Record>,
    /// A later one that is not, or was retracted and may still come.
    pub coming: Option<Record>,
}

/// Subjects by pseudonym. One writer; readers hold a shared reference.
#[derive(Debug, Default)]
pub struct Mirror {
    slots: Vec<Slot>,
    len: usize,
    /// Few at any time: those of the blocks that are not final yet.
    coming: HashMap<Pseudonym, Record>,
    /// When the ledger last said that nothing newer is final, in microseconds since 1970.
    as_of_micros: Option<i64>,
}

/// 48 bytes. Version 0 marks an empty slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: [u8; 32],
    version: u64,
    policies: u32,
    state: State,
}

const EMPTY: Slot = Slot { key: [0; 32], version: 0, policies: 0, state: State::Erased };

/// Slots in use of all, at most: 3/4 after a growth by a quarter is 60 % before it.
const LOAD: (usize, usize) = (3, 4);

impl Mirror {
    /// An empty mirror.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of a subject.
    pub fn view(&self, subject: Pseudonym) -> View {
        View { last: self.last(subject), coming: self.coming.get(&subject).copied() }
    }

    /// Decides by the final record, and by the coming one if there is: both must permit. `by_policies` decides by a
    /// policy set, or by the implicit policy where there is no record.
    pub fn decide(&self, subject: Pseudonym, mut by_policies: impl FnMut(Option<u32>) -> Decision) -> Decision {
        let view = self.view(subject);
        let mut by_record = |record: Option<Record>| match record {
            None => by_policies(None),
            Some(Record { state: State::Active, policies, .. }) => by_policies(Some(policies)),
            Some(Record { state: State::Revoked | State::Erased, .. }) => Decision::plain(Outcome::Deny, rule::REVOKED),
        };
        let decided = by_record(view.last);
        match view.coming {
            Some(coming) => decided.and(by_record(Some(coming))),
            None => decided,
        }
    }

    /// A record was seen that is not final. An older one than what is final is passed over.
    pub fn see(&mut self, subject: Pseudonym, record: Record) {
        let is_newer = |other: Option<Record>| other.is_none_or(|other| record.version > other.version);
        if is_newer(self.last(subject)) && is_newer(self.coming.get(&subject).copied()) {
            self.coming.insert(subject, record);
        }
    }

    /// A record is final. It takes the place of every older one. Passed over if a later one is final already, so that
    /// replaying changes is harmless.
    pub fn finalize(&mut self, subject: Pseudonym, record: Record) {
        if record.version == 0 || self.last(subject).is_some_and(|last| last.version > record.version) {
            return;
        }
        if self.coming.get(&subject).is_some_and(|coming| coming.version <= record.version) {
            self.coming.remove(&subject);
        }
        self.put(subject, record);
    }

    /// It is final that the coming record of a version, seen before, is not on the ledger. Not to be called on the mere
    /// news of a retraction: until its absence is final, the change keeps denying.
    pub fn absent(&mut self, subject: Pseudonym, version: u64) {
        if self.coming.get(&subject).is_some_and(|coming| coming.version == version) {
            self.coming.remove(&subject);
        }
    }

    /// The ledger said that up to this moment nothing is final that the mirror does not hold. Never goes back.
    pub fn confirm(&mut self, as_of_micros: i64) {
        self.as_of_micros = self.as_of_micros.max(Some(as_of_micros));
    }

    /// Whether the mirror is young enough to decide by. `now_micros` is the gateway's clock; a mirror from the future,
    /// beyond the skew allowed, is as bad as an old one.
    pub fn is_fresh(&self, now_micros: i64, staleness_max_micros: i64, skew_max_micros: i64) -> bool {
        self.as_of_micros.is_some_and(|as_of| {
            let age = now_micros.saturating_sub(as_of);
            age <= staleness_max_micros && age >= skew_max_micros.saturating_neg()
        })
    }

    /// Subjects with a final record.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that the final records take, in bytes.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn last(&self, subject: Pseudonym) -> Option<Record> {
        let slot = self.slots.get(self.find(subject)?)?;
        (slot.version != 0).then_some(Record { version: slot.version, state: slot.state, policies: slot.policies })
    }

    /// The slot of a subject, or the empty one where it would go.
    fn find(&self, subject: Pseudonym) -> Option<usize> {
        let mut at = home(subject, self.slots.len());
        for _ in 0..self.slots.len() {
            let slot = self.slots.get(at)?;
            if slot.version == 0 || slot.key == subject.0 {
                return Some(at);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        None
    }

    fn put(&mut self, subject: Pseudonym, record: Record) {
        if (self.len + 1) * LOAD.1 > self.slots.len() * LOAD.0 {
            self.grow();
        }
        let Some(slot) = self.find(subject).and_then(|at| self.slots.get_mut(at)) else { return };
        self.len += usize::from(slot.version == 0);
        *slot = Slot { key: subject.0, version: record.version, policies: record.policies, state: record.state };
    }

    fn grow(&mut self) {
        let wanted = (self.slots.len() + self.slots.len() / 4).max(64);
        let mut slots = Vec::new();
        slots.reserve_exact(wanted);
        slots.resize(wanted, EMPTY);
        let old = std::mem::replace(&mut self.slots, slots);
        for slot in old.into_iter().filter(|slot| slot.version != 0) {
            if let Some(at) = self.find(Pseudonym(slot.key))
                && let Some(empty) = self.slots.get_mut(at)
            {
                *empty = slot;
            }
        }
    }
}

/// Where a subject's probe begins: its first eight bytes, scaled to the table.
fn home(subject: Pseudonym, slots: usize) -> usize {
    let start = subject.0.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let scaled = (u128::from(start) * slots as u128) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(number: u64) -> Pseudonym {
        use sha2::Digest as _;
        Pseudonym(sha2::Sha256::digest(number.to_be_bytes()).into())
    }

    fn active(version: u64, policies: u32) -> Record {
        Record { version, state: State::Active, policies }
    }

    /// Policy set 1 permits, 2 denies; without a record the implicit policy denies.
    fn decide(mirror: &Mirror, who: Pseudonym) -> Outcome {
        let by = |policies| match policies {
            Some(1) => Decision::plain(Outcome::Permit, rule::PERMIT),
            Some(_) => Decision::plain(Outcome::Deny, rule::DENY),
            None => Decision::plain(Outcome::Deny, rule::IMPLICIT_DENY),
        };
        mirror.decide(who, by).outcome
    }

    #[test]
    fn a_permit_needs_the_final_and_the_coming_version() {
        let (mut mirror, who) = (Mirror::new(), subject(1));
        assert_eq!(decide(&mirror, who), Outcome::Deny);
        mirror.see(who, active(1, 1));
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a grant that is not final grants nothing");
        mirror.finalize(who, active(1, 1));
        assert_eq!(decide(&mirror, who), Outcome::Permit);
        mirror.see(who, active(2, 2));
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a denial denies as soon as it is seen");
        // A retraction is no news that counts; only its absence, when final, lifts it.
        mirror.absent(who, 3);
        assert_eq!(decide(&mirror, who), Outcome::Deny);
        mirror.absent(who, 2);
        assert_eq!(decide(&mirror, who), Outcome::Permit);
        mirror.finalize(who, Record { version: 2, state: State::Revoked, policies: 1 });
        assert_eq!(decide(&mirror, who), Outcome::Deny);
        mirror.finalize(who, active(1, 1));
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a replayed older version changes nothing");
    }

    #[test]
    fn an_old_mirror_is_not_fresh() {
        let mut mirror = Mirror::new();
        assert!(!mirror.is_fresh(0, 10, 1), "a mirror that was never confirmed is not fresh");
        mirror.confirm(100);
        mirror.confirm(50);
        assert!(mirror.is_fresh(110, 10, 1) && !mirror.is_fresh(111, 10, 1));
        assert!(mirror.is_fresh(99, 10, 1) && !mirror.is_fresh(98, 10, 1));
    }

    #[test]
    fn all_subjects_are_found_again_in_bounded_memory() {
        let mut mirror = Mirror::new();
        for number in 0..50_000 {
            mirror.finalize(subject(number), active(number + 1, 1));
            assert!(mirror.len() < 1000 || mirror.bytes() <= mirror.len() * 100);
        }
        assert_eq!(mirror.len(), 50_000);
        assert!((0..50_000).all(|number| mirror.view(subject(number)).last == Some(active(number + 1, 1))));
        assert_eq!(mirror.view(subject(50_000)), View::default());
    }
}
