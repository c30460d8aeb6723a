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

use crate::check::{self, Rules};
use crate::consent::door::{self, Door, Verdict};
use crate::disclose::{self, Question, Shown};
use crate::error::{Kind, Result};
use crate::forward::{self, Resolved, Upstream};
use crate::ingest::unit::Received;
use crate::normalize::{self, Mappings};
use crate::record::file::Filer;
use crate::record::{self, Answer, Recorder};
use crate::stage::{self, Leftover, Stage};

/// One tenant's gateway.
pub struct Gateway {
    /// How resources are normalized.
    pub mappings: Mappings,
    /// What they are held against.
    pub rules: Rules,
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

impl Gateway {
    /// What comes in. The answer is given only once a crash can no longer lose the unit.
    ///
    /// # Errors
    /// A refusal with every issue, or an outage; nothing of the unit is kept in either case.
    pub async fn admit(&self, received: Received) -> Result<Answer> {
        let normalized = normalize::unit(received, &self.mappings)?;
        if let Some(answer) = self.recorder.first_answer(&normalized).await? {
            return Ok(answer);
        }
        let checked = check::unit(normalized, &self.rules)?;
        let permitted = match door::permit(checked, &self.door).await? {
            Verdict::Permitted(permitted) => permitted,
            Verdict::Denied(denied) => return Err(self.recorder.denied(&denied).await?),
        };
        let twin = self.recorder.twin(permitted.checked().normalized());
        let staged = stage::unit(permitted, twin, &self.stage).await?;
        let answered = forward::unit(staged, &self.upstream).await?;
        let recorded = record::unit(&answered, &self.recorder, &self.door).await?;
        self.filer.recorded(&recorded, &self.recorder, &self.door).await;
        stage::close(answered.staged().operation(), &self.stage).await;
        Ok(recorded.into_answer())
    }

    /// Takes up what was staged and not recorded: the same stages, but for asking the upstream what became of it instead
    /// of telling it. Gives how many were recorded.
    ///
    /// # Errors
    /// An outage of the store; what is left is taken up again by the next pass.
    pub async fn recover(&self) -> Result<usize> {
        let Stage::Desk(desk) = &self.stage else { return Ok(0) };
        let mut recorded = 0;
        for (received, leftover) in desk.leftovers().await? {
            let operation = leftover.operation();
            match self.resume(received, leftover).await {
                Ok(resumed) => recorded += usize::from(resumed),
                // Rules or policies have changed since: whether it still counts is an operator's word.
                Err(error) if matches!(error.kind(), Kind::Refusal(_)) => {
                    tracing::warn!(%operation, %error, "a staged unit is parked: an operator decides");
                    desk.park(operation).await?;
                }
                Err(error) => tracing::warn!(%operation, %error, "a staged unit waits for the next pass"),
            }
        }
        Ok(recorded)
    }

    /// One leftover. What was staged is mapped already, so no mapping is applied again.
    async fn resume(&self, received: Received, leftover: Leftover) -> Result<bool> {
        let operation = leftover.operation();
        let normalized = normalize::unit(received, &Mappings::default())?;
        let checked = check::unit(normalized, &self.rules)?;
        let permitted = match door::permit(checked, &self.door).await? {
            Verdict::Permitted(permitted) => permitted,
            Verdict::Denied(denied) => return Err(self.recorder.denied(&denied).await?),
        };
        let staged = stage::again(permitted, leftover);
        let Resolved::Answered(answered) = forward::leftover(staged, &self.upstream).await? else { return Ok(false) };
        let recorded = record::unit(&answered, &self.recorder, &self.door).await?;
        self.filer.recorded(&recorded, &self.recorder, &self.door).await;
        stage::close(operation, &self.stage).await;
        Ok(true)
    }

    /// A question on its way back. Who asked, and what was decided, is durable before the answer is given.
    ///
    /// # Errors
    /// 404 for what is not there and for what may not be shown, alike; an outage where it cannot be decided.
    pub async fn disclose(&self, question: Question) -> Result<Shown> {
        let authorized = disclose::authorize(question, &self.door)?;
        let fetched = disclose::fetch(authorized, &self.recorder).await?;
        let judged = disclose::permit(fetched, &self.door).await?;
        let audited = disclose::audit(judged, &self.recorder).await?;
        audited.into_answer()
    }
}
