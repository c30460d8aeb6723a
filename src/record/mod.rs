//! Record: what was accepted is committed, with the work that follows from it.
//!
//! Takes: [`Answered`]. Gives: [`Recorded`], whose existence proves that versions, leaves and work are durable. Never:
//! keeps part of a unit; acknowledges what a crash can lose; writes plaintext of a record.
//!
//! One commit holds everything of a unit, and may hold several units of a stream, each of them whole (`commit`). A crash
//! before it leaves nothing of the unit (with an upstream: the staged operation, which is resolved at the next start); a
//! crash after it leaves a unit that is recorded and was not answered: the sender asks again and, with its idempotency
//! key, gets the answer that it missed.

mod answer;
mod body;
mod commit;
pub mod counters;
pub mod file;
mod idempotency;
pub mod leaf;
mod location;
pub mod operation;
mod plan;
mod provenance;
pub mod reading;
pub mod recent;
mod rewrite;
mod search;
pub mod stream;
pub mod version;
mod whom;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sluice_fhir::canonical::Digest;
use sluice_fhir::tree::{self, Tree};
use time::OffsetDateTime;

pub use self::answer::{Answer, EntryAnswer};
use self::commit::{Attempt, Draft, Unit};
use self::file::Filing;
pub use self::idempotency::{FORGOTTEN_MAX, Known};
use self::leaf::{LEAF_BYTES, Record};
use self::reading::Reading;
use self::recent::Recent;
use crate::consent::door::{Again, Basis, Denied, Door, Permitted};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Peer, Refusal, Result};
use crate::forward::Answered;
use crate::ingest::unit::Context;
use crate::keys::Keys;
use crate::store::vault::{Sealers, Vault, place};
use crate::store::{Batch, CommitError, Direction, KeyRange, Store, Table};

/// How often a unit is planned again when what it was planned on has moved.
const ATTEMPTS_MAX: usize = 16;

/// Keys read at once.
const KEYS: usize = 4096;

/// What recording needs.
pub struct Recorder {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    keys: Arc<Keys>,
    tenant: Arc<str>,
    idempotency_window: Duration,
    counters: counters::Counters,
    sequence: AtomicU64,
    unrouted: Recent,
}

/// A unit that is recorded. Only `record` makes one.
#[derive(Debug)]
pub struct Recorded {
    answer: Answer,
    filings: Vec<Filing>,
}

impl Recorded {
    /// What the sender is told.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The Consents in it, which are to be filed on the ledger.
    pub fn filings(&self) -> &[Filing] {
        &self.filings
    }

    /// Hands the answer on.
    pub fn into_answer(self) -> Answer {
        self.answer
    }
}

/// Records a unit. If what a subject decided has moved since it was permitted, it is permitted again first.
///
/// # Errors
/// 403 where a subject says no by now; 412 where a condition does not hold; an outage of the store or of who must
/// decide. Nothing of the unit is kept in any case.
pub async fn unit(answered: &Answered, recorder: &Recorder, door: &Door) -> Result<Recorded> {
    let permitted = answered.staged().permitted();
    let mut ground = ground(permitted);
    for _ in 0..ATTEMPTS_MAX {
        match recorder.attempt(&[Unit { answered, ground: &ground }], door).await.pop() {
            Some(Ok(Attempt::Recorded(recorded))) => return Ok(recorded),
            Some(Ok(Attempt::Raced)) | None => {}
            Some(Ok(Attempt::Moved)) => ground = door.again(permitted, answered.upstream().is_some()).await?,
            Some(Err(error)) => return Err(error),
        }
    }
    Err(Error::outage(Peer::Store, Duration::from_secs(1), "the rows of a unit keep moving"))
}

/// Records units, each for itself, in one commit as far as they can go together; what became of each, in their order,
/// is what [`unit()`] would have given.
pub async fn units(answered: &[&Answered], recorder: &Recorder, door: &Door) -> Vec<Result<Recorded>> {
    match answered {
        [] => return Vec::new(),
        [one] => return vec![unit(one, recorder, door).await],
        _ => {}
    }
    let grounds: Vec<Again> = answered.iter().map(|it| ground(it.staged().permitted())).collect();
    let together: Vec<Unit<'_>> =
        answered.iter().zip(&grounds).map(|(answered, ground)| Unit { answered, ground }).collect();
    let mut recorded = Vec::with_capacity(answered.len());
    for (answered, attempt) in answered.iter().zip(recorder.attempt(&together, door).await) {
        recorded.push(match attempt {
            Ok(Attempt::Recorded(it)) => Ok(it),
            Ok(Attempt::Raced | Attempt::Moved) => unit(answered, recorder, door).await,
            Err(error) => Err(error),
        });
    }
    recorded
}

/// What a unit was permitted on.
fn ground(permitted: &Permitted) -> Again {
    Again { basis: permitted.basis().to_vec(), announced: permitted.announced() }
}

impl Recorder {
    /// A recorder over an open store.
    pub fn new(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        keys: Arc<Keys>,
        tenant: Arc<str>,
        idempotency_window: Duration,
    ) -> Self {
        let counters = counters::Counters::default();
        Self {
            store,
            vault,
            keys,
            tenant,
            idempotency_window,
            counters,
            sequence: AtomicU64::new(0),
            unrouted: Recent::default(),
        }
    }

    /// The store that it writes.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The vault that it seals with.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// The keys that it hashes with.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// The tenant's id.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// The counts of leaves about each subject.
    pub fn counters(&self) -> &counters::Counters {
        &self.counters
    }

    /// A number above all that this process gave before and, once [`Recorder::go_on`] has looked, above all that stand in
    /// the store: microseconds since 1970, or the next one where the clock has gone back.
    pub fn next_sequence(&self) -> u64 {
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000;
        let now = u64::try_from(now).unwrap_or(0);
        let before = self.sequence.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(now.max(last + 1)));
        now.max(before.unwrap_or(0) + 1)
    }

    /// Looks for the highest number that an earlier process has left, so that whatever the clock says no row is written
    /// over and none overtakes another. To be called before anything is recorded.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn go_on(&self) -> Result<()> {
        let mut highest = 0;
        let kinds = [work::Kind::Route, work::Kind::File].map(|kind| (Table::Work, KeyRange::prefix(vec![kind as u8])));
        for (table, range) in kinds.into_iter().chain([(Table::LeafPending, KeyRange::all())]) {
            let last = self.store.scan(table, range, 1, Direction::Down).await?;
            highest = last.iter().filter_map(|row| number_of(&row.key)).chain([highest]).max().unwrap_or(0);
        }
        // By lane, so all of them are looked at.
        let mut range = KeyRange::all();
        loop {
            let keys = self.store.keys(Table::Outbox, range.clone(), KEYS).await?;
            let Some(last) = keys.last().cloned() else { break };
            // A mark has the number of its event, whose own key is another.
            let events = keys.iter().filter(|key| key.len() % 8 == 0);
            highest = events.filter_map(|key| number_of(key)).chain([highest]).max().unwrap_or(0);
            range = range.after(last);
        }
        self.sequence.fetch_max(highest, Ordering::AcqRel);
        Ok(())
    }

    /// Records what was decided on a unit that may not be collected, before its sender is told.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn denied(&self, denied: &Denied) -> Result<Error> {
        let context = denied.checked().normalized().context();
        let recorded_at = instant(OffsetDateTime::now_utc());
        let everyone: Vec<Pseudonym> = denied.basis().iter().map(|basis| basis.subject).collect();
        self.vault.prepare(ids(&everyone)).await?;
        let mut numbering = self.counters.number(&everyone, &*self.store).await?;
        let mut batch = Batch::new();
        for basis in denied.basis() {
            let leaf = self.collected(basis, context, &recorded_at);
            let leaf = leaf.commit(&[(basis.subject, numbering.next(&basis.subject))])?;
            batch = self.leaf(batch, &leaf, &[basis.subject])?;
        }
        batch = numbering.seal(batch);
        // A crash right here leaves nothing, and a sender who has no answer.
        let committing = self.store.commit(batch);
        drop(numbering);
        if let Err(error) = committing.await {
            self.counters.forget().await;
            return Err(uncommitted(&error));
        }
        Ok(denied.error())
    }

    /// The record of one subject's word at intake.
    fn collected(&self, basis: &Basis, context: &Context, recorded_at: &str) -> Record {
        let record = Record::new("decision", &self.tenant, recorded_at)
            .text("action", "collect")
            .text("door", "intake")
            .text("outcome", basis.outcome.code())
            .text("rule", basis.rule)
            .text("sender", &context.caller.institution)
            .number("head", basis.head)
            .number("subjectVersion", basis.version.unwrap_or(0));
        match &basis.provision {
            Some(path) => record.text("provision", path),
            None => record,
        }
    }

    /// Adds a leaf with an opening of its own.
    pub(crate) fn leaf(&self, mut batch: Batch, leaf: &leaf::Leaf, subjects: &[Pseudonym]) -> Result<Batch> {
        opening(&mut batch, leaf, subjects, &mut Sealers::new(&self.vault))?;
        self.pending(&mut batch, &leaf::leaf_bytes(&leaf.commitment));
        Ok(batch)
    }

    /// Adds leaves that wait for an index, one after another.
    fn pending(&self, batch: &mut Batch, leaves: &[u8]) {
        for leaves in leaves.chunks(LEAF_BYTES * leaf::LEAVES_MAX) {
            let key = self.next_sequence().to_be_bytes().to_vec();
            batch.add_put(Table::LeafPending, key, leaves.to_vec());
        }
    }

    /// The rows of the search index that change: gained identifiers in, lost ones out.
    async fn indexed(&self, drafts: &[Draft<'_>]) -> Result<Batch> {
        let mut rows: std::collections::BTreeMap<Bytes, (Option<Bytes>, Vec<String>)> =
            std::collections::BTreeMap::new();
        for draft in drafts {
            let gained = search::index_keys(&self.keys, draft.resource.resource_type(), draft.resource.tree().root());
            let lost = if draft.plan.version > 1 { self.index_of_current(draft).await? } else { Vec::new() };
            for (key, gains) in gained
                .iter()
                .map(|key| (key, true))
                .chain(lost.iter().filter(|key| !gained.contains(key)).map(|key| (key, false)))
            {
                if !rows.contains_key(key) {
                    let found = self.index_row(key.clone()).await?;
                    rows.insert(key.clone(), (found.row, found.ids));
                }
                let Some((_, ids)) = rows.get_mut(key) else { continue };
                ids.retain(|id| *id != draft.plan.id);
                if gains {
                    ids.push(draft.plan.id.clone());
                }
            }
            if let Some((key, row)) = &draft.plan.relied_on {
                // The identifier that was searched for need not be one that the resource carries.
                if !rows.contains_key(key) {
                    rows.insert(key.clone(), (row.clone(), Vec::new()));
                }
            }
        }
        let mut batch = Batch::new();
        for (key, (read, ids)) in rows {
            batch = batch.expect_read(Table::Index, key.clone(), read);
            batch = if ids.is_empty() {
                batch.delete(Table::Index, key)
            } else {
                let value = self.index_value(&key, &ids)?;
                batch.put(Table::Index, key, value)
            };
        }
        Ok(batch)
    }

    /// The rows of the index in which the version that is replaced stands.
    async fn index_of_current(&self, draft: &Draft<'_>) -> Result<Vec<Bytes>> {
        let Some(current) = self.read_version(&draft.plan.key, draft.plan.version - 1).await? else {
            return Ok(Vec::new());
        };
        let tree = parse(&current.body)?;
        Ok(search::index_keys(&self.keys, draft.resource.resource_type(), tree.root()))
    }

    /// Opens a version; none if there is none, or if its subjects' keys were destroyed.
    ///
    /// # Errors
    /// An outage of the store; a defect if a row can't be opened though its keys are there.
    pub async fn read_version(&self, key: &version::ResourceKey, number: u64) -> Result<Option<version::Version>> {
        Reading::new(self).version(key, number).await
    }

    /// Opens the current version; none if there is none.
    ///
    /// # Errors
    /// As [`Recorder::read_version`].
    pub async fn read_current(&self, resource_type: &str, id: &str) -> Result<Option<version::Version>> {
        let key = version::ResourceKey::of(&self.keys, resource_type, id);
        Reading::new(self).current(&key).await
    }

    /// Where the work on routing begins that is not done.
    pub(crate) fn unrouted(&self) -> &Recent {
        &self.unrouted
    }
}

/// The number that a key ends with.
fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|it| u64::from_be_bytes(*it))
}

/// Adds what opens a leaf.
fn opening(batch: &mut Batch, leaf: &leaf::Leaf, subjects: &[Pseudonym], sealers: &mut Sealers<'_>) -> Result<()> {
    let plain = serde_json::to_vec(&leaf.opening).map_err(|_| Error::defect("an opening can't be written"))?;
    let aad = place(Table::Opening, &leaf.commitment);
    let sealer = sealers.of(&ids(subjects))?;
    let opening = sealer.seal(&aad, &plain)?;
    batch.add_put(Table::Opening, leaf.commitment.to_vec(), opening);
    Ok(())
}

fn ids(pseudonyms: &[Pseudonym]) -> Vec<[u8; 32]> {
    pseudonyms.iter().map(|it| it.0).collect()
}

fn parse(body: &Bytes) -> Result<Tree> {
    Tree::parse(body.clone(), &tree::Limits::default()).map_err(|_| Error::defect("a stored resource is not JSON"))
}

fn digest(body: &Bytes) -> Result<Digest> {
    Ok(sluice_fhir::canonical::digest(parse(body)?.root()))
}

/// An instant as FHIR writes it: milliseconds, UTC.
pub fn instant(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

pub(crate) fn uncommitted(error: &CommitError) -> Error {
    match error {
        CommitError::TooLarge => {
            let text = "a unit that fits into one commit of the store; a larger Bundle can be sent as a batch";
            Error::refusal(Refusal::TooLarge, "limits.unit", text)
        }
        error => Error::outage(Peer::Store, Duration::from_secs(5), format!("commit: {error}")),
    }
}
