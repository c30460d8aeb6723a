//! The local mirror of the ledger's subject records, by which decisions are made: never a call to a ledger per resource.
//!
//! Takes what the ledger's changes say, gives for a pseudonym the record that is final and those that are coming.
//! While a later version is seen but not final a permit needs both; a change that was retracted keeps denying until its
//! absence is final. A mirror older than allowed answers nothing. In memory; what fills it is durable elsewhere.
//!
//! An open-addressing table over fixed slots: pseudonyms are keyed hashes, so their own bytes spread them and nobody
//! without the key can choose two that collide. A slot holds the first 16 bytes of a pseudonym, which are 128 bits of a
//! keyed hash: as good a name. The table grows by a quarter, so a record costs at most 94 bytes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::decide::{Decision, Outcome, rule};
use super::pseudonym::Pseudonym;
use crate::ledger::{OpId, SubjectRecord, SubjectState};
use crate::observe::now_micros;

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
    /// Counts from 1, in 32 bits as the ledger's format has it; the ledger's compare-and-set is on it.
    pub version: u32,
    /// What it says.
    pub state: State,
    /// The consent root: commits to all policies of the subject.
    pub root: [u8; 32],
}

impl From<&SubjectRecord> for Record {
    fn from(record: &SubjectRecord) -> Self {
        let state = match record.state {
            SubjectState::Active => State::Active,
            SubjectState::Revoked => State::Revoked,
            SubjectState::Erased => State::Erased,
        };
        let version = u32::try_from(record.version).unwrap_or(u32::MAX);
        Self { version, state, root: record.consent_root }
    }
}

/// What is known of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct View {
    /// The record that is final.
    pub last: Option<Record>,
    /// Later ones that are not, or were retracted and may still come; in the order seen.
    pub coming: Vec<Record>,
}

impl View {
    /// The highest version seen: what a decision rests on, and what moves when the subject decides anew.
    pub fn version(&self) -> Option<u64> {
        self.last.iter().chain(&self.coming).map(|record| u64::from(record.version)).max()
    }

    /// Every record that must permit. Without any there is one question still: what holds where nobody spoke.
    pub fn records(&self) -> impl Iterator<Item = Option<Record>> + '_ {
        std::iter::once(self.last).chain(self.coming.iter().copied().map(Some))
    }
}

/// A moment, by two clocks: one that never steps, and the gateway's. The first stands still while a machine is suspended
/// and the second can be set, so what has passed since is the longer of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    steady: Instant,
    wall_micros: i64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall_micros: now_micros() }
    }

    /// How long ago `earlier` was. A clock that was set back makes nothing younger.
    fn since(self, earlier: Self) -> Duration {
        let wall = self.wall_micros.saturating_sub(earlier.wall_micros);
        let wall = Duration::from_micros(u64::try_from(wall).unwrap_or(0));
        self.steady.saturating_duration_since(earlier.steady).max(wall)
    }
}

/// Subjects by pseudonym. One writer; readers hold a shared reference.
#[derive(Debug, Default)]
pub struct Mirror {
    slots: Vec<Slot>,
    len: usize,
    /// Few at any time: those of the blocks that are not final yet.
    coming: HashMap<Pseudonym, Vec<Coming>>,
    /// The height up to which every change has been taken in.
    height: u64,
    /// When the ledger last said that it holds nothing that the mirror does not.
    as_of: Option<Moment>,
    /// The ledger's own time at that, in microseconds since 1970.
    ledger_micros: i64,
    /// The ledger contradicted itself. Never cleared: what it said before is not to be relied on either.
    is_contradicted: bool,
}

/// A record that is not final.
#[derive(Clone, Copy, Debug)]
struct Coming {
    record: Record,
    op: OpId,
    /// Where it stands: it is final once a head beyond it is.
    height: u64,
    retracted: bool,
}

/// 56 bytes. Version 0 marks an empty slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: [u8; 16],
    root: [u8; 32],
    version: u32,
    state: State,
}

const EMPTY: Slot = Slot { key: [0; 16], root: [0; 32], version: 0, state: State::Erased };

/// Slots in use of all, at most: 3/4 after a growth by a quarter is 60 % before it.
const LOAD: (usize, usize) = (3, 4);

impl Mirror {
    /// An empty mirror.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of a subject.
    pub fn view(&self, subject: Pseudonym) -> View {
        let coming = self.coming.get(&subject).into_iter().flatten().map(|coming| coming.record).collect();
        View { last: self.last(subject), coming }
    }

    /// Decides by the final record, and by those that are coming: all must permit. `by_root` decides by the policies
    /// under a consent root, or by the implicit policy where there is no record.
    pub fn decide(&self, subject: Pseudonym, mut by_root: impl FnMut(Option<&[u8; 32]>) -> Decision) -> Decision {
        let view = self.view(subject);
        let by_record = |record: Option<Record>| match record {
            None => by_root(None),
            Some(Record { state: State::Active, root, .. }) => by_root(Some(&root)),
            Some(Record { state: State::Revoked | State::Erased, .. }) => Decision::plain(Outcome::Deny, rule::REVOKED),
        };
        let decisions = view.records().map(by_record).reduce(Decision::and);
        decisions.unwrap_or_else(|| Decision::plain(Outcome::Deny, rule::REVOKED))
    }

    /// A record was seen that is not final, put by `op` at `height`. What is not newer than the final one is passed over,
    /// and so is what was seen before.
    pub fn see(&mut self, subject: Pseudonym, record: Record, op: OpId, height: u64) {
        if record.version == 0 || self.last(subject).is_some_and(|last| last.version >= record.version) {
            return;
        }
        let coming = self.coming.entry(subject).or_default();
        match coming.iter_mut().find(|known| known.op == op) {
            // It is back, perhaps elsewhere.
            Some(known) => (known.height, known.retracted) = (height, false),
            None => coming.push(Coming { record, op, height, retracted: false }),
        }
    }

    /// An operation is gone from the ledger's history. It keeps denying: it may come back until its absence is final.
    pub fn retract(&mut self, op: OpId) {
        for coming in self.coming.values_mut().flatten().filter(|coming| coming.op == op) {
            coming.retracted = true;
        }
    }

    /// Everything below `height` is final: what was seen there takes the place of every older record, and what was
    /// retracted there is absent for good.
    pub fn finalize(&mut self, height: u64) {
        let mut settled = Vec::new();
        self.coming.retain(|subject, coming| {
            coming.retain(|it| {
                if it.height < height && !it.retracted {
                    settled.push((*subject, it.record));
                }
                it.height >= height
            });
            !coming.is_empty()
        });
        for (subject, record) in settled {
            self.put(subject, record);
        }
        self.height = self.height.max(height);
    }

    /// Whether a change of anybody's record has been seen that is not final.
    pub fn is_moving(&self) -> bool {
        !self.coming.is_empty()
    }

    /// Every change below `height` has been taken in.
    pub fn reach(&mut self, height: u64) {
        self.height = self.height.max(height);
    }

    /// The height up to which every change has been taken in.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The ledger was asked at this moment and held nothing that the mirror does not; `ledger_micros` is its own time of
    /// its head, in microseconds since 1970.
    pub fn confirm(&mut self, asked: Moment, ledger_micros: i64) {
        self.as_of = Some(asked);
        self.ledger_micros = ledger_micros;
    }

    /// The ledger contradicted itself: the mirror is never fresh again in this process, whatever the clocks say.
    pub fn contradict(&mut self) {
        self.is_contradicted = true;
    }

    /// How long ago the ledger was last heard of; none if it never was.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.as_of.map(|as_of| now.since(as_of))
    }

    /// Whether the mirror is young enough to decide by. A ledger whose time lies ahead of the gateway's clock, beyond the
    /// skew allowed, is as bad as an old one: one of the two clocks is wrong, and periods are judged by it.
    pub fn is_fresh(&self, now: Moment, staleness_max: Duration, skew_max: Duration) -> bool {
        let skew_max = i64::try_from(skew_max.as_micros()).unwrap_or(i64::MAX);
        !self.is_contradicted
            && self.age(now).is_some_and(|age| age <= staleness_max)
            && self.ledger_micros <= now.wall_micros.saturating_add(skew_max)
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

    /// Puts a final record in the place of every older one. Passed over if a later one is final already, so that
    /// replaying changes is harmless.
    pub fn put(&mut self, subject: Pseudonym, record: Record) {
        if record.version == 0 || self.last(subject).is_some_and(|last| last.version > record.version) {
            return;
        }
        if (self.len + 1) * LOAD.1 > self.slots.len() * LOAD.0 {
            self.grow();
        }
        let key = short(subject);
        let Some(slot) = self.find(key).and_then(|at| self.slots.get_mut(at)) else { return };
        self.len += usize::from(slot.version == 0);
        *slot = Slot { key, root: record.root, version: record.version, state: record.state };
    }

    fn last(&self, subject: Pseudonym) -> Option<Record> {
        let slot = self.slots.get(self.find(short(subject))?)?;
        (slot.version != 0).then_some(Record { version: slot.version, state: slot.state, root: slot.root })
    }

    /// The slot of a subject, or the empty one where it would go.
    fn find(&self, key: [u8; 16]) -> Option<usize> {
        let mut at = home(key, self.slots.len());
        for _ in 0..self.slots.len() {
            let slot = self.slots.get(at)?;
            if slot.version == 0 || slot.key == key {
                return Some(at);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        None
    }

    fn grow(&mut self) {
        let wanted = (self.slots.len() + self.slots.len() / 4).max(64);
        let mut slots = Vec::new();
        slots.reserve_exact(wanted);
        slots.resize(wanted, EMPTY);
        let old = std::mem::replace(&mut self.slots, slots);
        for slot in old.into_iter().filter(|slot| slot.version != 0) {
            if let Some(empty) = self.find(slot.key).and_then(|at| self.slots.get_mut(at)) {
                *empty = slot;
            }
        }
    }
}

/// The first half of a pseudonym.
fn short(subject: Pseudonym) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&subject.0[..16]);
    first
}

/// Where a subject's probe begins: its first eight bytes, scaled to the table.
fn home(key: [u8; 16], slots: usize) -> usize {
    let start = key.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
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

    fn active(version: u32, root: u8) -> Record {
        Record { version, state: State::Active, root: [root; 32] }
    }

    fn op(number: u8) -> OpId {
        OpId([number; 32])
    }

    /// Root 1 permits, all others deny; without a record the implicit policy denies.
    fn decide(mirror: &Mirror, who: Pseudonym) -> Outcome {
        let by = |root: Option<&[u8; 32]>| match root {
            Some(root) if root[0] == 1 => Decision::plain(Outcome::Permit, rule::PERMIT),
            Some(_) => Decision::plain(Outcome::Deny, rule::DENY),
            None => Decision::plain(Outcome::Deny, rule::IMPLICIT_DENY),
        };
        mirror.decide(who, by).outcome
    }

    #[test]
    fn a_permit_needs_the_final_and_the_coming_version() {
        let (mut mirror, who) = (Mirror::new(), subject(1));
        assert_eq!(decide(&mirror, who), Outcome::Deny);
        mirror.see(who, active(1, 1), op(1), 4);
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a grant that is not final grants nothing");
        mirror.finalize(4);
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a head at its height does not cover it");
        mirror.finalize(5);
        assert_eq!(decide(&mirror, who), Outcome::Permit);
        mirror.see(who, active(2, 2), op(2), 6);
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a denial denies as soon as it is seen");
        mirror.see(who, active(3, 1), op(3), 7);
        assert_eq!(decide(&mirror, who), Outcome::Deny, "a later grant does not lift a denial that may stay");
        assert_eq!(mirror.view(who).version(), Some(3));
        mirror.finalize(8);
        assert_eq!(decide(&mirror, who), Outcome::Permit);
        mirror.see(who, active(2, 2), op(2), 6);
        assert_eq!(decide(&mirror, who), Outcome::Permit, "a replayed older version changes nothing");
    }

    #[test]
    fn a_retracted_change_denies_until_its_absence_is_final() {
        let (mut mirror, who) = (Mirror::new(), subject(1));
        mirror.put(who, active(1, 1));
        mirror.see(who, active(2, 2), op(2), 6);
        mirror.retract(op(2));
        assert_eq!(decide(&mirror, who), Outcome::Deny);
        mirror.finalize(6);
        assert_eq!(decide(&mirror, who), Outcome::Deny);
        mirror.finalize(7);
        assert_eq!(decide(&mirror, who), Outcome::Permit);
        mirror.see(who, active(2, 2), op(2), 8);
        mirror.retract(op(2));
        mirror.see(who, active(2, 2), op(2), 9);
        mirror.finalize(10);
        assert_eq!(decide(&mirror, who), Outcome::Deny, "it came back");
        mirror.see(who, Record { state: State::Revoked, ..active(3, 1) }, op(3), 11);
        mirror.finalize(12);
        assert_eq!(decide(&mirror, who), Outcome::Deny);
    }

    const SECOND: Duration = Duration::from_secs(1);
    const STALENESS: Duration = Duration::from_secs(10);

    /// So many seconds by the steady clock, and so many by the gateway's, after a beginning.
    fn at(begun: Instant, steady: u64, wall: i64) -> Moment {
        Moment { steady: begun + SECOND * u32::try_from(steady).unwrap(), wall_micros: wall * 1_000_000 }
    }

    #[test]
    fn an_old_mirror_is_not_fresh() {
        let (mut mirror, begun) = (Mirror::new(), Instant::now());
        let fresh = |mirror: &Mirror, now: Moment| mirror.is_fresh(now, STALENESS, SECOND);
        assert!(!fresh(&mirror, at(begun, 0, 0)), "a mirror that was never confirmed is not fresh");
        mirror.confirm(at(begun, 0, 100), 100_000_000);
        assert!(fresh(&mirror, at(begun, 10, 110)) && !fresh(&mirror, at(begun, 11, 111)));
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_younger() {
        let (mut mirror, begun) = (Mirror::new(), Instant::now());
        let fresh = |mirror: &Mirror, now: Moment| mirror.is_fresh(now, STALENESS, SECOND);
        mirror.confirm(at(begun, 0, 100), 90_000_000);
        assert!(!fresh(&mirror, at(begun, 11, 100)), "set back by what has passed");
        assert!(!fresh(&mirror, at(begun, 11, 95)), "and by more");
        assert!(fresh(&mirror, at(begun, 9, 95)), "set back, what is young stays young");
        assert!(!fresh(&mirror, at(begun, 1, 120)), "the machine may have slept");
        mirror.confirm(at(begun, 2, 121), 90_000_000);
        assert!(fresh(&mirror, at(begun, 3, 122)), "until the ledger is heard of again");
        mirror.confirm(at(begun, 4, 95), 90_000_000);
        assert!(fresh(&mirror, at(begun, 5, 96)), "set back, the next word of the ledger counts as any");
        assert!(
            fresh(&mirror, at(begun, 5, 89)) && !fresh(&mirror, at(begun, 5, 88)),
            "but behind the ledger's own time"
        );
    }

    #[test]
    fn a_contradicted_mirror_is_never_fresh_again() {
        let (mut mirror, begun) = (Mirror::new(), Instant::now());
        mirror.confirm(at(begun, 0, 100), 100_000_000);
        mirror.contradict();
        mirror.confirm(at(begun, 1, 101), 101_000_000);
        for wall in [0, 99, 101, 1_000] {
            assert!(!mirror.is_fresh(at(begun, 1, wall), STALENESS, SECOND), "{wall}");
        }
    }

    #[test]
    fn all_subjects_are_found_again_in_bounded_memory() {
        let mut mirror = Mirror::new();
        for number in 0..50_000 {
            mirror.put(subject(number.into()), active(number + 1, 1));
            assert!(mirror.len() < 1000 || mirror.bytes() <= mirror.len() * 100);
        }
        assert_eq!(mirror.len(), 50_000);
        assert!((0..50_000).all(|number| mirror.view(subject(number.into())).last == Some(active(number + 1, 1))));
        assert_eq!(mirror.view(subject(50_000)), View::default());
    }
}
