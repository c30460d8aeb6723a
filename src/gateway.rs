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
use crate::error::Result;
use crate::forward;
use crate::ingest::unit::Received;
use crate::normalize::{self, Mappings};
use crate::record::file::Filer;
use crate::record::{self, Answer, Recorder};
use crate::stage;

/// One tenant's gateway.
pub struct Gateway {
    /// How resources are normalized.
    pub mappings: Mappings,
    /// What they are held against.
    pub rules: Rules,
    /// Who may collect, and who may see.
    pub door: Arc<Door>,
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
        let staged = stage::local(permitted);
        let answered = forward::nowhere(staged);
        let recorded = record::unit(&answered, &self.recorder, &self.door).await?;
        self.filer.recorded(&recorded, &self.recorder, &self.door).await;
        Ok(recorded.into_answer())
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
