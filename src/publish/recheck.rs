//! Recheck: whether what route decided still holds, at the moment of sending.
//!
//! Takes: what an event rests on. Gives: whether it may go, must wait, or is cancelled; and the leaf that says so. Never:
//! permits what route has not permitted: it may only cancel.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::broker::feed::{Body, Entry, Feed};
use crate::config::Subscriber;
use crate::consent::door::{Door, Judgement};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::observe;
use crate::record::leaf::Record;
use crate::record::version::ResourceKey;
use crate::record::{Recorder, instant, uncommitted};
use crate::route::decide;
use crate::route::outbox::{Hash32, Waiting};
use crate::store::Batch;

/// What an event rests on: enough to ask again, and to tell of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The commitment of the leaf that permitted it.
    pub commitment: Hash32,
    /// The patients that it is about, as the ledger names them.
    pub subjects: Vec<Pseudonym>,
    /// The versions that it is about: the key of the resource, and the number.
    pub versions: Vec<(Hash32, u64)>,
}

/// What the door says at the moment of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recheck {
    /// It may go.
    Holds,
    /// It can't be decided yet.
    Waits,
    /// It may not go any more as it is.
    Fails {
        /// Why.
        denial: Denial,
        /// Which of its versions may still be told.
        rest: Vec<(Hash32, u64)>,
    },
}

/// Why an event is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// `deny` or `undecidable`.
    pub outcome: &'static str,
    /// The id of the rule that decided.
    pub rule: &'static str,
    /// The height of the ledger at which it did.
    pub head: u64,
}

/// An entry of the feed, as it may be shown at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The event.
    Event(Bytes),
    /// Nothing: it was erased or withdrawn.
    Withdrawn,
    /// Not yet: ask again.
    Waits,
}

impl From<&Waiting> for Basis {
    fn from(waiting: &Waiting) -> Self {
        Self { commitment: waiting.commitment, subjects: waiting.subjects.clone(), versions: waiting.versions.clone() }
    }
}

impl Denial {
    pub(super) fn deny(rule: &'static str) -> Self {
        Self { outcome: "deny", rule, head: 0 }
    }
}

impl Basis {
    /// The bytes that go with a message.
    ///
    /// # Errors
    /// A defect if it can't be written.
    pub fn encode(&self) -> Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|_| Error::defect("what an event rests on can't be written"))
    }

    /// Asks the door about all that the event is about. `subscriber` is none where the settings have no such one any more.
    ///
    /// # Errors
    /// An outage of the store or the keys.
    pub async fn recheck(&self, subscriber: Option<&Subscriber>, recorder: &Recorder, door: &Door) -> Result<Recheck> {
        let Some(subscriber) = subscriber else {
            return Ok(Recheck::Fails { denial: Denial::deny("event.no-subscriber"), rest: Vec::new() });
        };
        let (mut denied, mut rest) = (None, Vec::new());
        for (resource, number) in &self.versions {
            let Some(version) = recorder.read_version(&ResourceKey(resource.0), *number).await? else {
                denied = denied.or(Some(Denial::deny("event.erased")));
                continue;
            };
            let judgements = decide::judge(door, observe::Door::Recheck, &[subscriber], &version).await?;
            match judgements.iter().find(|it| !it.passes()) {
                None => rest.push((*resource, *number)),
                Some(judgement) if judgement.pending => return Ok(Recheck::Waits),
                Some(Judgement { outcome, rule, head, .. }) => {
                    denied = denied.or(Some(Denial { outcome: outcome.code(), rule, head: *head }));
                }
            }
        }
        Ok(denied.map_or(Recheck::Holds, |denial| Recheck::Fails { denial, rest }))
    }

    /// Commits the batch together with a leaf that tells of the cancellation.
    ///
    /// # Errors
    /// An outage of the store or the keys; nothing of it happened, unless the store says that it does not know.
    pub(super) async fn cancel(
        &self,
        batch: Batch,
        subscriber: &str,
        denial: Denial,
        recorder: &Recorder,
    ) -> Result<()> {
        self.cancel_and(denial, subscriber, recorder, |_| Ok(batch)).await
    }

    /// The same with a batch that is made once the numbers behind the cancellation's can be had.
    ///
    /// # Errors
    /// As [`Basis::cancel`], and what the batch fails with.
    pub(super) async fn cancel_and(
        &self,
        denial: Denial,
        subscriber: &str,
        recorder: &Recorder,
        batch: impl FnOnce(&mut dyn FnMut() -> Vec<(Pseudonym, u64)>) -> Result<Batch>,
    ) -> Result<()> {
        let Denial { outcome, rule, head } = denial;
        let at = instant(OffsetDateTime::now_utc());
        let record = Record::new("decision", recorder.tenant(), &at)
            .text("action", "disclose")
            .text("door", "recheck")
            .text("outcome", outcome)
            .text("rule", rule)
            .text("subscriber", subscriber)
            .text("cancels", &self.commitment.hex())
            .number("head", head);
        let mut numbering = recorder.counters().number(&self.subjects, &**recorder.store()).await?;
        let mut number = || self.subjects.iter().map(|it| (*it, numbering.next(it))).collect::<Vec<_>>();
        let leaf = record.commit(&number())?;
        let batch = batch(&mut number)?;
        let batch = numbering.seal(recorder.leaf(batch, &leaf, &self.subjects)?);
        // A crash before this commit leaves the event, which is rechecked again; after it, nothing is left to send of
        // what may not be told.
        let committing = recorder.store().commit(batch);
        drop(numbering);
        if let Err(error) = committing.await {
            recorder.counters().forget().await;
            return Err(uncommitted(&error));
        }
        Ok(())
    }
}

/// What may be shown of an entry of a subscriber's feed at this moment: what lies there was permitted when it came, and is
/// asked for again whenever it is fetched. What may not be shown any more is taken out of the feed.
///
/// # Errors
/// An outage of the store or the keys; a defect if the entry is not what was written.
pub async fn shown(
    entry: Entry,
    subscriber: &Subscriber,
    feed: &Feed,
    recorder: &Recorder,
    door: &Door,
) -> Result<Shown> {
    let Body::Message { recall, bytes, .. } = entry.body else { return Ok(Shown::Withdrawn) };
    let basis: Basis = serde_json::from_slice(&recall)
        .map_err(|_| Error::defect("what an event in the feed rests on is not what was written"))?;
    match basis.recheck(Some(subscriber), recorder, door).await? {
        Recheck::Holds => Ok(Shown::Event(bytes)),
        Recheck::Waits => Ok(Shown::Waits),
        // What lies in the feed is published: it is taken back whole.
        Recheck::Fails { denial, .. } => {
            let withdrawal = feed.withdrawal(&subscriber.id, entry.cursor).await?;
            // Without one somebody else was faster.
            if let Some(batch) = withdrawal {
                basis.cancel(batch, &subscriber.id, denial, recorder).await?;
            }
            Ok(Shown::Withdrawn)
        }
    }
}
