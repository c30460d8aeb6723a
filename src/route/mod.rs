//! Route: a recorded resource is decided on for every subscriber.
//!
//! Takes: work that `record` left, in the order recorded. Gives: a leaf for each decision, and an outbox row for each
//! event. Never: makes an event of what is not permitted; lets a resource overtake another of the same patient.
//!
//! Leaves, rows and the end of the work are one commit. A crash before it leaves the work, which is done again and gives
//! the same events; a crash after it leaves nothing to do.

pub mod decide;
pub mod event;
pub mod outbox;

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use self::event::{Action, Focus, Maker};
use self::outbox::Waiting;
use crate::config::{Granularity, Subscriber, Wait};
use crate::consent::door::{Door, Judgement};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::observe;
use crate::record::leaf::Record;
use crate::record::reading::Reading;
use crate::record::version::Version;
use crate::record::work::{self, Kind, Piece, Shared, Work};
use crate::record::{Recorder, instant, uncommitted};
use crate::store::{Batch, Direction, KeyRange, Row, Table};

/// Rows of work read at a time.
const ROWS_MAX: usize = 64;

/// One commit takes no further row once it holds this many resources, or this many bytes of them.
const PIECES_MAX: usize = 256;
const BODY_BYTES_MAX: usize = 2 << 20;

/// What routing needs.
#[derive(Clone)]
pub struct Router {
    /// Who is told.
    pub subscribers: Arc<[Subscriber]>,
    /// The tenant's `[base]`: the source of its events.
    pub source: Arc<str>,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows of work that are done.
    pub done: usize,
    /// Rows that wait for what a decision needs.
    pub waiting: usize,
    /// Events that are to be sent.
    pub events: usize,
}

/// A piece of work, decided.
struct Decided {
    piece: Piece,
    shared: Arc<Shared>,
    version: Version,
    /// By the place of the subscriber.
    judgements: Vec<(usize, Judgement)>,
}

impl Router {
    /// Decides on all work that there is. What can't be decided yet stays, and what is about the same patients behind it.
    ///
    /// # Errors
    /// An outage of the store or the keys. What was committed before stays done.
    pub async fn pass(&self, recorder: &Recorder, door: &Door) -> Result<Progress> {
        let mut progress = Progress::default();
        let mut blocked = HashSet::new();
        let from = work::key(Kind::Route, recorder.unrouted().from());
        let mut range = KeyRange { from: Bound::Included(from), ..KeyRange::prefix(vec![Kind::Route as u8]) };
        // The first row that is left, or the last one seen.
        let (mut left, mut seen) = (None, None);
        loop {
            let rows = recorder.store().scan(Table::Work, range.clone(), ROWS_MAX, Direction::Up).await;
            let mut rows = rows?.into_iter().peekable();
            if rows.peek().is_none() {
                if let Some(row) = left.or(seen).as_deref().and_then(work::sequence) {
                    recorder.unrouted().done_below(row);
                }
                return Ok(progress);
            }
            while rows.peek().is_some() {
                let waiting = progress.waiting;
                let (first, last) = self.batch(&mut rows, &mut blocked, &mut progress, recorder, door).await?;
                if progress.waiting > waiting {
                    left = left.or(Some(first));
                }
                range = range.after(last.clone());
                seen = Some(last);
            }
        }
    }

    /// Decides on the next rows, as many as one commit takes, at least one; gives the keys of the first and of the last.
    async fn batch(
        &self,
        rows: &mut impl Iterator<Item = Row>,
        blocked: &mut HashSet<Pseudonym>,
        progress: &mut Progress,
        recorder: &Recorder,
        door: &Door,
    ) -> Result<(Bytes, Bytes)> {
        let mut batch = Batch::new();
        let mut decided = Vec::new();
        let mut reading = Reading::new(recorder);
        let (mut done, mut bytes) = (0, 0);
        let (mut first, mut last) = (None, Bytes::new());
        for row in rows {
            let Work { pieces, shared } = Work::decode(&row.value)?;
            let shared = Arc::new(shared);
            let count = pieces.len();
            let mut left = Vec::new();
            // Without subscribers there is nothing to decide, and so nothing to be read.
            let asked = if self.subscribers.is_empty() { Vec::new() } else { pieces };
            for piece in asked {
                let Some(version) = reading.version(&piece.resource, piece.version).await? else {
                    // Erased since: nobody is told.
                    continue;
                };
                let judgements = self.judge(&version, door).await?;
                let waits = judgements.iter().any(|(_, it)| it.pending && !it.passes());
                if waits || version.about.subjects.iter().any(|it| blocked.contains(it)) {
                    blocked.extend(version.about.subjects.iter().copied());
                    left.push(piece);
                    continue;
                }
                bytes += version.body.len();
                decided.push(Decided { piece, shared: Arc::clone(&shared), version, judgements });
            }
            progress.waiting += left.len();
            done += count - left.len();
            last = row.key.clone();
            first.get_or_insert_with(|| row.key.clone());
            if left.len() < count {
                // Whoever else routes on the same store loses here, and changes nothing.
                batch = batch.expect_value(Table::Work, row.key.clone(), row.value);
                batch = if left.is_empty() {
                    batch.delete(Table::Work, row.key)
                } else {
                    let shared = Shared::clone(&shared);
                    batch.put(Table::Work, row.key, Work { pieces: left, shared }.encode()?)
                };
            }
            if decided.len() >= PIECES_MAX || bytes >= BODY_BYTES_MAX {
                break;
            }
        }
        let keys = (first.unwrap_or_default(), last);
        let everyone: Vec<Pseudonym> = decided.iter().flat_map(|it| it.version.about.subjects.clone()).collect();
        let at = instant(OffsetDateTime::now_utc());
        let mut events = 0;
        let mut numbering = recorder.counters().number(&everyone, &**recorder.store()).await?;
        let mut number = |subjects: &[Pseudonym]| -> Vec<(Pseudonym, u64)> {
            subjects.iter().map(|it| (*it, numbering.next(it))).collect()
        };
        for (place, subscriber) in self.subscribers.iter().enumerate() {
            for group in groups(&decided, place, subscriber) {
                let subjects = &group[0].0.version.about.subjects;
                let judgement = group[0].1;
                let record = record(recorder, subscriber, judgement, &at);
                if judgement.passes() {
                    batch = self.event(batch, recorder, subscriber, &group, record, &at, &number(subjects))?;
                    events += 1;
                } else {
                    // Never shown to the subscriber, so it may say which resource and why.
                    let about = &group[0].0.version.about;
                    let record = record.text("leaf", &about.commitment);
                    let record = match &judgement.provision {
                        Some(path) => record.text("provision", path),
                        None => record,
                    };
                    batch = recorder.leaf(batch, &record.commit(&number(subjects))?, subjects)?;
                }
            }
        }
        if batch.is_empty() {
            return Ok(keys);
        }
        batch = numbering.seal(batch);
        let committing = recorder.store().commit(batch);
        drop(numbering);
        if let Err(error) = committing.await {
            recorder.counters().forget().await;
            return Err(uncommitted(&error));
        }
        progress.done += done;
        progress.events += events;
        Ok(keys)
    }

    /// What the door says for each subscriber that takes this type.
    async fn judge(&self, version: &Version, door: &Door) -> Result<Vec<(usize, Judgement)>> {
        let takes =
            |it: &Subscriber| it.resource_types.is_empty() || it.resource_types.contains(&version.about.resource_type);
        let (places, takers): (Vec<usize>, Vec<&Subscriber>) =
            self.subscribers.iter().enumerate().filter(|(_, it)| takes(it)).unzip();
        let judgements = decide::judge(door, observe::Door::Route, &takers, version).await?;
        Ok(places.into_iter().zip(judgements).collect())
    }

    /// Adds the leaf and the outbox row of one event.
    fn event(
        &self,
        batch: Batch,
        recorder: &Recorder,
        subscriber: &Subscriber,
        group: &[(&Decided, &Judgement)],
        record: Record,
        at: &str,
        numbered: &[(Pseudonym, u64)],
    ) -> Result<Batch> {
        let keys = recorder.keys();
        let first = group[0].0;
        let subjects = &first.version.about.subjects;
        let mut pairwise: Vec<Pseudonym> = subjects.iter().map(|it| it.towards(keys, &subscriber.id)).collect();
        pairwise.sort_unstable();
        // The subject of an event about several is the one whose lane its row stands in.
        let subject = pairwise.first().copied();
        let focus: Vec<Focus<'_>> = group
            .iter()
            .map(|(it, _)| Focus {
                resource_type: &it.version.about.resource_type,
                id: &it.version.about.id,
                version: it.version.about.version,
                body: &it.version.body,
            })
            .collect();
        // The time of recording, not of routing: the same input gives the same body.
        let time = &first.version.about.recorded_at;
        let body = Maker { keys, source: &self.source, subscriber }.body(subject.as_ref(), time, &focus)?;
        let digest: [u8; 32] = Sha256::digest(&body.canonical).into();
        let leaf = record.hex("event", &digest).commit(numbered)?;
        let text = String::from_utf8(body.canonical.to_vec());
        let waiting = Waiting {
            subscriber: subscriber.id.clone(),
            id: body.id,
            kind: body.kind,
            routing_key: body.routing_key,
            body: text.map_err(|_| Error::defect("an event is not UTF-8"))?,
            time: at.to_owned(),
            recorded_at: time.clone(),
            commitment: Pseudonym(leaf.commitment),
            r: leaf.opening.r.clone(),
            decision: leaf.opening.record.clone(),
            subjects: subjects.clone(),
            pairwise: subject,
            versions: group.iter().map(|(it, _)| (Pseudonym(it.piece.resource.0), it.piece.version)).collect(),
            traceparent: first.shared.traceparent.clone(),
            wait: subscriber.wait,
            sequence: None,
            maybe_sent: false,
            attempts: 0,
        };
        let lanes = outbox::lanes(keys, &subscriber.id, &pairwise);
        let (own, others) = lanes.split_first().ok_or_else(|| Error::defect("an event stands in no lane"))?;
        let key = outbox::key(own, recorder.next_sequence());
        let value = outbox::seal(recorder, &key, others, &waiting)?;
        let mut batch = recorder.leaf(batch, &leaf, subjects)?;
        for other in others {
            batch = batch.put(Table::Outbox, outbox::beside(other, &key), outbox::also());
        }
        Ok(batch.put(Table::Outbox, key, value))
    }
}

/// The record of a decision, as the subscriber may see it.
fn record(recorder: &Recorder, subscriber: &Subscriber, judgement: &Judgement, at: &str) -> Record {
    let wait = match subscriber.wait {
        Wait::Log => "log",
        Wait::Ledger => "ledger",
    };
    let record = Record::new("decision", recorder.tenant(), at)
        .text("action", "disclose")
        .text("door", "route")
        .text("outcome", judgement.outcome.code())
        .text("rule", judgement.rule)
        .text("subscriber", &subscriber.id)
        .text("wait", wait)
        .number("head", judgement.head);
    match judgement.versions[..] {
        [(_, version)] => record.number("subjectVersion", version.unwrap_or(0)),
        _ => record,
    }
}

/// What is decided together: each resource alone, or, where the subscriber wants one event of a unit, what is permitted of
/// one operation, is about the same patients, and had the same happen to it. Nothing passes another resource about one of
/// its patients by that.
fn groups<'a>(decided: &'a [Decided], place: usize, subscriber: &Subscriber) -> Vec<Vec<(&'a Decided, &'a Judgement)>> {
    let mut groups: Vec<Vec<(&Decided, &Judgement)>> = Vec::new();
    for it in decided {
        let Some((_, judgement)) = it.judgements.iter().find(|(at, _)| *at == place) else { continue };
        let subjects = &it.version.about.subjects;
        let joins = |(before, said): &(&Decided, &Judgement)| {
            subscriber.granularity == Granularity::Unit
                && said.passes()
                && judgement.passes()
                && said.rule == judgement.rule
                && said.outcome == judgement.outcome
                && before.version.about.operation == it.version.about.operation
                && before.version.about.subjects == *subjects
                && Action::of(before.version.about.version) == Action::of(it.version.about.version)
        };
        let ahead = |group: &Vec<(&Decided, &Judgement)>| {
            let others = &group[0].0.version.about.subjects;
            (subjects.is_empty() && others.is_empty()) || others.iter().any(|other| subjects.contains(other))
        };
        // The last group about any of its patients: it joins that one, or goes behind it.
        let before = groups.iter_mut().rev().find(|group| ahead(group));
        match before {
            Some(group) if joins(&group[0]) => group.push((it, judgement)),
            _ => groups.push(vec![(it, judgement)]),
        }
    }
    groups
}
