//! What a decision makes: its leaf, and the event that it permits.
//!
//! Takes: what one subscriber may be told, or may not. Gives: the rows of it. Never: decides; shows a subscriber that there
//! was anything which it may not be told.

use sha2::{Digest as _, Sha256};

use super::event::{Focus, Maker};
use super::outbox::{self, Waiting};
use crate::config::{Subscriber, Wait};
use crate::consent::door::Judgement;
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::record::Recorder;
use crate::record::leaf::Record;
use crate::record::version::{ResourceKey, Version};
use crate::store::Batch;

use bytes::Bytes;

/// What the rows of one subscriber are made with.
#[derive(Clone, Copy)]
pub struct Making<'a> {
    /// Seals and numbers.
    pub recorder: &'a Recorder,
    /// The tenant's `[base]`: the source of its events.
    pub source: &'a str,
    /// Whom it is about.
    pub subscriber: &'a Subscriber,
    /// When it was decided: RFC 3339, UTC.
    pub at: &'a str,
}

/// One resource that is told, and by which word.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Its version, which names it.
    pub version: &'a Version,
    /// Its key.
    pub resource: ResourceKey,
    /// What the door said.
    pub judgement: &'a Judgement,
}

/// What does not come of the resources.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// The trace that they belong to.
    pub traceparent: Option<String>,
    /// What its vendors add to that.
    pub tracestate: Option<String>,
    /// The key of the event whose place it takes, and the number that it had; none for a new one.
    pub instead: Option<(Bytes, Option<u64>)>,
}

impl Making<'_> {
    /// Adds the leaf of a denial. It is never shown to the subscriber, so it may say which resource and why.
    ///
    /// # Errors
    /// An outage of the keys.
    pub fn denial(&self, batch: Batch, told: Told<'_>, numbered: &[(Pseudonym, u64)]) -> Result<Batch> {
        let about = &told.version.about;
        let record = self.record(&[told]).text("leaf", &about.commitment);
        let record = match &told.judgement.provision {
            Some(path) => record.text("provision", path),
            None => record,
        };
        self.recorder.leaf(batch, &record.commit(numbered)?, &about.subjects)
    }

    /// Adds the leaf and the rows of one event about these resources, all of the same subjects.
    ///
    /// # Errors
    /// An outage of the keys; a defect if there is no resource, or one is not JSON.
    pub fn event(&self, batch: Batch, told: &[Told<'_>], way: Way, numbered: &[(Pseudonym, u64)]) -> Result<Batch> {
        let Self { recorder, source, subscriber, at } = *self;
        let keys = recorder.keys();
        let first = &told.first().ok_or_else(|| Error::defect("an event is about nothing"))?.version.about;
        let subjects = &first.subjects;
        let mut pairwise: Vec<Pseudonym> = subjects.iter().map(|it| it.towards(keys, &subscriber.id)).collect();
        pairwise.sort_unstable();
        // The subject of an event about several is the one whose lane its row stands in.
        let subject = pairwise.first().copied();
        let focus: Vec<Focus<'_>> = told
            .iter()
            .map(|it| Focus {
                resource_type: &it.version.about.resource_type,
                id: &it.version.about.id,
                version: it.version.about.version,
                body: &it.version.body,
            })
            .collect();
        // The time of recording, not of routing: the same input gives the same body.
        let time = &first.recorded_at;
        let body = Maker { keys, source, subscriber }.body(subject.as_ref(), time, &focus)?;
        let digest: [u8; 32] = Sha256::digest(&body.canonical).into();
        let leaf = self.record(told).hex("event", &digest).commit(numbered)?;
        let lanes = outbox::lanes(keys, &subscriber.id, &pairwise);
        let (own, others) = lanes.split_first().ok_or_else(|| Error::defect("an event stands in no lane"))?;
        let (key, sequence) = way.instead.unwrap_or_else(|| (outbox::key(own, recorder.next_sequence()), None));
        let waiting = Waiting {
            subscriber: subscriber.id.clone(),
            id: body.id,
            kind: body.kind,
            routing_key: body.routing_key,
            body: None,
            omitted: body.omitted.map(str::to_owned),
            time: at.to_owned(),
            recorded_at: time.clone(),
            commitment: Pseudonym(leaf.commitment),
            r: leaf.opening.r.clone(),
            decision: leaf.opening.record.clone(),
            subjects: subjects.clone(),
            pairwise: subject,
            versions: told.iter().map(|it| (Pseudonym(it.resource.0), it.version.about.version)).collect(),
            traceparent: way.traceparent,
            tracestate: way.tracestate,
            wait: subscriber.wait,
            sequence,
            maybe_sent: false,
            attempts: 0,
        };
        let text = String::from_utf8(body.canonical.to_vec()).map_err(|_| Error::defect("an event is not UTF-8"))?;
        let batch = recorder.leaf(batch, &leaf, subjects)?;
        outbox::put(batch, recorder, &key, others.to_vec(), waiting, text)
    }

    /// The record of a decision, as the subscriber may see it.
    fn record(&self, told: &[Told<'_>]) -> Record {
        let wait = match self.subscriber.wait {
            Wait::Log => "log",
            Wait::Ledger => "ledger",
        };
        let mut rules: Vec<&str> = told.iter().map(|it| it.judgement.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let record = Record::new("decision", self.recorder.tenant(), self.at)
            .text("action", "disclose")
            .text("door", "route")
            .text("rule", &rules.join(" "))
            .text("subscriber", &self.subscriber.id)
            .text("wait", wait);
        let Some(Told { judgement, .. }) = told.first() else { return record };
        let record = record.text("outcome", judgement.outcome.code()).number("head", judgement.head);
        match judgement.versions[..] {
            [(_, version)] => record.number("subjectVersion", version.unwrap_or(0)),
            _ => record,
        }
    }
}
