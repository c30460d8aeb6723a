//! The whole order, and nothing else.
//!
//! ```text
//! admit     receive -> normalize -> check -> permit -> stage -> forward -> record -> reply
//! settle    route -> sequence -> anchor -> recheck -> publish -> mark
//! disclose  receive -> authorize -> fetch -> permit each -> redact -> audit -> reply
//! ```
//!
//! Takes: a received unit or question. Gives: its answer. Never: holds anything between the stages that is not their
//! output; each stage takes the proof that the one before it gives, so a stage that is skipped does not compile.

use std::sync::Arc;

use crate::check::{self, Rulebook};
use crate::consent::door::{self, Door};
use crate::disclose::{self, Question, Shown};
use crate::error::{Error, Refusal, Result};
use crate::forward::{self, Answered, Found, Resolved, Upstream};
use crate::ingest::unit::Received;
use crate::normalize::{self, Mappings};
use crate::observe::{Stage as Timed, Watch};
use crate::record::file::Filer;
use crate::record::{self, Answer, Known, Recorder};
use crate::stage::{self, Desk, Leftover, OperationId, Parked, Stage, Staged, State};

/// One tenant's gateway.
pub struct Gateway {
    /// How resources are normalized.
    pub mappings: Mappings,
    /// What they are held against.
    pub rules: Rulebook,
    /// Who may collect, and who may see.
    pub door: Arc<Door>,
    /// What is kept until the upstream has answered.
    pub stage: Stage,
    /// Who is told before it counts as accepted.
    pub upstream: Upstream,
    /// What was accepted.
    pub recorder: Recorder,
    /// What patients decided, on its way to the ledger.
    pub filer: Filer,
}

/// What an operator says of a parked unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It has not happened and is not to happen: nothing of it is kept.
    Drop,
    /// The upstream has it, and this is where each resource stands, in the order of the unit.
    Found(Vec<Found>),
    /// The upstream is asked once more.
    Look,
    /// The upstream does not have it, and is to be told.
    Send,
}

/// What became of a unit that was taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is recorded.
    Recorded,
    /// It has not happened; nothing of it is left.
    Refused,
    /// It is not known yet.
    Open,
}

/// Units that are admitted together at most: enough for what they share to cost each of them little.
const TOGETHER_MAX: usize = 32;

/// What a unit has become by the time it is recorded.
enum Ahead {
    /// The same unit came before, and this is what was answered then.
    Known(Answer),
    Answered(Box<Answered>),
}

impl Gateway {
    /// What comes in. The answer is given only once a crash can no longer lose the unit.
    ///
    /// # Errors
    /// A refusal with every issue, or an outage; nothing of the unit is kept in either case.
    pub async fn admit(&self, received: Received) -> Result<Answer> {
        let admitted = self.admit_all(vec![received]).await.pop();
        admitted.unwrap_or_else(|| Err(Error::defect("a unit went in and nothing came of it")))
    }

    /// The same for units of one stream: each goes its own way in and has its own answer, in their order; they share the
    /// commit that records them.
    pub async fn admit_all(&self, received: Vec<Received>) -> Vec<Result<Answer>> {
        let mut units = Vec::with_capacity(received.len());
        for received in received {
            let mut watch = self.door.observer().watch();
            let ahead = self.ahead(received, &mut watch).await;
            units.push((watch, ahead));
        }
        for (watch, _) in &mut units {
            watch.resume();
        }
        let answered = units.iter().filter_map(|(_, ahead)| match ahead {
            Ok(Ahead::Answered(answered)) => Some(&**answered),
            _ => None,
        });
        let mut recorded = self.record(&answered.collect::<Vec<_>>()).await.into_iter();
        let ended = units.into_iter().map(|(mut watch, ahead)| {
            let admitted = match ahead {
                Ok(Ahead::Answered(_)) => {
                    let lost = || Err(Error::defect("a unit was forgotten by those who recorded it"));
                    let recorded = watch.lap(Timed::Record, recorded.next().unwrap_or_else(lost));
                    recorded.inspect(|answer| watch.recorded(answer.entries.len()))
                }
                Ok(Ahead::Known(answer)) => Ok(answer),
                Err(error) => Err(error),
            };
            watch.ended(admitted.as_ref().err());
            admitted
        });
        ended.collect()
    }

    /// How many units of a stream are best admitted together. Each that is told to an upstream waits for its answer, and
    /// is to be recorded as soon as that has come.
    pub fn together_max(&self) -> usize {
        match self.upstream {
            Upstream::Nowhere => TOGETHER_MAX,
            Upstream::Server(_) => 1,
        }
    }

    /// The way in up to what is recorded.
    async fn ahead(&self, received: Received, watch: &mut Watch<'_>) -> Result<Ahead> {
        let normalized = watch.lap(Timed::Normalize, normalize::unit(received, &self.mappings))?;
        let twin = match self.recorder.known(&normalized).await? {
            Known::Answered(answer) => return Ok(Ahead::Known(answer)),
            Known::New(twin) => twin,
        };
        let checked = watch.lap(Timed::Check, check::unit(normalized, &self.rules).await)?;
        watch.found(checked.issues());
        let permitted = match watch.lap(Timed::Permit, door::permit(checked, &self.door).await)? {
            door::Verdict::Permitted(permitted) => permitted,
            door::Verdict::Denied(denied) => return Err(self.recorder.denied(&denied).await?),
        };
        let staged = watch.lap(Timed::Stage, stage::unit(permitted, twin, &self.stage).await)?;
        let answered = watch.lap(Timed::Forward, forward::unit(staged, &self.upstream).await)?;
        Ok(Ahead::Answered(Box::new(answered)))
    }

    /// Takes up what was staged and not recorded: the same stages, but for asking the upstream what became of it instead
    /// of telling it. Gives how many were recorded.
    ///
    /// # Errors
    /// An outage of the store; what is left is taken up again by the next pass.
    pub async fn recover(&self) -> Result<usize> {
        let Stage::Desk(desk) = &self.stage else { return Ok(0) };
        // What is over waits for nobody, and keeps nobody waiting.
        if let Err(error) = desk.sweep().await {
            tracing::warn!(%error, "keys of operations that are over stay until the next pass");
        }
        let mut recorded = 0;
        for operation in desk.leftovers().await? {
            match self.resume(desk, operation).await {
                Ok(Fate::Recorded) => recorded += 1,
                Ok(Fate::Refused | Fate::Open) => {}
                Err(error) => tracing::warn!(%operation, %error, "a staged unit waits for the next pass"),
            }
        }
        let (open, parked) = desk.count().await?;
        self.door.observer().metrics().upstream(open, parked);
        Ok(recorded)
    }

    async fn resume(&self, desk: &Desk, operation: OperationId) -> Result<Fate> {
        let Some((received, leftover)) = desk.take(operation).await? else { return Ok(Fate::Open) };
        let (staged, refusal) = self.once_more(received, leftover).await?;
        self.conclude(forward::leftover(staged, refusal.as_ref(), &self.upstream).await?).await
    }

    /// The way in again, for what had gone it before it was staged. What the upstream has is recorded whatever rules and
    /// policies say by now; their refusal stands beside it, for it is not sent again then.
    async fn once_more(&self, received: Received, leftover: Leftover) -> Result<(Staged, Option<Error>)> {
        let normalized = normalize::again(received, leftover.provenance())?;
        let (checked, against) = check::again(normalized, &self.rules);
        let (permitted, denied) = door::permit_again(checked, &self.door).await?;
        Ok((stage::again(permitted, leftover), against.or(denied)))
    }

    async fn conclude(&self, resolved: Resolved) -> Result<Fate> {
        let answered = match resolved {
            Resolved::Answered(answered) => answered,
            Resolved::Open => return Ok(Fate::Open),
            Resolved::Refused => return Ok(Fate::Refused),
        };
        self.record_one(&answered).await
    }

    async fn record_one(&self, answered: &Answered) -> Result<Fate> {
        for recorded in self.record(&[answered]).await {
            recorded?;
        }
        Ok(Fate::Recorded)
    }

    async fn record(&self, answered: &[&Answered]) -> Vec<Result<Answer>> {
        let recorded = record::units(answered, &self.recorder, &self.door).await;
        let mut answers = Vec::with_capacity(recorded.len());
        for (answered, recorded) in answered.iter().zip(recorded) {
            if let Ok(recorded) = &recorded {
                self.filer.recorded(recorded, &self.recorder, &self.door).await;
                stage::close(answered.staged().operation(), &self.stage).await;
            }
            answers.push(recorded.map(record::Recorded::into_answer));
        }
        answers
    }

    /// The units that wait for an operator, the first `limit` of them, and whether there are more.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn parked(&self, limit: usize) -> Result<(Vec<Parked>, bool)> {
        match &self.stage {
            Stage::Local => Ok((Vec::new(), false)),
            Stage::Desk(desk) => desk.parked(limit).await,
        }
    }

    /// What an operator says of a parked unit.
    ///
    /// # Errors
    /// 404 for what is not parked; 403 and 422 for what would not be accepted today and is to be sent; 422 for places
    /// that can't be the unit's; an outage of the store or of who must decide. The unit stays parked then.
    pub async fn decide(&self, operation: OperationId, ruling: Ruling) -> Result<Fate> {
        let none = || Error::refusal(Refusal::NotFound, "parked.operation", "a unit that is parked");
        let Stage::Desk(desk) = &self.stage else { return Err(none()) };
        if desk.state(operation).await? != Some(State::Parked) {
            return Err(none());
        }
        let (received, mut leftover) = desk.take(operation).await?.ok_or_else(none)?;
        match ruling {
            Ruling::Drop => {
                desk.take_back_leftover(leftover).await?;
                Ok(Fate::Refused)
            }
            Ruling::Look => {
                desk.mark_leftover(&mut leftover, State::Unknown, None).await?;
                let (staged, refusal) = self.once_more(received, leftover).await?;
                self.conclude(forward::leftover(staged, refusal.as_ref(), &self.upstream).await?).await
            }
            Ruling::Send => match self.once_more(received, leftover).await? {
                (staged, None) => self.conclude(forward::parked(staged, &self.upstream).await?).await,
                (_, Some(refusal)) => Err(refusal),
            },
            Ruling::Found(places) => {
                let (staged, _) = self.once_more(received, leftover).await?;
                self.record_one(&forward::found(staged, &places)?).await
            }
        }
    }

    /// A question on its way back. Who asked, and what was decided, is durable before the answer is given.
    ///
    /// # Errors
    /// 404 for what is not there, for what may not be shown and for what can't be decided in time, alike; an outage where
    /// the doors as a whole are closed.
    pub async fn disclose(&self, question: Question) -> Result<Shown> {
        let mut watch = self.door.observer().watch();
        let authorized = disclose::authorize(question, &self.door)?;
        let fetched = disclose::fetch(authorized, &self.recorder).await?;
        let judged = disclose::permit(fetched, &self.door).await?;
        let audited = watch.lap(Timed::Disclose, disclose::audit(judged, &self.recorder).await)?;
        audited.into_answer()
    }
}
