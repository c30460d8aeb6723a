//! Lanes: what waits for one subscriber about one patient goes out in order, one event at a time.
//!
//! Takes: rows of the outbox. Gives: each event to the broker, once its leaf is proven and the decision still holds. Never:
//! sends a row before the one ahead of it is confirmed or cancelled; gives a sequence number twice.
//!
//! An event about several patients stands in the lane of each, and goes once it is the first in all of them. Of two such
//! events the one routed first is ahead in every lane that they share, so no two wait for each other.
//!
//! Each row goes: recheck (one commit: the number, and that it may be sent) -> publish -> mark (one commit: the row is gone).
//! The same functions run at a restart.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;

use super::message::message;
use super::recheck::{Basis, Denial, Recheck};
use super::rows::{commit, count, read, scan, without};
use crate::anchor::{AnchorReceipt, LeafProof, Log};
use crate::broker::{Broker, PublishError, State};
use crate::config::{Subscriber, Wait};
use crate::consent::door::{Door, Judgement};
use crate::error::{Error, Result};
use crate::ingest::window::Window;
use crate::observe::{self, Published};
use crate::record::version::{ResourceKey, Version};
use crate::record::{Recorder, instant};
use crate::route::decide;
use crate::route::make::{Making, Told, Way};
use crate::route::outbox::{self, Hash32, Own, Place, Waiting};
use crate::store::{Batch, KeyRange, Row, Table};

/// Rows of a lane that are read at a time.
const ROWS_MAX: usize = 16;

/// Rows of a lane that go before another lane has its turn.
const TURN: usize = 256;

/// Pause before lanes that wait are looked at again while others are still under way; doubled each time, up to the second.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The longest pause of a lane.
const REST_MAX: Duration = Duration::from_secs(30);

/// A row up to this length is small, so that several are read at a time.
const ROW_BYTES_SMALL: usize = 8 << 10;

/// Bytes of the events that are in flight at a time. Each is held several times over while it is opened, decided on again
/// and sent.
const IN_FLIGHT_BYTES: usize = 2 << 20;

/// What publishing needs.
#[derive(Clone)]
pub struct Publisher {
    /// Where leaves are proven.
    pub log: Arc<Log>,
    /// Where events go.
    pub broker: Arc<dyn Broker>,
    /// Who is told.
    pub subscribers: Arc<[Subscriber]>,
    /// The tenant's `[base]`: the source of its events.
    pub source: Arc<str>,
    /// Lanes with an event in flight at most.
    pub window: usize,
    /// Tries of one event before its lane is parked.
    pub attempts_max: u32,
    /// The first pause of a lane whose event the broker refused; doubled each time.
    pub retry_wait: Duration,
    /// Lanes that make such a pause.
    pub resting: Resting,
}

/// Lanes that make a pause, and until when. Nothing is lost with it: a restart tries at once.
#[derive(Clone, Default)]
pub struct Resting(Arc<Mutex<HashMap<Bytes, Instant>>>);

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events that the broker confirmed.
    pub sent: usize,
    /// Events that are not permitted any more, or were erased.
    pub cancelled: usize,
    /// Events that stay, for the proof, the decision or the broker; of a long lane only the first are counted.
    pub waiting: usize,
    /// Events that were parked.
    pub parked: usize,
}

/// What became of a row.
enum End {
    Sent,
    Cancelled,
    /// It stays, and so does its lane.
    Waits,
    /// The broker did not take it.
    Refused,
    /// The broker is not there.
    Down,
    Parked,
}

/// What became of a lane.
struct Went {
    lane: Bytes,
    progress: Progress,
    /// Whether an event that stood in other lanes as well is gone, or the lane has more.
    again: bool,
    /// Whether the lane may be looked at again in this pass.
    held: bool,
    /// Whether the broker is not there.
    down: bool,
}

/// A row, and what stands in it.
struct Event {
    row: Row,
    own: Own,
    waiting: Waiting,
}

impl Publisher {
    /// Sends all that can be sent. A lane that is slow holds up no other, also none in which something arrives meanwhile.
    ///
    /// # Errors
    /// An outage of the store or the keys. What was marked before stays sent.
    pub async fn pass(&self, recorder: &Recorder, door: &Door) -> Result<Progress> {
        let mut progress = Progress::default();
        if self.broker.state() != State::Ready {
            let first = scan(recorder, Table::Outbox, KeyRange::all(), 1).await?;
            return Ok(Progress { waiting: first.len(), ..progress });
        }
        let room = Window::new(IN_FLIGHT_BYTES);
        let mut running = FuturesUnordered::new();
        // Lanes under way; lanes that are done with for this pass; and how many rows stay in each lane.
        let (mut busy, mut held, mut waiting) = (HashSet::new(), HashSet::new(), HashMap::new());
        let (mut walk, mut again, mut down, mut failed) = (Some(KeyRange::all()), false, false, None);
        let mut pause = LOOK;
        loop {
            while let Some(range) = walk.take_if(|_| running.len() < self.window.max(1)) {
                match next_lane(range, recorder).await {
                    Ok(None) => {}
                    Ok(Some(lane)) => {
                        walk = Some(outbox::behind(&lane));
                        if !held.contains(&lane) && busy.insert(lane.clone()) {
                            running.push(self.lane(lane, recorder, door, &room));
                        }
                    }
                    Err(error) => failed = Some(error),
                }
            }
            let over = down || failed.is_some();
            if running.is_empty() {
                if !over && walk.is_none() && std::mem::take(&mut again) {
                    walk = Some(KeyRange::all());
                    // Each lane is looked at again and counted then, but for those that are done with.
                    waiting.retain(|lane, _| held.contains(lane));
                    continue;
                }
                if over || walk.is_none() {
                    break;
                }
            }
            // All lanes come to their end, whatever happens to one: a future that is dropped could have sent.
            let ended = if walk.is_none() && !over {
                let Ok(ended) = tokio::time::timeout(pause, running.next()).await else {
                    // What has come since, and what waited for a proof or for another lane.
                    pause = (pause * 2).min(LOOK_MAX);
                    walk = Some(KeyRange::all());
                    waiting.retain(|lane, _| held.contains(lane));
                    continue;
                };
                ended
            } else {
                running.next().await
            };
            match ended {
                Some(Ok(went)) => {
                    busy.remove(&went.lane);
                    progress.add(went.progress);
                    again |= went.again;
                    down |= went.down;
                    waiting.insert(went.lane.clone(), went.progress.waiting);
                    if went.held {
                        held.insert(went.lane);
                    }
                }
                Some(Err(error)) => failed = Some(error),
                None => {}
            }
            if down || failed.is_some() {
                walk = None;
            }
        }
        progress.waiting = waiting.into_values().sum();
        match failed {
            Some(error) => Err(error),
            None => Ok(progress),
        }
    }

    /// The rows of one lane in order, until one has to stay.
    async fn lane(&self, lane: Bytes, recorder: &Recorder, door: &Door, room: &Window) -> Result<Went> {
        let mut went = Went { lane, progress: Progress::default(), again: false, held: false, down: false };
        if self.resting.rests(&went.lane) {
            (went.progress.waiting, went.held) = (1, true);
            return Ok(went);
        }
        let parked = self.is_parked(&went.lane, recorder).await?;
        let (mut left, mut most) = (TURN, 1);
        loop {
            let rows = scan(recorder, Table::Outbox, KeyRange::prefix(went.lane.clone()), most).await?;
            let stand = if rows.len() < most {
                rows.len()
            } else {
                count(recorder, Table::Outbox, KeyRange::prefix(went.lane.clone()), ROWS_MAX).await?.max(rows.len())
            };
            // Of large ones each lane holds one at a time.
            most = if rows.iter().all(|row| row.value.len() <= ROW_BYTES_SMALL) { ROWS_MAX } else { 1 };
            if parked {
                (went.progress.waiting, went.held) = (stand, true);
                return Ok(went);
            }
            if rows.is_empty() {
                return Ok(went);
            }
            for (at, row) in rows.into_iter().enumerate() {
                if left == 0 {
                    went.again = true;
                    return Ok(went);
                }
                left -= 1;
                let entered = room.enter(outbox::weight(&row.value)).await?;
                let (end, several) = self.row(row, recorder, door).await?;
                drop(entered);
                went.progress.waiting = stand.saturating_sub(at);
                match end {
                    End::Sent => went.progress.sent += 1,
                    End::Cancelled => went.progress.cancelled += 1,
                    End::Waits => {
                        // It may have been the last to come to an event of several lanes, which is the first in all now.
                        went.again |= several && went.progress.sent + went.progress.cancelled > 0;
                        return Ok(went);
                    }
                    End::Refused | End::Down => {
                        went.held = true;
                        went.down = matches!(end, End::Down);
                        return Ok(went);
                    }
                    End::Parked => {
                        went.held = true;
                        went.progress.parked += 1;
                        went.progress.waiting -= 1;
                        return Ok(went);
                    }
                }
                went.progress.waiting -= 1;
                went.again |= several;
            }
        }
    }

    /// Whether an event holds up the lane until an operator acts. One that was erased since does not.
    async fn is_parked(&self, lane: &Bytes, recorder: &Recorder) -> Result<bool> {
        let Some(parked) = scan(recorder, Table::Parked, KeyRange::prefix(lane.clone()), 1).await?.pop() else {
            return Ok(false);
        };
        let row = read(recorder, Table::Outbox, &parked.key).await?;
        if let Some(row) = row
            && outbox::open(recorder, &row.key, &row.value)?.is_some()
        {
            return Ok(true);
        }
        commit(recorder, Batch::new().delete(Table::Parked, parked.key)).await?;
        Ok(false)
    }

    /// The first row of its lane, and whether it stands in several.
    async fn row(&self, row: Row, recorder: &Recorder, door: &Door) -> Result<(End, bool)> {
        let own = match outbox::place_of(&row.key, &row.value)? {
            // It goes in the lane that its row stands in.
            Place::Also => return Ok((End::Waits, true)),
            Place::Own(own) => own,
        };
        let several = !own.others.is_empty();
        for other in &own.others {
            let first = scan(recorder, Table::Outbox, KeyRange::prefix(other.clone()), 1).await?;
            if first.first().is_none_or(|it| it.key != outbox::beside(other, &row.key)) {
                return Ok((End::Waits, several));
            }
        }
        let Some(waiting) = outbox::open(recorder, &row.key, &row.value)? else {
            // Erased with a subject: nobody is told, and nothing is left to tell.
            commit(recorder, without(&row, &own)).await?;
            return Ok((End::Cancelled, several));
        };
        let end = self.event(Event { row, own, waiting }, recorder, door).await?;
        Ok((end, several))
    }

    async fn event(&self, mut event: Event, recorder: &Recorder, door: &Door) -> Result<End> {
        let Some((proof, receipt)) = self.proof(&event.waiting).await? else { return Ok(End::Waits) };
        let subscriber = self.subscribers.iter().find(|it| it.id == event.waiting.subscriber);
        match Basis::from(&event.waiting).recheck(subscriber, recorder, door).await? {
            Recheck::Holds => {}
            Recheck::Waits => return Ok(End::Waits),
            Recheck::Fails { denial, rest } => {
                let rest = self.rest(&rest, subscriber, recorder, door).await?;
                if let (Some(subscriber), false) = (subscriber, rest.is_empty()) {
                    self.narrow(&event, denial, &rest, subscriber, recorder).await?;
                    door.observer().metrics().published(Published::Cancelled);
                    // Its new leaf has no index yet.
                    return Ok(End::Waits);
                }
                cancel(&event, denial, recorder).await?;
                door.observer().metrics().published(Published::Cancelled);
                return Ok(End::Cancelled);
            }
        }
        let Some(body) = outbox::body(recorder, &event.row.key, &event.waiting).await? else {
            // Erased between the two looks: the next pass ends the row.
            return Ok(End::Waits);
        };
        let tried = event.waiting.maybe_sent;
        let sequence = number(&mut event, recorder).await?;
        let message = message(&event.waiting, &body, &self.source, sequence, &proof, receipt, recorder.keys())?;
        // A crash from here to the mark leaves a row with its number: after a restart the same event goes out again under
        // the same id and the same number, and its reader knows it by them.
        let published = self.broker.publish(message).await;
        door.observer().metrics().published(verdict(published));
        if let Err(PublishError::Unavailable | PublishError::Returned { .. } | PublishError::Refused(_)) = published {
            // Nobody got it by this try; by one before it, somebody may have.
            event.waiting.maybe_sent = tried;
        }
        self.end(event, published, recorder).await
    }

    /// Those of an event's versions that may still be told, with the word of the door.
    async fn rest(
        &self,
        versions: &[(Hash32, u64)],
        subscriber: Option<&Subscriber>,
        recorder: &Recorder,
        door: &Door,
    ) -> Result<Vec<(Version, ResourceKey, Judgement)>> {
        let mut rest = Vec::with_capacity(versions.len());
        let Some(subscriber) = subscriber else { return Ok(rest) };
        for (resource, number) in versions {
            let resource = ResourceKey(resource.0);
            let Some(version) = recorder.read_version(&resource, *number).await? else { continue };
            let judgement = decide::judge(door, observe::Door::Recheck, &[subscriber], &version).await?.pop();
            if let Some(judgement) = judgement.filter(Judgement::passes) {
                rest.push((version, resource, judgement));
            }
        }
        Ok(rest)
    }

    /// Cancels an event, and puts in its place one of what may still be told, with a decision, a leaf and an id of its own.
    /// Nothing in it shows that there was another.
    async fn narrow(
        &self,
        event: &Event,
        denial: Denial,
        rest: &[(Version, ResourceKey, Judgement)],
        subscriber: &Subscriber,
        recorder: &Recorder,
    ) -> Result<()> {
        let Event { row, own, waiting } = event;
        let at = instant(OffsetDateTime::now_utc());
        let making = Making { recorder, source: &self.source, subscriber, at: &at };
        let told: Vec<Told<'_>> = rest
            .iter()
            .map(|(version, resource, judgement)| Told { version, resource: *resource, judgement })
            .collect();
        // A number that a broker may have seen belongs to what it was given with.
        let sequence = waiting.sequence.filter(|_| !waiting.maybe_sent);
        let (traceparent, tracestate) = (waiting.traceparent.clone(), waiting.tracestate.clone());
        let way = Way { traceparent, tracestate, instead: Some((row.key.clone(), sequence)) };
        let basis = Basis::from(waiting);
        basis
            .cancel_and(denial, &waiting.subscriber, recorder, |number| {
                making.event(without(row, own), &told, way, &number())
            })
            .await
    }

    /// The proof that the event waits for, under the newest checkpoint that does.
    async fn proof(&self, waiting: &Waiting) -> Result<Option<(LeafProof, Option<AnchorReceipt>)>> {
        let commitment = &waiting.commitment.0;
        match waiting.wait {
            Wait::Log => Ok(self.log.proof(commitment).await?.map(|proof| (proof, None))),
            Wait::Ledger => {
                let Some(anchored) = self.log.anchored() else { return Ok(None) };
                let proof = self.log.proof_at(commitment, anchored.size).await?;
                Ok(proof.map(|proof| (proof, Some(anchored.receipt.clone()))))
            }
        }
    }

    /// Makes durable what the broker said.
    async fn end(&self, mut event: Event, published: Result<(), PublishError>, recorder: &Recorder) -> Result<End> {
        let Err(error) = published else {
            // A crash before this commit sends the event once more; after it, never again.
            commit(recorder, without(&event.row, &event.own)).await?;
            return Ok(End::Sent);
        };
        event.waiting.attempts = event.waiting.attempts.saturating_add(1);
        // A broker that does not answer is an outage, not a fault of this event: it never parks a lane.
        let parks = match error {
            PublishError::Returned { .. } | PublishError::Refused(_) => true,
            PublishError::Nacked => event.waiting.attempts >= self.attempts_max,
            PublishError::Unconfirmed | PublishError::Unavailable => false,
        };
        if error == PublishError::Nacked {
            // Refused is "slow down", as a queue at its limit says it, and not a fault of this event.
            let doubled = 2_u32.saturating_pow(event.waiting.attempts.saturating_sub(1).min(30));
            self.resting.rest(outbox::lane_of(&event.row.key), self.retry_wait.saturating_mul(doubled).min(REST_MAX));
        }
        let mut batch = Batch::new();
        if parks {
            batch = batch.put(Table::Parked, event.row.key.clone(), error.to_string().into_bytes());
        }
        // A crash before this commit forgets one attempt.
        rewrite(&mut event, batch, recorder).await?;
        tracing::warn!(%error, parks, "an event was not confirmed");
        Ok(match error {
            _ if parks => End::Parked,
            PublishError::Unavailable => End::Down,
            _ => End::Refused,
        })
    }
}

impl Resting {
    fn rest(&self, lane: Bytes, pause: Duration) {
        if !pause.is_zero() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, Instant::now() + pause);
        }
    }

    fn rests(&self, lane: &Bytes) -> bool {
        let mut resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = resting.get(lane).is_some_and(|until| *until > Instant::now());
        if !rests {
            resting.remove(lane);
        }
        rests
    }
}

impl Progress {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.cancelled += other.cancelled;
        self.parked += other.parked;
    }
}

/// Ends an event that is not permitted any more, with a leaf that says so. Its number goes to the next one, unless a broker
/// may have the event: then a gap is the truth.
async fn cancel(event: &Event, denial: Denial, recorder: &Recorder) -> Result<()> {
    let Event { row, own, waiting } = event;
    let mut batch = without(row, own);
    if let Some(sequence) = waiting.sequence.filter(|_| !waiting.maybe_sent) {
        batch = batch.put(Table::Lane, outbox::lane_of(&row.key), (sequence - 1).to_be_bytes().to_vec());
    }
    Basis::from(waiting).cancel(batch, &waiting.subscriber, denial, recorder).await
}

/// Makes durable that the event may be sent now, and under which number.
async fn number(event: &mut Event, recorder: &Recorder) -> Result<u64> {
    if let Some(sequence) = event.waiting.sequence.filter(|_| event.waiting.maybe_sent) {
        return Ok(sequence);
    }
    let lane = outbox::lane_of(&event.row.key);
    let mut batch = Batch::new();
    let sequence = if let Some(sequence) = event.waiting.sequence {
        sequence
    } else {
        let last = read(recorder, Table::Lane, &lane).await?.map(|row| row.value);
        let broken = || Error::defect("the row of a lane is not what was written");
        let number = last.as_deref().map(|it| it.try_into().map(u64::from_be_bytes).map_err(|_| broken()));
        let sequence = number.transpose()?.unwrap_or(0) + 1;
        batch =
            batch.expect_read(Table::Lane, lane.clone(), last).put(Table::Lane, lane, sequence.to_be_bytes().to_vec());
        sequence
    };
    event.waiting.sequence = Some(sequence);
    event.waiting.maybe_sent = true;
    // A crash before this commit leaves the row without a number; after it, a row that may have been sent.
    rewrite(event, batch, recorder).await?;
    Ok(sequence)
}

/// Commits the event's row anew, and a batch with it.
async fn rewrite(event: &mut Event, batch: Batch, recorder: &Recorder) -> Result<()> {
    let Event { row, own, waiting } = event;
    let value = outbox::seal(recorder, &row.key, own, waiting)?;
    let batch = batch.expect_value(Table::Outbox, row.key.clone(), row.value.clone());
    commit(recorder, batch.put(Table::Outbox, row.key.clone(), value.clone())).await?;
    row.value = value;
    Ok(())
}

/// The lane of the first row in a range.
async fn next_lane(range: KeyRange, recorder: &Recorder) -> Result<Option<Bytes>> {
    let rows = scan(recorder, Table::Outbox, range, 1).await?;
    Ok(rows.first().map(|row| outbox::lane_of(&row.key)))
}

fn verdict(published: Result<(), PublishError>) -> Published {
    match published {
        Ok(()) => Published::Ack,
        Err(PublishError::Nacked | PublishError::Refused(_)) => Published::Nack,
        Err(PublishError::Returned { .. }) => Published::Returned,
        Err(PublishError::Unconfirmed) => Published::Unconfirmed,
        Err(PublishError::Unavailable) => Published::Unavailable,
    }
}
