//! Lanes: what waits for one subscriber about one patient goes out in order, one event at a time.
//!
//! Takes: rows of the outbox. Gives: each event to the broker, once its leaf is proven and the decision still holds. Never:
//! sends a row before the one ahead of it is confirmed or cancelled; gives a sequence number twice.
//!
//! Each row goes: recheck (one commit: the number, and that it may be sent) -> publish -> mark (one commit: the row is gone).
//! The same functions run at a restart.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::recheck::{Basis, Denial, Recheck};
use super::verify::{Delivery, Proof, delivered};
use crate::anchor::{AnchorReceipt, LeafProof, Log};
use crate::broker::{Broker, Message, PublishError};
use crate::config::{Subscriber, Wait};
use crate::consent::door::Door;
use crate::error::{Error, Result};
use crate::keys::SigningKey;
use crate::record::leaf::SCHEME;
use crate::record::{Recorder, instant, outage, uncommitted};
use crate::route::event::{CONTENT_TYPE, canonical};
use crate::route::outbox::{self, LANE_BYTES, Waiting};
use crate::store::{Batch, Direction, KeyRange, Row, Table};

/// Rows looked at in one scan.
const ROWS_MAX: usize = 256;

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
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events that the broker confirmed.
    pub sent: usize,
    /// Events that are not permitted any more, or were erased.
    pub cancelled: usize,
    /// Events that stay, for the proof, the decision or the broker.
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
    Parked,
}

impl Publisher {
    /// Sends all that can be sent.
    ///
    /// # Errors
    /// An outage of the store or the keys. What was marked before stays sent.
    pub async fn pass(&self, recorder: &Recorder, door: &Door) -> Result<Progress> {
        let mut progress = Progress::default();
        // Lanes that stopped in this pass.
        let mut stopped: HashSet<Bytes> = HashSet::new();
        let mut range = KeyRange::all();
        loop {
            let rows = recorder.store().scan(Table::Outbox, range.clone(), ROWS_MAX, Direction::Up).await;
            let rows = rows.map_err(|error| outage(&error))?;
            let Some(last) = rows.last() else { return Ok(progress) };
            range = range.after(last.key.clone());
            let lanes = rows.chunk_by(|a, b| lane_of(a) == lane_of(b)).map(<[Row]>::to_vec);
            let lanes: Vec<Vec<Row>> = lanes.filter(|it| !stopped.contains(&lane_of(&it[0]))).collect();
            #[expect(
                clippy::disallowed_methods,
                reason = "each future is a whole lane, and lanes owe each other no order"
            )]
            let mut running = stream::iter(lanes.into_iter().map(|it| self.lane(it, recorder, door)))
                .buffer_unordered(self.window.max(1));
            let mut failed = None;
            // All lanes come to their end, whatever happens to one: a future that is dropped could have sent.
            while let Some(ended) = running.next().await {
                match ended {
                    Ok((of_lane, stop)) => {
                        progress.add(of_lane);
                        stopped.extend(stop);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// The rows of one lane in order, until one has to stay.
    async fn lane(&self, rows: Vec<Row>, recorder: &Recorder, door: &Door) -> Result<(Progress, Option<Bytes>)> {
        let mut progress = Progress::default();
        let Some(lane) = rows.first().map(lane_of) else { return Ok((progress, None)) };
        let parked = recorder.store().scan(Table::Parked, KeyRange::prefix(lane.clone()), 1, Direction::Up).await;
        if !parked.map_err(|error| outage(&error))?.is_empty() {
            progress.waiting = rows.len();
            return Ok((progress, Some(lane)));
        }
        for (at, row) in rows.iter().enumerate() {
            match self.row(row, recorder, door).await? {
                End::Sent => progress.sent += 1,
                End::Cancelled => progress.cancelled += 1,
                End::Waits => {
                    progress.waiting += rows.len() - at;
                    return Ok((progress, Some(lane)));
                }
                End::Parked => {
                    progress.parked += 1;
                    progress.waiting += rows.len() - at - 1;
                    return Ok((progress, Some(lane)));
                }
            }
        }
        Ok((progress, None))
    }

    async fn row(&self, row: &Row, recorder: &Recorder, door: &Door) -> Result<End> {
        let Some(mut waiting) = outbox::open(recorder, &row.key, &row.value)? else {
            // Erased with a subject: nobody is told, and nothing is left to tell.
            commit(recorder, Batch::new().delete(Table::Outbox, row.key.clone())).await?;
            return Ok(End::Cancelled);
        };
        let Some((proof, receipt)) = self.proof(&waiting).await? else { return Ok(End::Waits) };
        let subscriber = self.subscribers.iter().find(|it| it.id == waiting.subscriber);
        match Basis::from(&waiting).recheck(subscriber, recorder, door).await? {
            Recheck::Holds => {}
            Recheck::Waits => return Ok(End::Waits),
            Recheck::Fails(denial) => {
                self.cancel(row, &waiting, denial, recorder).await?;
                return Ok(End::Cancelled);
            }
        }
        let tried = waiting.maybe_sent;
        let (sequence, value) = self.number(row, &mut waiting, recorder).await?;
        let message = self.message(&waiting, sequence, &proof, receipt, recorder)?;
        // A crash from here to the mark leaves a row with its number: after a restart the same event goes out again under
        // the same id and the same number, and its reader knows it by them.
        let published = self.broker.publish(message).await;
        if let Err(PublishError::Unavailable | PublishError::Returned { .. } | PublishError::Refused(_)) = published {
            // Nobody got it by this try; by one before it, somebody may have.
            waiting.maybe_sent = tried;
        }
        self.end(row, value, waiting, published, recorder).await
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

    /// Ends a row that is not permitted any more, with a leaf that says so. Its number goes to the next one, unless a
    /// broker may have the event: then a gap is the truth.
    async fn cancel(&self, row: &Row, waiting: &Waiting, denial: Denial, recorder: &Recorder) -> Result<()> {
        let mut batch = Batch::new()
            .expect_value(Table::Outbox, row.key.clone(), row.value.clone())
            .delete(Table::Outbox, row.key.clone());
        if let Some(sequence) = waiting.sequence.filter(|_| !waiting.maybe_sent) {
            batch = batch.put(Table::Lane, lane_of(row), (sequence - 1).to_be_bytes().to_vec());
        }
        Basis::from(waiting).cancel(batch, &waiting.subscriber, denial, recorder).await
    }

    /// Makes durable that the event may be sent now, and under which number. Gives the row's value after that.
    async fn number(&self, row: &Row, waiting: &mut Waiting, recorder: &Recorder) -> Result<(u64, Bytes)> {
        if let Some(sequence) = waiting.sequence.filter(|_| waiting.maybe_sent) {
            return Ok((sequence, row.value.clone()));
        }
        let lane = lane_of(row);
        let mut batch = Batch::new().expect_value(Table::Outbox, row.key.clone(), row.value.clone());
        let sequence = if let Some(sequence) = waiting.sequence {
            sequence
        } else {
            let last = recorder.store().read(Table::Lane, &lane).await.map_err(|error| outage(&error))?;
            let broken = || Error::defect("the row of a lane is not what was written");
            let number = last.as_deref().map(|it| it.try_into().map(u64::from_be_bytes).map_err(|_| broken()));
            let sequence = number.transpose()?.unwrap_or(0) + 1;
            batch = batch.expect_read(Table::Lane, lane.clone(), last).put(
                Table::Lane,
                lane,
                sequence.to_be_bytes().to_vec(),
            );
            sequence
        };
        waiting.sequence = Some(sequence);
        waiting.maybe_sent = true;
        let value = outbox::seal(recorder, &row.key, waiting)?;
        // A crash before this commit leaves the row without a number; after it, a row that may have been sent.
        commit(recorder, batch.put(Table::Outbox, row.key.clone(), value.clone())).await?;
        Ok((sequence, value))
    }

    /// The event as it is sent.
    fn message(
        &self,
        waiting: &Waiting,
        sequence: u64,
        proof: &LeafProof,
        receipt: Option<AnchorReceipt>,
        recorder: &Recorder,
    ) -> Result<Message> {
        let unwritten = || Error::defect("an event can't be written");
        let raw = |text: String| RawValue::from_string(text).map_err(|_| unwritten());
        let shown = Proof {
            scheme: SCHEME,
            r: waiting.r.clone(),
            commitment: waiting.commitment.hex(),
            leaf_index: proof.index,
            inclusion: proof.inclusion.iter().map(|hash| STANDARD.encode(hash)).collect(),
            checkpoint: proof.checkpoint.to_string(),
            decision: raw(waiting.decision.clone())?,
            receipt,
        };
        let signature = recorder.keys().sign(SigningKey::Event, &delivered(&waiting.id, sequence));
        let delivery = Delivery { sequence, signature: STANDARD.encode(signature) };
        let mut members: std::collections::BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&waiting.body).map_err(|_| unwritten())?;
        members.insert("proof".to_owned(), raw(serde_json::to_string(&shown).map_err(|_| unwritten())?)?);
        members.insert("delivery".to_owned(), raw(serde_json::to_string(&delivery).map_err(|_| unwritten())?)?);
        if let Some(trace) = &waiting.traceparent {
            members.insert("traceparent".to_owned(), raw(serde_json::Value::from(trace.as_str()).to_string())?);
        }
        let body = canonical(serde_json::to_vec(&members).map_err(|_| unwritten())?)?;
        let time = OffsetDateTime::parse(&waiting.time, &Rfc3339).map_err(|_| unwritten())?;
        let attribute = |name: &'static str, value: &str| (Cow::Borrowed(name), value.to_owned());
        Ok(Message {
            id: waiting.id.clone(),
            subscriber: waiting.subscriber.clone(),
            lane: waiting.subjects.iter().flat_map(|it| it.0).collect(),
            routing_key: waiting.routing_key.clone(),
            content_type: Cow::Borrowed(CONTENT_TYPE),
            headers: vec![
                attribute("cloudEvents:id", &waiting.id),
                attribute("cloudEvents:source", &self.source),
                attribute("cloudEvents:specversion", "1.0"),
                attribute("cloudEvents:type", &waiting.kind),
            ],
            time: u64::try_from(time.unix_timestamp()).unwrap_or(0),
            recall: Basis::from(waiting).encode()?,
            body,
        })
    }

    /// Makes durable what the broker said.
    async fn end(
        &self,
        row: &Row,
        value: Bytes,
        mut waiting: Waiting,
        published: Result<(), PublishError>,
        recorder: &Recorder,
    ) -> Result<End> {
        let mut batch = Batch::new().expect_value(Table::Outbox, row.key.clone(), value);
        let Err(error) = published else {
            let at = instant(OffsetDateTime::now_utc());
            batch = batch.delete(Table::Outbox, row.key.clone()).put(Table::Sent, waiting.id, at);
            // A crash before this commit sends the event once more; after it, never again.
            commit(recorder, batch).await?;
            return Ok(End::Sent);
        };
        waiting.attempts = waiting.attempts.saturating_add(1);
        // A broker that does not answer is an outage, not a fault of this event: it never parks a lane.
        let parks = match error {
            PublishError::Returned { .. } | PublishError::Refused(_) => true,
            PublishError::Nacked => waiting.attempts >= self.attempts_max,
            PublishError::Unconfirmed | PublishError::Unavailable => false,
        };
        if parks {
            batch = batch.put(Table::Parked, row.key.clone(), error.to_string().into_bytes());
        }
        batch = batch.put(Table::Outbox, row.key.clone(), outbox::seal(recorder, &row.key, &waiting)?);
        // A crash before this commit forgets one attempt.
        commit(recorder, batch).await?;
        tracing::warn!(%error, parks, "an event was not confirmed");
        Ok(if parks { End::Parked } else { End::Waits })
    }
}

impl Progress {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.cancelled += other.cancelled;
        self.waiting += other.waiting;
        self.parked += other.parked;
    }
}

/// The lane of a row: the bytes that lead its key.
fn lane_of(row: &Row) -> Bytes {
    row.key.slice(..LANE_BYTES.min(row.key.len()))
}

async fn commit(recorder: &Recorder, batch: Batch) -> Result<()> {
    recorder.store().commit(batch).await.map_err(|error| uncommitted(&error))
}
