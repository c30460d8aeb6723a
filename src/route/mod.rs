//! Route: a recorded resource is decided on for every subscriber.
//!
//! Takes: work that `record` left, in the order recorded. Gives: a leaf for each decision, and an outbox row for each
//! event. Never: makes an event of what is not permitted; lets a resource overtake another of the same patient.
//!
//! Leaves, rows and the end of the work are one commit. A crash before it leaves the work, which is done again and gives
//! the same events; a crash after it leaves nothing to do. What is too large for one commit is shared out: fewer rows of
//! work at a time, then one row for some of the subscribers, whose names stand in the row until all have had it. A row
//! for one subscriber always fits: `record` bounds it, and an event that no broker would take is made without resources.

pub mod decide;
pub mod event;
pub mod make;
pub mod outbox;

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use time::OffsetDateTime;

use self::event::Action;
use self::make::{Making, Told, Way};
use crate::config::{Granularity, Subscriber};
use crate::consent::door::{Door, Judgement};
use crate::consent::pseudonym::Pseudonym;
use crate::error::Result;
use crate::observe;
use crate::record::counters::Numbering;
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

/// A commit above this length is shared out: the store takes four times as much, which is what others commit meanwhile.
const COMMIT_BYTES_MAX: usize = 8 << 20;

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

/// Rows of work, as far as they are decided.
#[derive(Default)]
struct Taken {
    rows: Vec<TakenRow>,
    decided: Vec<Decided>,
    /// Places of the subscribers for whom all of it is done already.
    told: Vec<usize>,
}

/// One of them.
struct TakenRow {
    row: Row,
    shared: Arc<Shared>,
    pieces: Vec<Piece>,
    /// What can't be decided yet, or stands behind such.
    waiting: Vec<Piece>,
    /// What goes with a later commit.
    later: Vec<Piece>,
}

/// What one commit holds.
struct Made<'a> {
    batch: Batch,
    numbering: Numbering<'a>,
    events: usize,
}

/// What a commit did.
struct Did {
    /// How many rows it was about.
    rows: usize,
    /// Whether more is to be done about them at once.
    again: bool,
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
            let rows = rows?;
            if rows.is_empty() {
                if let Some(row) = left.or(seen).as_deref().and_then(work::sequence) {
                    recorder.unrouted().done_below(row);
                }
                return Ok(progress);
            }
            let mut rows = &rows[..];
            while let Some(first) = rows.first() {
                let waiting = progress.waiting;
                let Did { rows: count, again } = self.batch(rows, &mut blocked, &mut progress, recorder, door).await?;
                if again {
                    // They are not what was read any more.
                    range.from = Bound::Included(first.key.clone());
                    break;
                }
                if progress.waiting > waiting {
                    left = left.or_else(|| Some(first.key.clone()));
                }
                let (done, behind) = rows.split_at(count.clamp(1, rows.len()));
                if let Some(last) = done.last() {
                    range = range.after(last.key.clone());
                    seen = Some(last.key.clone());
                }
                rows = behind;
            }
        }
    }

    /// Decides on the next rows, as many as one commit takes, at least one.
    async fn batch(
        &self,
        rows: &[Row],
        blocked: &mut HashSet<Pseudonym>,
        progress: &mut Progress,
        recorder: &Recorder,
        door: &Door,
    ) -> Result<Did> {
        let (mut rows_max, mut pieces_max) = (rows.len(), usize::MAX);
        loop {
            let mut ahead = blocked.clone();
            let taken = self.take(&rows[..rows_max], pieces_max, &mut ahead, recorder, door).await?;
            let to_tell: Vec<usize> = (0..self.subscribers.len()).filter(|it| !taken.told.contains(it)).collect();
            let Some((made, count)) = self.fit(&taken, &to_tell, recorder).await? else {
                if taken.rows.len() > 1 {
                    rows_max = taken.rows.len() / 2;
                } else {
                    // Beside what waits it can't be said who has had the rest, so it goes in parts to everybody; and
                    // what has no parts waits as well.
                    pieces_max = taken.decided.len() / 2;
                }
                continue;
            };
            let Made { mut batch, numbering, events } = made;
            let told: Vec<usize> = taken.told.iter().chain(&to_tell[..count]).copied().collect();
            let mut done = 0;
            for row in &taken.rows {
                batch = self.rest(batch, row, &told)?;
                done += row.pieces.len() - row.waiting.len() - row.later.len();
            }
            if !batch.is_empty() {
                // A crash before this commit leaves the rows as they were; after it, who is named in them has had it.
                let committing = recorder.store().commit(batch);
                drop(numbering);
                if let Err(error) = committing.await {
                    recorder.counters().forget().await;
                    return Err(uncommitted(&error));
                }
                progress.events += events;
            }
            let again = count < to_tell.len() || taken.rows.iter().any(|it| !it.later.is_empty());
            if count == to_tell.len() {
                progress.done += done;
            }
            if !again {
                *blocked = ahead;
                progress.waiting += taken.rows.iter().map(|it| it.waiting.len()).sum::<usize>();
            }
            return Ok(Did { rows: taken.rows.len(), again });
        }
    }

    /// Reads and decides on the next rows, up to the bounds of a commit; one that some have had goes alone. `pieces_max`
    /// bounds what is decided on of a row; none is decided on if it is 0.
    async fn take(
        &self,
        rows: &[Row],
        pieces_max: usize,
        blocked: &mut HashSet<Pseudonym>,
        recorder: &Recorder,
        door: &Door,
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut reading = Reading::new(recorder);
        let mut bytes = 0;
        for row in rows {
            let Work { pieces, shared } = Work::decode(&row.value)?;
            let begun = !shared.told.is_empty();
            if begun && !taken.rows.is_empty() {
                break;
            }
            let told = |it: &Subscriber| shared.told.contains(&it.id);
            taken.told = self.subscribers.iter().enumerate().filter(|(_, it)| told(it)).map(|(at, _)| at).collect();
            let shared = Arc::new(shared);
            let (mut waiting, mut later, mut decided) = (Vec::new(), Vec::new(), Vec::new());
            // Without subscribers there is nothing to decide, and so nothing to be read.
            let asked = if self.subscribers.is_empty() { &[][..] } else { &pieces[..] };
            for piece in asked {
                if pieces_max > 0 && decided.len() >= pieces_max {
                    later.push(*piece);
                    continue;
                }
                let Some(version) = reading.version(&piece.resource, piece.version).await? else {
                    // Erased since: nobody is told.
                    continue;
                };
                let judgements = self.judge(&version, &taken.told, door).await?;
                let waits = pieces_max == 0 || judgements.iter().any(|(_, it)| it.pending && !it.passes());
                if waits || version.about.subjects.iter().any(|it| blocked.contains(it)) {
                    blocked.extend(version.about.subjects.iter().copied());
                    waiting.push(*piece);
                    continue;
                }
                bytes += version.body.len();
                decided.push(Decided { piece: *piece, shared: Arc::clone(&shared), version, judgements });
            }
            if begun && !waiting.is_empty() {
                // What some have had stays together, so that the row can say who they are.
                blocked.extend(decided.drain(..).flat_map(|it| it.version.about.subjects));
                waiting.clone_from(&pieces);
            }
            taken.decided.append(&mut decided);
            taken.rows.push(TakenRow { row: row.clone(), shared, pieces, waiting, later });
            if begun || taken.decided.len() >= PIECES_MAX || bytes >= BODY_BYTES_MAX {
                break;
            }
        }
        Ok(taken)
    }

    /// What one commit takes: all that was taken for all of these subscribers; or, of a single row that is decided
    /// whole, for the first of them, and for how many. None if it takes neither.
    async fn fit<'a>(
        &self,
        taken: &Taken,
        to_tell: &[usize],
        recorder: &'a Recorder,
    ) -> Result<Option<(Made<'a>, usize)>> {
        let whole = matches!(&taken.rows[..], [row] if row.waiting.is_empty() && row.later.is_empty());
        let mut count = to_tell.len();
        loop {
            let (made, fitting) = self.make(taken, &to_tell[..count], whole, recorder).await?;
            if fitting == count {
                return Ok(Some((made, count)));
            }
            // The numbers that were given in vain are forgotten with it.
            drop(made);
            if !whole {
                return Ok(None);
            }
            count = fitting;
        }
    }

    /// The leaves and events for these subscribers, and for how many of them they are: all, or as many as one commit
    /// takes, and at least one if it is `whole`: what a row holds for one is bounded.
    async fn make<'a>(
        &self,
        taken: &Taken,
        to_tell: &[usize],
        whole: bool,
        recorder: &'a Recorder,
    ) -> Result<(Made<'a>, usize)> {
        let everyone: Vec<Pseudonym> = taken.decided.iter().flat_map(|it| it.version.about.subjects.clone()).collect();
        let at = instant(OffsetDateTime::now_utc());
        let numbering = recorder.counters().number(&everyone, &**recorder.store()).await?;
        let mut made = Made { batch: Batch::new(), numbering, events: 0 };
        let mut bytes = 0;
        for (count, place) in to_tell.iter().enumerate() {
            let Some(subscriber) = self.subscribers.get(*place) else { continue };
            let making = Making { recorder, source: &self.source, subscriber, at: &at };
            for group in groups(&taken.decided, *place, subscriber) {
                let told: Vec<Told<'_>> = group
                    .iter()
                    .map(|(it, judgement)| Told { version: &it.version, resource: it.piece.resource, judgement })
                    .collect();
                let (first, judgement) = group[0];
                let subjects = &first.version.about.subjects;
                let numbered: Vec<_> = subjects.iter().map(|it| (*it, made.numbering.next(it))).collect();
                let part = if judgement.passes() {
                    made.events += 1;
                    let Shared { traceparent, tracestate, .. } = Shared::clone(&first.shared);
                    making.event(Batch::new(), &told, Way { traceparent, tracestate, instead: None }, &numbered)?
                } else {
                    making.denial(Batch::new(), told[0], &numbered)?
                };
                bytes += part.bytes();
                if bytes > COMMIT_BYTES_MAX && !(whole && count == 0) {
                    return Ok((made, count));
                }
                made.batch.append(part);
            }
        }
        made.batch = made.numbering.seal(made.batch);
        Ok((made, to_tell.len()))
    }

    /// Adds what becomes of a row of work once these subscribers have had what was decided of it.
    fn rest(&self, batch: Batch, taken: &TakenRow, told: &[usize]) -> Result<Batch> {
        let TakenRow { row, shared, pieces, waiting, later } = taken;
        let all = told.len() == self.subscribers.len();
        let left = if all { [&waiting[..], later].concat() } else { pieces.clone() };
        if all && left.len() == pieces.len() {
            return Ok(batch);
        }
        // Whoever else routes on the same store loses here, and changes nothing.
        let batch = batch.expect_value(Table::Work, row.key.clone(), row.value.clone());
        if left.is_empty() {
            return Ok(batch.delete(Table::Work, row.key.clone()));
        }
        let mut shared = Shared::clone(shared);
        shared.told = if all { Vec::new() } else { told.iter().map(|it| self.subscribers[*it].id.clone()).collect() };
        Ok(batch.put(Table::Work, row.key.clone(), Work { pieces: left, shared }.encode()?))
    }

    /// What the door says for each subscriber that takes this type, but for those who have been told.
    async fn judge(&self, version: &Version, told: &[usize], door: &Door) -> Result<Vec<(usize, Judgement)>> {
        let takes =
            |it: &Subscriber| it.resource_types.is_empty() || it.resource_types.contains(&version.about.resource_type);
        let (places, takers): (Vec<usize>, Vec<&Subscriber>) =
            self.subscribers.iter().enumerate().filter(|(at, it)| takes(it) && !told.contains(at)).unzip();
        let judgements = decide::judge(door, observe::Door::Route, &takers, version).await?;
        Ok(places.into_iter().zip(judgements).collect())
    }
}

/// What is decided together: each resource alone, or, where the subscriber wants one event of a unit, what is permitted of
/// one operation, is about the same patients, and had the same happen to it, as long as it is not too long.
/// Nothing passes another resource about one of its patients by that.
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
        let bytes = |group: &[(&Decided, &Judgement)]| group.iter().map(|(it, _)| it.version.body.len()).sum::<usize>();
        // The last group about any of its patients: it joins that one, or goes behind it.
        let before = groups.iter_mut().rev().find(|group| ahead(group));
        match before {
            Some(group) if joins(&group[0]) && bytes(group) + it.version.body.len() <= BODY_BYTES_MAX => {
                group.push((it, judgement));
            }
            _ => groups.push(vec![(it, judgement)]),
        }
    }
    groups
}
