//! The receipt of an operation, for the institution that sent it.
//!
//! Takes: an operation. Gives: for each of its resources what proves that this very content was accepted, when and from
//! whom: the leaf's opening, its place in the log, the checkpoint, and the ledger's receipt once there is one. Never:
//! gives it to another institution, nor the opening of a version that another operation made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::proof::TlogProof;

use super::{AnchorReceipt, Log};
use crate::error::{Error, Result};
use crate::record::leaf::unhex;
use crate::record::operation::Stands;
use crate::record::version::ResourceKey;
use crate::record::{Recorder, leaf};
use crate::stage::OperationId;

/// Resources of one receipt that are looked up at once.
const WIDTH: usize = 16;

/// What an operation's receipt says.
#[derive(Debug, Clone, Serialize)]
pub struct OperationReceipt {
    /// The operation.
    pub operation: String,
    /// The institution that sent it.
    pub sender: String,
    /// The log's verifier key, as C2SP signed-note writes it. Convenient, and not what makes it trusted.
    pub key: String,
    /// The set of rules that it was held against: the same for the same rules, packages, settings and version of the software.
    /// Null if it was taken up again after its first attempt.
    pub rules: Option<String>,
    /// One for each resource, in the order sent.
    pub resources: Vec<ResourceReceipt>,
}

/// What is proven of one resource. Members that are null are not known yet, or not any more.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceReceipt {
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// Its id.
    pub id: String,
    /// Its version, from 1.
    pub version: u64,
    /// How the leaf commits: 1 is HMAC-SHA-256(r, record).
    pub scheme: u8,
    /// The key of the commitment, lower-case hex. Null if the patient's data were erased, or another operation made this
    /// version.
    pub r: Option<String>,
    /// The canonical record that the leaf commits to; null as `r`.
    pub record: Option<Box<RawValue>>,
    /// The commitment, lower-case hex; null if the patient's data were erased.
    pub commitment: Option<String>,
    /// The leaf's index in the log; null while it waits for one.
    pub leaf_index: Option<u64>,
    /// The audit path, base64, the leaf's sibling first (RFC 6962 §2.1.1).
    pub inclusion: Option<Vec<String>>,
    /// The signed checkpoint that it leads to: a C2SP note.
    pub checkpoint: Option<String>,
    /// That the checkpoint stands on the ledger; null until it does.
    pub receipt: Option<AnchorReceipt>,
    /// What all this rests on; null while nothing is proven.
    pub assurance: Option<String>,
}

impl Log {
    /// The receipt of an operation; none if there is no such operation of that institution.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn operation(
        &self,
        recorder: &Recorder,
        id: OperationId,
        institution: &str,
    ) -> Result<Option<OperationReceipt>> {
        // Whose it is is part of the question: another institution is not told that there is one.
        let Some(operation) = recorder.operation(id).await?.filter(|it| it.sender == institution) else {
            return Ok(None);
        };
        let text = id.to_string();
        let resources = stream::iter(operation.stands)
            .map(|stands| self.resource(recorder, stands, &text))
            .buffered(WIDTH)
            .try_collect()
            .await?;
        let key = self.verifier_key().to_string();
        Ok(Some(OperationReceipt { operation: text, sender: operation.sender, key, rules: operation.rules, resources }))
    }

    async fn resource(&self, recorder: &Recorder, stands: Stands, operation: &str) -> Result<ResourceReceipt> {
        let key = ResourceKey::of(recorder.keys(), &stands.resource_type, &stands.id);
        let mut receipt = ResourceReceipt {
            resource_type: stands.resource_type,
            id: stands.id,
            version: stands.version,
            scheme: leaf::SCHEME,
            r: None,
            record: None,
            commitment: None,
            leaf_index: None,
            inclusion: None,
            checkpoint: None,
            receipt: None,
            assurance: None,
        };
        let Some(version) = recorder.read_version(&key, stands.version).await? else { return Ok(receipt) };
        let about = version.about;
        let broken = || Error::defect("a version's leaf is not what was written");
        let commitment = unhex(&about.commitment).ok_or_else(broken)?;
        if about.operation == operation {
            receipt.r = Some(about.opening.r);
            receipt.record = Some(RawValue::from_string(about.opening.record).map_err(|_| broken())?);
        }
        receipt.commitment = Some(about.commitment);
        // Under the newest checkpoint that the ledger knows if the leaf stands there already, else under the newest.
        let anchored = match self.anchored() {
            Some(anchored) => self.proof_at(&commitment, anchored.size).await?.map(|proof| (proof, Some(anchored))),
            None => None,
        };
        let proven = match anchored {
            Some(proven) => Some(proven),
            None => self.proof(&commitment).await?.map(|proof| (proof, None)),
        };
        if let Some((proof, anchored)) = proven {
            receipt.leaf_index = Some(proof.index);
            receipt.inclusion = Some(proof.inclusion.iter().map(|hash| STANDARD.encode(hash)).collect());
            receipt.checkpoint = Some(proof.checkpoint.to_string());
            let assurance = anchored.as_ref().map(|it| it.receipt.assurance.clone());
            receipt.assurance = Some(assurance.unwrap_or_else(|| "self".to_owned()));
            receipt.receipt = anchored.map(|it| it.receipt.clone());
        }
        Ok(receipt)
    }
}

impl ResourceReceipt {
    /// The same as a C2SP tlog-proof@v1, the opening of the leaf as its extra data; none while there is no proof.
    ///
    /// # Errors
    /// A defect if what was proven can't be written.
    pub fn tlog_proof(&self) -> Result<Option<String>> {
        let (Some(index), Some(inclusion), Some(checkpoint)) = (self.leaf_index, &self.inclusion, &self.checkpoint)
        else {
            return Ok(None);
        };
        let broken = || Error::defect("a proof can't be written");
        let hash = |text: &String| STANDARD.decode(text).ok().and_then(|hash| hash.try_into().ok()).ok_or_else(broken);
        let inclusion = inclusion.iter().map(hash).collect::<Result<Vec<_>>>()?;
        let signed = SignedCheckpoint::parse(checkpoint.as_bytes()).map_err(|_| broken())?;
        let opening = serde_json::json!({
            "commitment": self.commitment, "r": self.r, "record": self.record, "scheme": self.scheme,
        });
        let proof = TlogProof::new(index, inclusion, signed).and_then(|it| it.with_extra(opening.to_string().into()));
        proof.map(|it| Some(it.to_string())).map_err(|_| broken())
    }
}
