//! What was recorded by an operation: what its receipt is made of.
//!
//! Takes: an operation's id. Gives: who sent it and which versions it made or found. Never: a resource; the row is sealed
//! under the tenant's key and holds types, ids and versions only.

use serde::{Deserialize, Serialize};

use super::plan::Planned;
use super::provenance::Authored;
use super::{Answer, Recorder};
use crate::check::Checked;
use crate::error::{Error, Result};
use crate::stage::OperationId;
use crate::store::Table;
use crate::store::vault::place;

/// What an operation has recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The institution that sent it.
    pub sender: String,
    /// The set of rules that it was held against; none if it was taken up again after its first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// One for each resource, in the order sent; behind them what Sluice has added.
    pub stands: Vec<Stands>,
}

/// Where a resource stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stands {
    /// Its type.
    pub resource_type: String,
    /// Its id.
    pub id: String,
    /// Its version here, from 1.
    pub version: u64,
}

impl Recorder {
    /// What an operation has recorded; none if there is none of this id.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        let row = self.store.read(Table::Operation, id.as_bytes()).await?;
        let Some(row) = row else { return Ok(None) };
        let plain = self.vault.open(&place(Table::Operation, id.to_string().as_bytes()), &row)?;
        let operation = serde_json::from_slice(&plain);
        operation.map(Some).map_err(|_| Error::defect("an operation's row is not what was written"))
    }

    /// The value of an operation's row.
    pub(super) fn operation_row(
        &self,
        answer: &Answer,
        planned: &[Planned],
        authored: &[Authored],
        checked: &Checked,
    ) -> Result<Vec<u8>> {
        let stands = answer.entries.iter().zip(planned).map(|(entry, plan)| Stands {
            resource_type: entry.resource_type.clone(),
            id: plan.id.clone(),
            version: plan.version,
        });
        let added = authored.iter().map(|it| Stands {
            resource_type: it.resource.resource_type().to_string(),
            id: it.plan.id.clone(),
            version: it.plan.version,
        });
        let operation = Operation {
            sender: checked.normalized().context().caller.institution.to_string(),
            rules: checked.rules().map(ToString::to_string),
            stands: stands.chain(added).collect(),
        };
        let plain = serde_json::to_vec(&operation).map_err(|_| Error::defect("a receipt can't be written"))?;
        self.vault.seal(&[], &place(Table::Operation, answer.operation.as_bytes()), &plain).map_err(Error::from)
    }
}
