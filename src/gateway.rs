//! The whole order, and nothing else.
//!
//!     admit     receive -> normalize -> check -> permit -> stage -> forward -> record -> reply
//!     settle    route -> sequence -> anchor -> recheck -> publish -> mark
//!     disclose  receive -> authorize -> fetch -> permit each -> redact -> audit -> reply
//!
//! Takes: a received unit or question. Gives: its answer. Never: holds anything between the stages that is not their
//! output; each stage takes the proof that the one before it gives, so a stage that is skipped does not compile.

use crate::check::{self, Rules};
use crate::consent::door::{self, Door};
use crate::error::Result;
use crate::forward;
use crate::ingest::unit::Received;
use crate::normalize::{self, Mappings};
use crate::record::{self, Answer, Recorder};
use crate::stage;

/// One tenant's gateway.
pub struct Gateway {
    /// How resources are normalized.
    pub mappings: Mappings,
    /// What they are held against.
    pub rules: Rules,
    /// Who may collect, and who may see.
    pub door: Door,
    /// What was accepted.
    pub recorder: Recorder,
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
        let permitted = door::permit(checked, &self.door).await?;
        let staged = stage::local(permitted);
        let answered = forward::nowhere(staged);
        let recorded = record::unit(&answered, &self.recorder).await?;
        Ok(recorded.into_answer())
    }
}
