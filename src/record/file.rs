//! File: what a subject's Consents say is put on the ledger.
//!
//! Takes: the work that recording a Consent left. Gives: the next version of the subject's record on the ledger, its
//! consent root over all of the subject's Consents that stand here, its openings kept. Never: files a root whose
//! openings are not durable; leaves out a Consent that was recorded before it began; drops policies that were given
//! elsewhere and are not held here.
//!
//! It is called when a Consent has been recorded, before the sender is told, so that a revocation counts when its answer
//! is given; and by settle, for what could not be filed then or was left by a crash. Both call the same functions, and
//! both may be at the same piece of work: compare-and-set lets one of them win, and the other finds it done. Until a
//! piece is done its subjects are undecidable at every door.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::reading::Reading;
use super::version::ResourceKey;
use super::work::{Kind, Piece, Work};
use super::{Recorded, Recorder, parse, uncommitted};
use crate::consent::door::Door;
use crate::consent::mirror;
use crate::consent::openings::Openings;
use crate::consent::policy::{Policy, Standing};
use crate::consent::pseudonym::{Pseudonym, each_once};
use crate::error::{Error, Peer, Result};
use crate::ledger::{
    self, FiledBy, FinalityModel, Ledger, LedgerError, Name, Operation, Outcome, Rejection, Signer, SubjectRecord,
    SubjectState,
};
use crate::store::{Batch, CommitError, Direction, KeyRange, Table};

/// How often a subject is filed again when another version came between.
const ATTEMPTS_MAX: usize = 16;
/// Rows read at once.
const PAGE: usize = 256;
/// When to come again for what others have to mend.
const RETRY: Duration = Duration::from_secs(30);

/// Files Consents in the name of an institution.
pub struct Filer {
    ledger: Arc<dyn Ledger>,
    house: Name,
    signer: Arc<dyn Signer>,
}

/// A piece of work: one version of a Consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filing {
    /// The key of its row.
    pub(super) row: Bytes,
    /// The value of its row.
    pub(super) value: Bytes,
    /// Whose it is; and whose the version before it was.
    pub(super) subjects: Vec<Pseudonym>,
}

/// How far a batch came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pieces that are done.
    pub done: usize,
    /// Pieces that have to be tried again.
    pub waiting: usize,
}

impl Filer {
    /// For this ledger, in the name of this institution, with a key that may attest for it.
    pub fn new(ledger: Arc<dyn Ledger>, house: Name, signer: Arc<dyn Signer>) -> Self {
        Self { ledger, house, signer }
    }

    /// Files what was just recorded. What does not succeed is told in the log and stays for [`Filer::batch`]: the unit is
    /// recorded, and its subjects stay undecidable until then.
    pub async fn recorded(&self, recorded: &Recorded, recorder: &Recorder, door: &Door) {
        for filing in recorded.filings() {
            if let Err(error) = self.piece(filing, recorder, door).await {
                tracing::warn!(%error, "a Consent is recorded and not on the ledger yet; its subject is undecidable");
            }
        }
    }

    /// Files what is left, at most `limit` pieces. One that can't be filed does not hold up the others.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn batch(&self, recorder: &Recorder, door: &Door, limit: usize) -> Result<Progress> {
        let rows =
            recorder.store.scan(Table::Work, KeyRange::prefix([Kind::File as u8].to_vec()), limit, Direction::Up);
        let mut progress = Progress::default();
        for row in rows.await? {
            let filing = recorder.filing(row.key, row.value).await?;
            match self.piece(&filing, recorder, door).await {
                Ok(()) => progress.done += 1,
                Err(error) => {
                    tracing::warn!(%error, "a Consent is not on the ledger yet; its subject is undecidable");
                    progress.waiting += 1;
                }
            }
        }
        Ok(progress)
    }

    async fn piece(&self, filing: &Filing, recorder: &Recorder, door: &Door) -> Result<()> {
        for subject in &filing.subjects {
            self.subject(*subject, recorder, door).await?;
        }
        // A crash right here leaves work that is done: the next one to try finds the ledger as it should be.
        let batch = Batch::new().expect_value(Table::Work, filing.row.clone(), filing.value.clone());
        match recorder.store.commit(batch.delete(Table::Work, filing.row.clone())).await {
            Ok(()) => door.unfiled().done(&filing.subjects),
            // Another one was faster, and has counted it.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(uncommitted(&error)),
        }
        Ok(())
    }

    /// Brings a subject's record on the ledger to what its Consents here say.
    async fn subject(&self, subject: Pseudonym, recorder: &Recorder, door: &Door) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            // What stands on the ledger is read before the Consents are: a rival that files between the two makes a
            // conflict here, and one that filed before had read no Consent that is not read now.
            let key = ledger::Pseudonym(subject.0);
            let mut snapshot = self.ledger.lookup(&[key], door.settings().max_staleness).await?;
            let standing = snapshot.records.pop().flatten();
            let policies = recorder.policies_of(subject).await?;
            let tree = door.openings().commit_to(subject, &policies).map_err(|error| {
                Error::outage(
                    Peer::Custodian,
                    RETRY,
                    format!("the Consents of a subject can't be committed to: {error}"),
                )
            })?;
            if let Some(standing) = &standing {
                if standing.state == SubjectState::Erased {
                    // Nothing follows that, and every door denies.
                    return Ok(());
                }
                let Some(stands) = door.openings().tree(subject, &standing.consent_root).await? else {
                    let text =
                        "a subject's policies were given elsewhere and are not held here; filing would drop them";
                    return Err(Error::outage(Peer::Custodian, RETRY, text));
                };
                if standing.state == SubjectState::Active && Openings::same(&stands, &tree) {
                    // At a height that is not below its own, as far as can be told from the outside.
                    let exact = self.ledger.caps().finality == FinalityModel::Checkpoint;
                    let height = snapshot.head.height.saturating_sub(u64::from(exact));
                    see(door, subject, standing, height);
                    return Ok(());
                }
            } else if policies.is_empty() {
                return Ok(());
            }
            door.openings().keep(subject, &tree).await?;
            // A crash right here leaves openings of a root that stands nowhere: sealed, small, and asked for by nobody.
            let record = SubjectRecord {
                pseudonym: key,
                version: standing.as_ref().map_or(0, |it| it.version) + 1,
                state: SubjectState::Active,
                consent_root: tree.root(),
                keys: standing.map(|it| it.keys).unwrap_or_default(),
                filed_by: FiledBy::Attested(self.house.clone()),
            };
            match self.submit(Operation::Subject(record.clone()), &snapshot.head.ledger).await? {
                // A crash right here leaves a record whose openings are kept, and work that will be found done.
                Some(height) => {
                    see(door, subject, &record, height);
                    return Ok(());
                }
                None => door.openings().forget(subject, &tree.root()).await?,
            }
        }
        Err(Error::outage(Peer::Ledger, Duration::from_secs(1), "a subject's record keeps moving"))
    }

    /// Submits; the height where it stands, or none if it never will because another version came first.
    async fn submit(&self, operation: Operation, ledger: &ledger::Origin) -> Result<Option<u64>> {
        let op = operation.sign(ledger, &[&*self.signer]);
        let op = op.map_err(|_| Error::outage(Peer::Ledger, RETRY, "the institution's key does not sign"))?;
        let outcome = match self.ledger.submit(std::slice::from_ref(&op)).await {
            Ok(tickets) => tickets.into_iter().next().map_or(Outcome::Unknown, |ticket| ticket.outcome),
            Err(LedgerError::Ambiguous { .. }) => self.ledger.outcome(&op.id()).await?,
            Err(error) => return Err(error.into()),
        };
        match outcome {
            Outcome::Committed(position) => Ok(Some(position.height)),
            Outcome::Rejected(Rejection::Conflict { .. }) | Outcome::Dead => Ok(None),
            Outcome::Rejected(rejection) => Err(LedgerError::Rejected(rejection).into()),
            // It may still come to stand, so its openings stay.
            Outcome::Unknown | Outcome::Pending => Err(LedgerError::Ambiguous { op: op.id() }.into()),
        }
    }
}

impl Recorder {
    /// Marks the subjects of all filing that was left, before any door opens.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn mark_unfiled(&self, door: &Door) -> Result<()> {
        let mut range = KeyRange::prefix([Kind::File as u8].to_vec());
        loop {
            let rows = self.store.scan(Table::Work, range.clone(), PAGE, Direction::Up);
            let rows = rows.await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else { return Ok(()) };
            for row in rows {
                let filing = self.filing(row.key, row.value).await?;
                door.unfiled().mark(filing.subjects).keep();
            }
            range = range.after(last);
        }
    }

    /// A piece of filing from its row. Nobody is concerned where the subjects were erased.
    async fn filing(&self, row: Bytes, value: Bytes) -> Result<Filing> {
        let mut subjects = Vec::new();
        for Piece { resource, version } in Work::decode(&value)?.pieces {
            subjects.extend(self.subjects_of(&resource, version).await?);
            subjects.extend(self.subjects_of(&resource, version.saturating_sub(1)).await?);
        }
        Ok(Filing { row, value, subjects: each_once(subjects) })
    }

    /// The subjects of a version; none if there is no such version any more.
    pub(super) async fn subjects_of(&self, key: &ResourceKey, version: u64) -> Result<Vec<Pseudonym>> {
        if version == 0 {
            return Ok(Vec::new());
        }
        Ok(self.read_version(key, version).await?.map(|it| it.about.subjects).unwrap_or_default())
    }

    /// The policies of a subject: of each of its Consents here the current version, but for those that say nothing.
    async fn policies_of(&self, subject: Pseudonym) -> Result<Vec<Policy>> {
        let mut policies = Vec::new();
        let mut range = KeyRange::prefix(subject.0.to_vec());
        loop {
            let rows = self.store.scan(Table::SubjectResource, range.clone(), PAGE, Direction::Up);
            let rows = rows.await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else { return Ok(policies) };
            for row in rows {
                let key = row.key.last_chunk::<32>().copied().map(ResourceKey);
                let key = key.ok_or_else(|| Error::defect("a row of a subject's Consents has another key"))?;
                let Some(current) = Reading::new(self).current(&key).await? else { continue };
                // Its patient may have been put right since.
                if !current.about.subjects.contains(&subject) {
                    continue;
                }
                let policy = Policy::compile(parse(&current.body)?.root());
                if policy.standing() != Standing::Silent {
                    policies.push(policy);
                }
            }
            range = range.after(last);
        }
    }
}

/// Shows the mirror what the ledger holds, so that no door is asked before it knows.
fn see(door: &Door, subject: Pseudonym, record: &SubjectRecord, height: u64) {
    let op = Operation::Subject(record.clone()).id();
    let mut mirror = door.mirror().write().unwrap_or_else(std::sync::PoisonError::into_inner);
    mirror.see(subject, mirror::Record::from(record), op, height);
}
