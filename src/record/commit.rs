//! Commit: units on their way into one commit of the store.
//!
//! Takes: units that were answered, and the ground that each was permitted on. Gives: what became of each. Never: keeps
//! part of a unit; lets one unit's fate decide over another's: what can't go with the rest goes again, alone.
//!
//! Units of a stream go in groups. Everything of every unit in a group stands in one batch, which happens whole or not at
//! all, so each of them does. Each has conditions, an operation, leaves and an answer of its own; they share what costs
//! most: one seal over versions about the same patients, one row of work, one row of leaves, one count for each subject.
//! Conditions are held against the state before the batch; so a unit that names a row which one before it in the group
//! writes does not go with it, nor does one with a Consent in it, on which decisions about others may hang.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sluice_fhir::canonical::Digest;
use time::OffsetDateTime;

use super::answer::{Answer, EntryAnswer};
use super::body::Bodies;
use super::counters::Numbering;
use super::file::Filing;
use super::idempotency::LookUp;
use super::leaf::{self, Record};
use super::location::Head;
use super::plan::{self, Planned};
use super::version::About;
use super::work::{self, Piece, Shared, Work};
use super::{Recorded, Recorder, digest, ids, instant, opening, provenance, rewrite, uncommitted};
use crate::consent::door::{Again, Door, Permitted};
use crate::consent::pseudonym::{Pseudonym, each_once};
use crate::consent::subjects::Subjects;
use crate::error::{Error, Result};
use crate::forward::Answered;
use crate::ingest::unit::{Prefer, Shape};
use crate::normalize::Resource;
use crate::store::vault::Sealers;
use crate::store::{Batch, CommitError, Table};

/// A unit, and what it was permitted on.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    pub answered: &'a Answered,
    pub ground: &'a Again,
}

/// How one try ended.
pub(super) enum Attempt {
    Recorded(Recorded),
    /// The rows that it was planned on have moved, or it can't go with the others of its group.
    Raced,
    /// What its subjects decided has moved.
    Moved,
}

/// What is known of a unit before a key is needed.
struct Sketch<'a> {
    /// Its place in the group.
    at: usize,
    unit: Unit<'a>,
    looked_up: LookUp,
    planned: Vec<Planned>,
    bodies: Vec<Bytes>,
    whom: Cow<'a, [Subjects]>,
    everyone: Vec<Pseudonym>,
}

/// A unit that lacks nothing but its numbers.
struct Ready<'a> {
    at: usize,
    unit: Unit<'a>,
    planned: Vec<Planned>,
    bodies: Vec<Bytes>,
    whom: Cow<'a, [Subjects]>,
    /// What is known of each planned version besides.
    besides: Vec<Besides>,
    authored: Vec<provenance::Authored>,
    /// The rows that hold no number, and their conditions.
    batch: Batch,
    answer: Answer,
}

#[derive(Default)]
struct Besides {
    /// The digest of the stored form, where the sender asked for it.
    stored: Option<Digest>,
    upstream_version: Option<String>,
    /// Of a Consent: whose it is, and whose the version before it was.
    affected: Vec<Pseudonym>,
}

/// A version that is about to be written.
pub(super) struct Draft<'a> {
    pub resource: &'a Resource,
    pub plan: &'a Planned,
    pub subjects: &'a Subjects,
    body: &'a Bytes,
    besides: Option<&'a Besides>,
}

/// The trace that a request belongs to.
#[derive(Default, PartialEq, Eq)]
struct Trace {
    parent: Option<Arc<str>>,
    state: Option<Arc<str>>,
}

/// What all units of a group write together.
struct Writing<'a> {
    batch: Batch,
    bodies: Bodies,
    sealers: Sealers<'a>,
    recorded_at: &'a str,
    /// Leaves without an index yet, one after another.
    leaves: Vec<u8>,
    /// What is to be routed, how many bytes that is as [`work::BODY_BYTES_MAX`] counts them, and the trace that they belong
    /// to.
    pieces: Vec<Piece>,
    pieces_bytes: usize,
    trace: Trace,
}

impl Recorder {
    /// One try to record units in one commit; what became of each, in their order.
    pub(super) async fn attempt(&self, units: &[Unit<'_>], door: &Door) -> Vec<Result<Attempt>> {
        let recorded_at = instant(OffsetDateTime::now_utc());
        let mut ended: Vec<Option<Result<Attempt>>> = units.iter().map(|_| None).collect();
        let mut sketches = Vec::with_capacity(units.len());
        for (at, unit) in units.iter().enumerate() {
            match self.sketch(at, *unit, &recorded_at).await {
                Ok(Ok(sketch)) => sketches.push(sketch),
                // The same unit, sent twice at once: the other one was faster.
                Ok(Err(answer)) => {
                    ended[at] = Some(Ok(Attempt::Recorded(Recorded { answer, filings: Vec::new() })));
                }
                Err(error) => ended[at] = Some(Err(error)),
            }
        }
        let everyone = each_once(sketches.iter().flat_map(|it| &it.everyone).copied().collect());
        // New keys are durable when this returns, and before anything is sealed with them. A crash right here leaves
        // keys that nothing is sealed with: harmless.
        if let Err(error) = self.vault.prepare(ids(&everyone)).await {
            let error = Error::from(error);
            sketches.drain(..).for_each(|sketch| ended[sketch.at] = Some(Err(error.clone())));
        }
        let mut sealers = Sealers::new(&self.vault);
        let mut ready = Vec::with_capacity(sketches.len());
        for sketch in sketches {
            let at = sketch.at;
            match self.ready(sketch, &recorded_at, &mut sealers).await {
                Ok(it) => ready.push(it),
                Err(error) => ended[at] = Some(Err(error)),
            }
        }
        if !ready.is_empty() {
            self.commit(ready, &everyone, &recorded_at, sealers, door, &mut ended).await;
        }
        let lost = || Err(Error::defect("a unit was forgotten on its way into the store"));
        ended.into_iter().map(|it| it.unwrap_or_else(lost)).collect()
    }

    /// Where everything of a unit will stand, and its stored form; or the answer that the same unit got before.
    async fn sketch<'a>(
        &self,
        at: usize,
        unit: Unit<'a>,
        recorded_at: &str,
    ) -> Result<std::result::Result<Sketch<'a>, Answer>> {
        let permitted = unit.answered.staged().permitted();
        let normalized = permitted.checked().normalized();
        let mut looked_up = self.look_up(normalized).await?;
        if let Some(answer) = looked_up.first.take() {
            return Ok(Err(answer));
        }
        let upstream = unit.answered.upstream();
        let planned = plan::unit(normalized, upstream, self).await?;
        let bodies = rewrite::unit(normalized, &planned, recorded_at, upstream.is_some(), self).await?;
        let whom = self.whom(unit.answered, &planned).await?;
        let everyone = everyone(permitted, &whom);
        Ok(Ok(Sketch { at, unit, looked_up, planned, bodies, whom, everyone }))
    }

    /// All that is known before the numbers of its leaves are. Each of its subjects has a key.
    async fn ready<'a>(&self, sketch: Sketch<'a>, recorded_at: &str, sealers: &mut Sealers<'_>) -> Result<Ready<'a>> {
        let Sketch { at, unit, looked_up, planned, bodies, whom, everyone } = sketch;
        let staged = unit.answered.staged();
        let permitted = staged.permitted();
        let normalized = permitted.checked().normalized();
        let context = normalized.context();
        let mut besides = Vec::with_capacity(planned.len());
        for (at, plan) in planned.iter().enumerate() {
            let mut it = Besides::default();
            if plan.write {
                if context.prefer == Prefer::Representation {
                    it.stored = Some(digest(&bodies[at])?);
                }
                it.upstream_version = unit.answered.upstream().and_then(|it| it.get(at)?.version.clone());
                if &**normalized.resources()[at].resource_type() == "Consent" {
                    it.affected = self.affected(plan, &whom[at]).await?;
                }
            }
            besides.push(it);
        }
        let authored = provenance::of(unit.answered, &planned, &whom, recorded_at, self)?;
        let answer = told(unit.answered, &planned, &bodies, recorded_at)?;
        // Staged no more, in the same commit.
        let mut batch = staged.settle(self.remember(normalized, looked_up, &answer, &everyone, sealers)?);
        let operation = self.operation_row(&answer, &planned, &authored, permitted.checked())?;
        batch.add_put(Table::Operation, staged.operation().as_bytes().to_vec(), operation);
        for plan in planned.iter().filter(|plan| !plan.write) {
            batch.add_expect_read(Table::Resource, plan.key.head(), plan.head.clone());
        }
        let mut ready = Ready { at, unit, planned, bodies, whom, besides, authored, batch, answer };
        let indexed = self.indexed(&ready.drafts()).await?;
        ready.batch.append(indexed);
        let bearers = self.bearers(&ready.drafts(), &context.caller.institution).await?;
        ready.batch.append(bearers);
        let consents = consents(&ready.drafts());
        ready.batch.append(consents);
        Ok(ready)
    }

    /// Whose records a version of a Consent may change: its subjects', and those of the version that it replaces.
    async fn affected(&self, plan: &Planned, subjects: &Subjects) -> Result<Vec<Pseudonym>> {
        let mut affected = self.subjects_of(&plan.key, plan.version.saturating_sub(1)).await?;
        affected.extend(subjects.pseudonyms());
        Ok(each_once(affected))
    }

    /// Numbers the units' leaves and commits all that can go together.
    async fn commit(
        &self,
        ready: Vec<Ready<'_>>,
        everyone: &[Pseudonym],
        recorded_at: &str,
        sealers: Sealers<'_>,
        door: &Door,
        ended: &mut [Option<Result<Attempt>>],
    ) {
        let places: Vec<usize> = ready.iter().map(|it| it.at).collect();
        let is_alone = places.len() == 1;
        // From here on the lock is held: numbers, leaves and rows, until the batch is in the store's hands.
        let mut numbering = match self.counters.number(everyone, &*self.store).await {
            Ok(numbering) => numbering,
            Err(error) => return all(ended, places.into_iter(), || Err(error.clone())),
        };
        let bodies = Bodies::new(ready[0].unit.answered.staged().operation().as_bytes());
        let mut writing = Writing {
            batch: Batch::new(),
            bodies,
            sealers,
            recorded_at,
            leaves: Vec::new(),
            pieces: Vec::new(),
            pieces_bytes: 0,
            trace: Trace::default(),
        };
        let mut taken = HashSet::new();
        let mut held = Vec::with_capacity(ready.len());
        for unit in ready {
            let at = unit.at;
            // Under the lock: a Consent of one of these subjects is committed wholly before this, and then it is marked as
            // unfiled or the mirror holds it, or wholly after.
            if door.moved(&unit.unit.ground.basis) {
                ended[at] = Some(Ok(Attempt::Moved));
            } else if !is_alone && !unit.joins(&mut taken) {
                ended[at] = Some(Ok(Attempt::Raced));
            } else {
                match self.write(&mut writing, unit, &mut numbering) {
                    Ok((answer, filings)) => held.push((at, answer, filings)),
                    Err(error) if is_alone => return all(ended, [at].into_iter(), || Err(error.clone())),
                    // Half of its rows and numbers stand among those of the others: each goes again, alone.
                    Err(_) => return all(ended, places.into_iter(), raced),
                }
            }
        }
        if held.is_empty() {
            return;
        }
        let batch = match self.finish(writing) {
            Ok(batch) => numbering.seal(batch),
            Err(error) => return all(ended, held.iter().map(|it| it.0), || Err(error.clone())),
        };
        let affected = held.iter().flat_map(|(.., filings)| filings).flat_map(|filing| &filing.subjects);
        let mark = door.unfiled().mark(affected.copied().collect());
        // A crash right here leaves nothing of any; a crash after the commit leaves all of each, unanswered.
        let committing = self.store.commit(batch);
        drop(numbering);
        let error = match committing.await {
            Ok(()) => {
                mark.keep();
                for (at, answer, filings) in held {
                    ended[at] = Some(Ok(Attempt::Recorded(Recorded { answer, filings })));
                }
                return;
            }
            Err(error) => error,
        };
        if error == CommitError::Ambiguous {
            // It may have happened: its subjects stay undecidable until a restart has looked.
            mark.keep();
        }
        self.counters.forget().await;
        let places = held.iter().map(|it| it.0);
        match error {
            // Nothing of any has happened. Which one it was is found by going alone.
            CommitError::Conflict { .. } => all(ended, places, raced),
            CommitError::TooLarge if !is_alone => all(ended, places, raced),
            error => all(ended, places, || Err(uncommitted(&error))),
        }
    }

    /// All rows of one unit.
    fn write(
        &self,
        writing: &mut Writing<'_>,
        mut unit: Ready<'_>,
        numbering: &mut Numbering<'_>,
    ) -> Result<(Answer, Vec<Filing>)> {
        writing.batch.append(std::mem::take(&mut unit.batch));
        let permitted = unit.unit.answered.staged().permitted();
        let context = permitted.checked().normalized().context();
        let trace = Trace { parent: context.traceparent.clone(), state: context.tracestate.clone() };
        if writing.trace != trace {
            self.work(writing)?;
            writing.trace = trace;
        }
        for basis in &unit.unit.ground.basis {
            let leaf = self.collected(basis, context, writing.recorded_at).text("operation", &unit.answer.operation);
            let leaf = leaf.commit(&[(basis.subject, numbering.next(&basis.subject))])?;
            writing.leaves.extend_from_slice(&leaf::leaf_bytes(&leaf.commitment));
            opening(&mut writing.batch, &leaf, &[basis.subject], &mut writing.sealers)?;
        }
        let mut filings = Vec::new();
        for draft in unit.drafts() {
            self.version(writing, &draft, &unit, numbering, &mut filings)?;
        }
        Ok((unit.answer, filings))
    }

    /// The rows of one version: the head, where the one before lies, its body, its leaf, its work.
    fn version(
        &self,
        writing: &mut Writing<'_>,
        draft: &Draft<'_>,
        unit: &Ready<'_>,
        numbering: &mut Numbering<'_>,
        filings: &mut Vec<Filing>,
    ) -> Result<()> {
        let Draft { resource, plan, subjects, body, besides } = draft;
        let context = unit.unit.answered.staged().permitted().checked().normalized().context();
        let operation = &unit.answer.operation;
        let numbered: Vec<_> = subjects.pseudonyms().iter().map(|it| (*it, numbering.next(it))).collect();
        let mut record = Record::new("resource", &self.tenant, writing.recorded_at)
            .hex("digest", &resource.digest().0)
            .text("id", &plan.id)
            .text("operation", operation)
            .text("sender", &context.caller.institution)
            .text("type", resource.resource_type())
            .number("version", plan.version);
        if let Some(stored) = besides.and_then(|it| it.stored.as_ref()) {
            record = record.hex("stored", &stored.0);
        }
        let leaf = record.commit(&numbered)?;
        let about = About {
            resource_type: resource.resource_type().to_string(),
            id: plan.id.clone(),
            version: plan.version,
            upstream_version: besides.and_then(|it| it.upstream_version.clone()),
            recorded_at: writing.recorded_at.to_owned(),
            subjects: subjects.pseudonyms().to_vec(),
            unattributed: **subjects == Subjects::Unattributed,
            labels: context.labels.as_deref().map(str::to_owned),
            sender: context.caller.institution.to_string(),
            operation: operation.clone(),
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
            let todo = Work { pieces: vec![piece], shared: Shared::default() };
            let (row, value) = (work::key(work::Kind::File, self.next_sequence()), todo.encode()?);
            batch.add_put(Table::Work, row.clone(), value.clone());
            let affected = besides.map(|it| it.affected.clone()).unwrap_or_default();
            filings.push(Filing { row, value, subjects: affected });
        }
        if unit.unit.ground.announced {
            let bytes = body.len() + work::SUBJECT_BYTES * subjects.pseudonyms().len();
            if writing.pieces.len() == work::PIECES_MAX || writing.pieces_bytes + bytes > work::BODY_BYTES_MAX {
                self.work(writing)?;
            }
            writing.pieces.push(piece);
            writing.pieces_bytes += bytes;
        }
        Ok(())
    }

    /// The row of the work that was gathered, if any was.
    fn work(&self, writing: &mut Writing<'_>) -> Result<()> {
        let pieces = std::mem::take(&mut writing.pieces);
        writing.pieces_bytes = 0;
        if pieces.is_empty() {
            return Ok(());
        }
        let Trace { parent, state } = &writing.trace;
        let text = |it: &Option<Arc<str>>| it.as_deref().map(str::to_owned);
        let shared = Shared { traceparent: text(parent), tracestate: text(state), told: Vec::new() };
        let key = work::key(work::Kind::Route, self.next_sequence());
        writing.batch.add_put(Table::Work, key, Work { pieces, shared }.encode()?);
        Ok(())
    }

    /// The rows that hold what was gathered from all units.
    fn finish(&self, mut writing: Writing<'_>) -> Result<Batch> {
        self.work(&mut writing)?;
        let Writing { mut batch, bodies, mut sealers, leaves, .. } = writing;
        bodies.finish(&mut sealers, &mut batch)?;
        self.pending(&mut batch, &leaves);
        Ok(batch)
    }
}

impl Ready<'_> {
    /// The versions that it writes: what was sent, then what Sluice adds.
    fn drafts(&self) -> Vec<Draft<'_>> {
        let permitted = self.unit.answered.staged().permitted();
        let resources = permitted.checked().normalized().resources();
        let sent = self.planned.iter().enumerate().filter(|(_, plan)| plan.write).map(|(at, plan)| Draft {
            resource: &resources[at],
            plan,
            subjects: &self.whom[at],
            body: &self.bodies[at],
            besides: Some(&self.besides[at]),
        });
        let added = self.authored.iter().map(|provenance::Authored { resource, plan, subjects, body }| Draft {
            resource,
            plan,
            subjects,
            body,
            besides: None,
        });
        sent.chain(added).collect()
    }

    /// Whether it can go with those before it, which write these rows; then its own are among them.
    fn joins(&self, taken: &mut HashSet<(Table, Bytes)>) -> bool {
        let drafts = self.drafts();
        if drafts.iter().any(|it| &**it.resource.resource_type() == "Consent") {
            return false;
        }
        let heads: Vec<_> =
            drafts.iter().filter(|it| !it.plan.fresh).map(|it| (Table::Resource, it.plan.key.head())).collect();
        if heads.iter().any(|row| taken.contains(row)) || self.batch.named().any(|row| taken.contains(&row)) {
            return false;
        }
        taken.extend(heads);
        taken.extend(self.batch.written());
        true
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an outcome like any other")]
fn raced() -> Result<Attempt> {
    Ok(Attempt::Raced)
}

/// Ends these units alike.
fn all(
    ended: &mut [Option<Result<Attempt>>],
    places: impl Iterator<Item = usize>,
    outcome: impl Fn() -> Result<Attempt>,
) {
    places.for_each(|at| ended[at] = Some(outcome()));
}

/// The rows by which the Consents of a subject are found later.
fn consents(drafts: &[Draft<'_>]) -> Batch {
    let mut batch = Batch::new();
    for Draft { plan, subjects, .. } in drafts.iter().filter(|it| &**it.resource.resource_type() == "Consent") {
        for subject in subjects.pseudonyms() {
            batch.add_put(Table::SubjectResource, [subject.0, plan.key.0].concat(), Bytes::new());
        }
    }
    batch
}

/// What the sender is told.
fn told(answered: &Answered, planned: &[Planned], bodies: &[Bytes], recorded_at: &str) -> Result<Answer> {
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
    Ok(Answer { operation: answered.staged().operation().to_string(), transaction, entries })
}

/// Every subject of a unit once.
fn everyone(permitted: &Permitted, whom: &[Subjects]) -> Vec<Pseudonym> {
    let asked = permitted.basis().iter().map(|basis| basis.subject);
    each_once(whom.iter().flat_map(Subjects::pseudonyms).copied().chain(asked).collect())
}
