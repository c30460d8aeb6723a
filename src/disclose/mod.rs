//! Disclose: a question on its way back.
//!
//! Takes: who asks, in which role and for what, and for which resource. Gives: the resource as it is stored, if every
//! subject of it permits. Never: shows what is not decided; lets what may not be shown look any different from what is
//! not there; answers before it is durable who asked and what was decided.
//!
//! What can't be decided for a moment, since what somebody decided is on its way to the ledger or not final there, is
//! waited for, up to a second; after that it is not there either. While anything is on its way, of anybody, every
//! answer that shows nothing takes that long, so that its time tells no more than its words. Where the doors are closed
//! as a whole, that is said, and to everyone alike.
//!
//! The same door decides for everyone, the institution that sent the record included: the action is `access`, and where
//! no Consent speaks `consent.implicit.disclose` holds. There is no way around it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_fhir::tree::{Limits, Tree};
use time::OffsetDateTime;

use crate::config::Right;
use crate::consent::door::{Asker, Door, Judgement};
use crate::error::{Error, Peer, Refusal, Result};
use crate::ingest::unit::Caller;
use crate::observe;
use crate::record::leaf::Record;
use crate::record::version::{ResourceKey, Version};
use crate::record::{Recorder, instant};
use crate::store::Batch;

/// How long a question waits for what can't be decided for a moment.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first pause before the door is asked again; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(20);

/// What is asked: FHIR R4 http.html#read, or #vread with a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who asks, from its credential.
    pub caller: Caller,
    /// The type.
    pub resource_type: String,
    /// The id.
    pub id: String,
    /// The version; the current one without.
    pub version: Option<u64>,
    /// Since when it is asked: questions that make up one answer wait together.
    pub asked: Instant,
}

/// A question that may be asked at all. Only `disclose` makes one.
#[derive(Debug)]
pub struct Authorized {
    question: Question,
    asker: Asker,
    /// Until when it may wait; none where nothing was on its way to the ledger when it was asked.
    patience: Option<Instant>,
}

/// A question with what stands there.
#[derive(Debug)]
pub struct Fetched {
    authorized: Authorized,
    version: Option<Version>,
}

/// A question that was decided.
#[derive(Debug)]
pub struct Judged {
    fetched: Fetched,
    judgement: Option<Judgement>,
}

/// A question of which it is durable who asked and what was decided.
#[derive(Debug)]
pub struct Audited(Judged);

/// A resource that may be shown.
#[derive(Debug, Clone)]
pub struct Shown(Version);

/// Lets a question in while the doors can decide. Asked before anything is looked up, so that an outage says nothing of
/// what is there.
///
/// # Errors
/// 403 for a caller that may not read, or without a purpose; an outage of the ledger or of the doors.
pub fn authorize(question: Question, door: &Door) -> Result<Authorized> {
    question.caller.needs(Right::Read)?;
    if question.caller.purpose.is_none() {
        return Err(Error::refusal(Refusal::Forbidden, "disclose.purpose", "a caller whose settings name a purpose"));
    }
    door.ready()
        .map_err(|rule| Error::outage(Peer::Ledger, Duration::from_secs(5), format!("doors closed: {rule}")))?;
    let asker = Asker::from(&question.caller);
    // Before anything is looked up: whether an answer waits says nothing of what is there.
    let patience = door.is_moving().then(|| question.asked + PATIENCE);
    Ok(Authorized { question, asker, patience })
}

/// Looks up what stands there. Nothing stands there any more where a key of its subjects was destroyed.
///
/// # Errors
/// An outage of the store.
pub async fn fetch(authorized: Authorized, recorder: &Recorder) -> Result<Fetched> {
    let Question { resource_type, id, version, .. } = &authorized.question;
    let version = match version {
        None => recorder.read_current(resource_type, id).await?,
        Some(version) => recorder.read_version(&ResourceKey::of(recorder.keys(), resource_type, id), *version).await?,
    };
    Ok(Fetched { authorized, version })
}

/// Asks the door, and again for a while what it can't decide yet. Nothing is shown sooner than the door permits it, and
/// what is not shown is told no sooner than what is not there.
///
/// # Errors
/// A defect if what is stored is no resource.
pub async fn permit(fetched: Fetched, door: &Door) -> Result<Judged> {
    let Authorized { asker, patience, .. } = &fetched.authorized;
    let mut judgement = None;
    if let Some(version) = &fetched.version {
        let facets = {
            let tree = Tree::parse(version.body.clone(), &Limits::default());
            let tree = tree.map_err(|_| Error::defect("a stored resource is not JSON"))?;
            door.facets_labelled(tree.root(), version.about.labels.as_deref())
        };
        let about = version.about.whom();
        let mut pause = PAUSE;
        judgement = loop {
            let judgement = door.disclose(observe::Door::Read, asker, &about, &facets).await;
            let waits = judgement.pending && !judgement.passes();
            match left(*patience).filter(|_| waits) {
                Some(left) => tokio::time::sleep(pause.min(left)).await,
                None => break Some(judgement),
            }
            pause *= 2;
        };
    }
    if !judgement.as_ref().is_some_and(Judgement::passes)
        && let Some(left) = left(*patience)
    {
        tokio::time::sleep(left).await;
    }
    Ok(Judged { fetched, judgement })
}

/// What is left of a wait; none if it is over.
fn left(until: Option<Instant>) -> Option<Duration> {
    until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// Makes durable who asked for what, and what was decided: one leaf for the decision and one for the audit, in one
/// commit. A question for what is not there leaves its audit leaf too, and takes as long.
///
/// # Errors
/// An outage of the store; then nothing is shown.
pub async fn audit(judged: Judged, recorder: &Recorder) -> Result<Audited> {
    let Authorized { question, asker, .. } = &judged.fetched.authorized;
    let at = instant(OffsetDateTime::now_utc());
    let subjects = judged.fetched.version.as_ref().map(|it| it.about.subjects.clone()).unwrap_or_default();
    let asked = |kind| {
        let mut record = Record::new(kind, recorder.tenant(), &at)
            .text("action", "access")
            .text("door", "read")
            .text("id", &question.id)
            .text("reader", &asker.institution)
            .text("type", &question.resource_type);
        for (name, value) in [("purpose", &asker.purpose), ("role", &asker.role)] {
            if let Some(value) = value {
                record = record.text(name, value);
            }
        }
        if let Some(device) = &question.caller.device {
            record = record.text("device", device);
        }
        if let Some(version) = &judged.fetched.version {
            record = record.number("version", version.about.version);
        }
        record
    };
    let mut batch = Batch::new();
    let mut numbering = recorder.counters().number(&subjects, &**recorder.store()).await?;
    if let Some(judgement) = &judged.judgement {
        let mut decision = asked("decision")
            .text("outcome", judgement.outcome.code())
            .text("rule", judgement.rule)
            .number("head", judgement.head);
        if let Some(path) = &judgement.provision {
            decision = decision.text("provision", path);
        }
        if let [(_, version)] = judgement.versions[..] {
            decision = decision.number("subjectVersion", version.unwrap_or(0));
        }
        let numbered: Vec<_> = subjects.iter().map(|it| (*it, numbering.next(it))).collect();
        batch = recorder.leaf(batch, &decision.commit(&numbered)?, &subjects)?;
    }
    let shown = if judged.passes() { "shown" } else { "not-shown" };
    let numbered: Vec<_> = subjects.iter().map(|it| (*it, numbering.next(it))).collect();
    batch = recorder.leaf(batch, &asked("audit").text("outcome", shown).commit(&numbered)?, &subjects)?;
    batch = numbering.seal(batch);
    // A crash right here leaves nothing, and an asker without an answer; after the commit, leaves that say it was
    // shown though it may not have arrived: the safe side.
    let committing = recorder.store().commit(batch);
    drop(numbering);
    if let Err(error) = committing.await {
        recorder.counters().forget().await;
        return Err(crate::record::uncommitted(&error));
    }
    Ok(Audited(judged))
}

impl Judged {
    fn passes(&self) -> bool {
        self.judgement.as_ref().is_some_and(Judgement::passes)
    }
}

impl Audited {
    /// The answer.
    ///
    /// # Errors
    /// 404 for what is not there, for what may not be shown, and for what could not be decided, alike.
    pub fn into_answer(self) -> Result<Shown> {
        match (self.0.passes(), self.0.fetched.version) {
            (true, Some(version)) => Ok(Shown(version)),
            _ => Err(Error::refusal(Refusal::NotFound, "http.read", "a resource that stands there and may be shown")),
        }
    }
}

impl Shown {
    /// The resource as it is stored.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Its weak ETag: the version (FHIR R4 http.html#versioning).
    pub fn etag(&self) -> String {
        format!("W/\"{}\"", self.0.about.version)
    }

    /// Its number, from 1.
    pub fn version(&self) -> u64 {
        self.0.about.version
    }

    /// When this version was recorded: RFC 3339, UTC.
    pub fn last_modified(&self) -> &str {
        &self.0.about.recorded_at
    }
}
