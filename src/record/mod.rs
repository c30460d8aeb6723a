//! Record: what was accepted is committed, with the work that follows from it.
//!
//! Takes: [`Answered`]. Gives: [`Recorded`], whose existence proves that versions, leaves and work are durable. Never:
//! keeps part of a unit; acknowledges what a crash can lose; writes plaintext of a record.
//!
//! One commit holds everything. A crash before it leaves nothing of the unit (with an upstream: the staged operation,
//! which is resolved at the next start); a crash after it leaves a unit that is recorded and was not answered: the
//! sender asks again and, with its idempotency key, gets the answer that it missed.

mod answer;
mod body;
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
pub mod version;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sluice_fhir::canonical::Digest;
use sluice_fhir::tree::{self, Node, Tree};
use time::OffsetDateTime;

pub use self::answer::{Answer, EntryAnswer};
use self::body::Bodies;
use self::file::Filing;
use self::leaf::{LEAF_BYTES, Record};
use self::location::Head;
use self::plan::Planned;
use self::reading::Reading;
use self::recent::Recent;
use self::version::About;
use self::work::{Piece, Shared, Work};
use crate::consent::door::{Again, Basis, Denied, Door, Permitted};
use crate::consent::pseudonym::Pseudonym;
use crate::consent::subjects::{Subjects, local_id_key};
use crate::error::{Error, Peer, Refusal, Result};
use crate::forward::Answered;
use crate::ingest::unit::{Context, Prefer, Shape};
use crate::keys::Keys;
use crate::normalize::Resource;
use crate::store::vault::{Sealers, Vault, place};
use crate::store::{Batch, CommitError, Store, Table};

/// How often a unit is planned again when what it was planned on has moved.
const ATTEMPTS_MAX: usize = 16;

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
    let mut ground = Again { basis: permitted.basis().to_vec(), announced: permitted.announced() };
    for _ in 0..ATTEMPTS_MAX {
        match recorder.attempt(answered, &ground, door).await? {
            Attempt::Recorded(recorded) => return Ok(recorded),
            Attempt::Raced => {}
            Attempt::Moved => ground = door.again(permitted, answered.upstream().is_some()).await?,
        }
    }
    Err(Error::outage(Peer::Store, Duration::from_secs(1), "the rows of a unit keep moving"))
}

/// How one try ended.
enum Attempt {
    Recorded(Recorded),
    /// The rows that it was planned on have moved.
    Raced,
    /// What its subjects decided has moved.
    Moved,
}

/// A version that is about to be written.
struct Draft<'a> {
    resource: &'a Resource,
    plan: &'a Planned,
    subjects: &'a Subjects,
    body: &'a Bytes,
    stored: Option<Digest>,
    /// Of a Consent: whose it is, and whose the version before it was.
    affected: Vec<Pseudonym>,
    upstream_version: Option<String>,
}

/// A unit on its way into one commit.
struct Writing<'a> {
    batch: Batch,
    bodies: Bodies,
    sealers: Sealers<'a>,
    /// Leaves without an index yet, one after another.
    leaves: Vec<u8>,
    /// What is to be routed, and how many bytes their bodies have.
    pieces: Vec<Piece>,
    pieces_bytes: usize,
}

/// What all versions of a unit have in common.
#[derive(Clone, Copy)]
struct Versioning<'a> {
    announced: bool,
    context: &'a Context,
    recorded_at: &'a str,
    operation: &'a str,
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

    /// A number above all that this process gave before and, clocks permitting, above those of earlier ones:
    /// microseconds since 1970.
    pub fn next_sequence(&self) -> u64 {
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000;
        let now = u64::try_from(now).unwrap_or(0);
        let before = self.sequence.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(now.max(last + 1)));
        now.max(before.unwrap_or(0) + 1)
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

    /// One try.
    async fn attempt(&self, answered: &Answered, ground: &Again, door: &Door) -> Result<Attempt> {
        let staged = answered.staged();
        let permitted = staged.permitted();
        let normalized = permitted.checked().normalized();
        let context = normalized.context();
        let recorded_at = instant(OffsetDateTime::now_utc());
        let looked_up = self.look_up(normalized).await?;
        if let Some(answer) = looked_up.first {
            // The same unit, sent twice at once: the other one was faster.
            return Ok(Attempt::Recorded(Recorded { answer, filings: Vec::new() }));
        }
        let planned = plan::unit(normalized, answered.upstream(), self).await?;
        let bodies = rewrite::unit(normalized, &planned, &recorded_at, answered.upstream().is_some(), self).await?;
        let everyone = everyone(permitted);
        // New keys are durable when this returns, and before anything is sealed with them. A crash right here leaves
        // keys that nothing is sealed with: harmless.
        self.vault.prepare(ids(&everyone)).await?;

        let representation = context.prefer == Prefer::Representation;
        let mut drafts = Vec::with_capacity(planned.len());
        for (at, plan) in planned.iter().enumerate().filter(|(_, plan)| plan.write) {
            let (resource, subjects) = (&normalized.resources()[at], &permitted.subjects()[at]);
            let body = &bodies[at];
            let stored = if representation { Some(digest(body)?) } else { None };
            let upstream_version = answered.upstream().and_then(|it| it.get(at)?.version.clone());
            let affected = if &**resource.resource_type() == "Consent" {
                self.affected(plan, subjects).await?
            } else {
                Vec::new()
            };
            drafts.push(Draft { resource, plan, subjects, body, stored, affected, upstream_version });
        }
        let authored = provenance::of(answered, &planned, &recorded_at, self)?;
        for provenance::Authored { resource, plan, subjects, body } in &authored {
            drafts.push(Draft {
                resource,
                plan,
                subjects,
                body,
                stored: None,
                affected: Vec::new(),
                upstream_version: None,
            });
        }

        let operation = staged.operation().to_string();
        let answer = told(answered, &planned, &bodies, &recorded_at, &operation)?;
        // Staged no more, in the same commit.
        let mut sealers = Sealers::new(&self.vault);
        let mut batch = staged.settle(self.remember(normalized, looked_up, &answer, &everyone, &mut sealers)?);
        batch = batch.put(
            Table::Operation,
            staged.operation().as_bytes().to_vec(),
            self.operation_row(&answer, &planned, &authored, &context.caller.institution)?,
        );
        for plan in planned.iter().filter(|plan| !plan.write) {
            batch = batch.expect_read(Table::Resource, plan.key.head(), plan.head.clone());
        }
        batch.append(self.indexed(&drafts).await?);

        // From here on the lock is held: numbers, leaves and rows, until the batch is in the store's hands.
        let mut numbering = self.counters.number(&everyone, &*self.store).await?;
        // Under the lock: a Consent of one of these subjects is committed wholly before this, and then it is marked as
        // unfiled or the mirror holds it, or wholly after.
        if door.moved(&ground.basis) {
            return Ok(Attempt::Moved);
        }
        let bodies = Bodies::new(staged.operation().as_bytes());
        let (leaves, pieces) = (Vec::new(), Vec::new());
        let mut writing = Writing { batch, bodies, sealers, leaves, pieces, pieces_bytes: 0 };
        for basis in &ground.basis {
            let leaf = self.collected(basis, context, &recorded_at).text("operation", &operation);
            let leaf = leaf.commit(&[(basis.subject, numbering.next(&basis.subject))])?;
            writing.leaves.extend_from_slice(&leaf::leaf_bytes(&leaf.commitment));
            opening(&mut writing.batch, &leaf, &[basis.subject], &mut writing.sealers)?;
        }
        let mut filings = Vec::new();
        let versioning =
            Versioning { announced: ground.announced, context, recorded_at: &recorded_at, operation: &operation };
        for draft in &drafts {
            self.version(&mut writing, draft, &versioning, &mut numbering, &mut filings)?;
        }
        self.work(&mut writing, &versioning)?;
        let Writing { mut batch, bodies, mut sealers, leaves, .. } = writing;
        bodies.finish(&mut sealers, &mut batch)?;
        self.pending(&mut batch, &leaves);
        batch = numbering.seal(batch);
        let mark = door.unfiled().mark(filings.iter().flat_map(|filing| &filing.subjects).copied().collect());
        // A crash right here leaves nothing; a crash after the commit leaves everything, unanswered.
        let committing = self.store.commit(batch);
        drop(numbering);
        match committing.await {
            Ok(()) => {
                mark.keep();
                Ok(Attempt::Recorded(Recorded { answer, filings }))
            }
            Err(CommitError::Conflict { .. }) => {
                self.counters.forget().await;
                Ok(Attempt::Raced)
            }
            Err(error) => {
                if error == CommitError::Ambiguous {
                    // It may have happened: its subjects stay undecidable until a restart has looked.
                    mark.keep();
                }
                self.counters.forget().await;
                Err(uncommitted(&error))
            }
        }
    }

    /// Whose records a version of a Consent may change: its subjects', and those of the version that it replaces.
    async fn affected(&self, plan: &Planned, subjects: &Subjects) -> Result<Vec<Pseudonym>> {
        let mut affected = self.subjects_of(&plan.key, plan.version.saturating_sub(1)).await?;
        affected.extend(subjects.pseudonyms());
        affected.sort_unstable();
        affected.dedup();
        Ok(affected)
    }

    /// The rows of one version: the head, the version, its leaf, its work, and where a Patient is found.
    fn version(
        &self,
        writing: &mut Writing<'_>,
        draft: &Draft<'_>,
        versioning: &Versioning<'_>,
        numbering: &mut counters::Numbering<'_>,
        filings: &mut Vec<Filing>,
    ) -> Result<()> {
        let Draft { resource, plan, subjects, body, stored, affected, upstream_version } = draft;
        let Versioning { announced, context, recorded_at, operation } = *versioning;
        let numbered: Vec<_> = subjects.pseudonyms().iter().map(|it| (*it, numbering.next(it))).collect();
        let mut record = Record::new("resource", &self.tenant, recorded_at)
            .hex("digest", &resource.digest().0)
            .text("id", &plan.id)
            .text("operation", operation)
            .text("sender", &context.caller.institution)
            .text("type", resource.resource_type())
            .number("version", plan.version);
        if let Some(stored) = stored {
            record = record.hex("stored", &stored.0);
        }
        let leaf = record.commit(&numbered)?;
        let about = About {
            resource_type: resource.resource_type().to_string(),
            id: plan.id.clone(),
            version: plan.version,
            upstream_version: upstream_version.clone(),
            recorded_at: recorded_at.to_owned(),
            subjects: subjects.pseudonyms().to_vec(),
            unattributed: **subjects == Subjects::Unattributed,
            sender: context.caller.institution.to_string(),
            operation: operation.to_owned(),
            commitment: HEXLOWER.encode(&leaf.commitment),
            opening: leaf.opening,
        };
        let location = writing.bodies.add(&about, body, &mut writing.sealers, &mut writing.batch)?;
        writing.leaves.extend_from_slice(&leaf::leaf_bytes(&leaf.commitment));
        let batch = &mut writing.batch;
        if !plan.fresh {
            batch.add_expect_read(Table::Resource, plan.key.head(), plan.head.clone());
        }
        if let Some(before) = &plan.head {
            let before = Head::decode(before)?;
            batch.add_put(Table::Version, plan.key.version(before.version), before.location.encode().to_vec());
        }
        batch.add_put(Table::Resource, plan.key.head(), Head { version: plan.version, location }.encode());
        let piece = Piece { resource: plan.key, version: plan.version };
        if &**resource.resource_type() == "Consent" {
            let shared = Shared { operation: operation.to_owned(), traceparent: None };
            let todo = Work { pieces: vec![piece], shared };
            let (row, value) = (work::key(work::Kind::File, self.next_sequence()), todo.encode()?);
            batch.add_put(Table::Work, row.clone(), value.clone());
            for subject in subjects.pseudonyms() {
                batch.add_put(Table::SubjectResource, [subject.0, plan.key.0].concat(), Bytes::new());
            }
            filings.push(Filing { row, value, subjects: affected.clone() });
        }
        if &**resource.resource_type() == "Patient"
            && let Some(subject) = subjects.pseudonyms().first()
        {
            for reference in names(resource, plan) {
                let key = local_id_key(&self.keys, &reference);
                batch.add_put(Table::LocalId, key, subject.0.to_vec());
            }
        }
        if announced {
            if writing.pieces.len() == work::PIECES_MAX || writing.pieces_bytes + body.len() > work::BODY_BYTES_MAX {
                self.work(writing, versioning)?;
            }
            writing.pieces.push(piece);
            writing.pieces_bytes += body.len();
        }
        Ok(())
    }

    /// The row of the work that was gathered, if any was.
    fn work(&self, writing: &mut Writing<'_>, versioning: &Versioning<'_>) -> Result<()> {
        let pieces = std::mem::take(&mut writing.pieces);
        writing.pieces_bytes = 0;
        if pieces.is_empty() {
            return Ok(());
        }
        let shared = Shared {
            operation: versioning.operation.to_owned(),
            traceparent: versioning.context.traceparent.as_deref().map(str::to_owned),
        };
        let key = work::key(work::Kind::Route, self.next_sequence());
        writing.batch.add_put(Table::Work, key, Work { pieces, shared }.encode()?);
        Ok(())
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

/// Adds what opens a leaf.
fn opening(batch: &mut Batch, leaf: &leaf::Leaf, subjects: &[Pseudonym], sealers: &mut Sealers<'_>) -> Result<()> {
    let plain = serde_json::to_vec(&leaf.opening).map_err(|_| Error::defect("an opening can't be written"))?;
    let aad = place(Table::Opening, &leaf.commitment);
    let sealer = sealers.of(&ids(subjects))?;
    let opening = sealer.seal(&aad, &plain)?;
    batch.add_put(Table::Opening, leaf.commitment.to_vec(), opening);
    Ok(())
}

/// What the sender is told.
fn told(
    answered: &Answered,
    planned: &[Planned],
    bodies: &[Bytes],
    recorded_at: &str,
    operation: &str,
) -> Result<Answer> {
    let checked = answered.staged().permitted().checked();
    let normalized = checked.normalized();
    let prefer = normalized.context().prefer;
    let raw = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).map_err(|_| Error::defect("an answer is not UTF-8"))?;
        serde_json::value::RawValue::from_string(text).map(Some).map_err(|_| Error::defect("an answer is not JSON"))
    };
    let mut entries = Vec::with_capacity(planned.len());
    for (at, (plan, resource)) in planned.iter().zip(normalized.resources()).enumerate() {
        let located = answered.upstream().and_then(|it| it.get(at));
        let representation = prefer == Prefer::Representation && plan.write;
        entries.push(EntryAnswer {
            status: located.map_or(plan.status(), |it| it.status),
            resource_type: resource.resource_type().to_string(),
            id: plan.id.clone(),
            version: located.and_then(|it| it.version.clone()).unwrap_or_else(|| plan.version.to_string()),
            last_modified: located.and_then(|it| it.last_modified.clone()).unwrap_or_else(|| recorded_at.to_owned()),
            resource: if representation { raw(bodies[at].to_vec())? } else { None },
            outcome: if prefer == Prefer::Outcome {
                raw(sluice_fhir::outcome::to_json(checked.issues()))?
            } else {
                None
            },
        });
    }
    let transaction = normalized.shape() == Shape::Transaction;
    Ok(Answer { operation: operation.to_owned(), transaction, entries })
}

/// Every subject of a unit once.
fn everyone(permitted: &Permitted) -> Vec<Pseudonym> {
    let mut everyone: Vec<_> = permitted.subjects().iter().flat_map(Subjects::pseudonyms).copied().collect();
    everyone.extend(permitted.basis().iter().map(|basis| basis.subject));
    everyone.sort_unstable();
    everyone.dedup();
    everyone
}

fn ids(pseudonyms: &[Pseudonym]) -> Vec<[u8; 32]> {
    pseudonyms.iter().map(|it| it.0).collect()
}

/// The references by which callers may mean this Patient later: by its id here, by the id that it came with, by its
/// `fullUrl`.
fn names(resource: &Resource, plan: &Planned) -> Vec<String> {
    let mut names = vec![format!("Patient/{}", plan.id)];
    if let Some(carried) = resource.tree().root().member("id").and_then(Node::as_str) {
        names.push(format!("Patient/{carried}"));
    }
    // An urn:uuid is a name within its Bundle only.
    names.extend(resource.full_url().filter(|url| url.starts_with("http")).map(ToString::to_string));
    names.dedup();
    names
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
