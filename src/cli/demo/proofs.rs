//! What the demo proves: each receipt is checked with nothing but the trust file's keys.
//!
//! Takes: an operation's receipt as it was served. Gives: what it rests on, or the link that is broken. Never: trusts a
//! key that came with the receipt; asks the gateway.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::note::{KeyKind, KeyName, VerifierKey};
use sluice_merkle::policy::Policy;
use sluice_merkle::proof::TlogProof;
use sluice_merkle::receipt::{ReceiptError, verify_proof};
use sluice_merkle::tree::leaf_hash;

use super::super::Failure;
use crate::anchor::AnchorReceipt;
use crate::config::Config;
use crate::keys::{Files, Keys, SigningKey};
use crate::ledger::proof::verify_anchor;
use crate::ledger::{Origin, PublicKey, Trust};
use crate::record::leaf::unhex;

/// An operation's receipt, as `/receipts/[operation]` gives it.
#[derive(Deserialize)]
pub(super) struct Receipt {
    pub(super) resources: Vec<Resource>,
}

/// One resource of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    scheme: u8,
    r: Option<String>,
    record: Option<Box<RawValue>>,
    leaf_index: Option<u64>,
    inclusion: Option<Vec<String>>,
    checkpoint: Option<String>,
    receipt: Option<AnchorReceipt>,
}

/// Whose keys are believed.
pub(super) struct Trusted {
    log: VerifierKey,
    ledger: Trust,
    event: [u8; 32],
    source: String,
}

/// The trust file that `sluice verify --trust` reads.
#[derive(Serialize)]
struct File<'a> {
    logs: [Key<'a>; 1],
    events: [EventKey<'a>; 1],
    ledger: Key<'a>,
}

#[derive(Serialize)]
struct Key<'a> {
    origin: &'a str,
    key: String,
}

#[derive(Serialize)]
struct EventKey<'a> {
    source: &'a str,
    key: String,
}

impl Trusted {
    /// The public halves of this gateway's keys: read from its keyring, never from what it serves.
    pub(super) fn of(config: &Config) -> Result<Self, Failure> {
        let keys = Keys::open(&Files::from(&config.keys)).map_err(|error| Failure::could_not_run(&error))?;
        let name = KeyName::new(config.log.origin.as_str()).map_err(|error| Failure::could_not_run(&error))?;
        let ledger = Origin::parse(&config.ledger.origin).map_err(|error| Failure::could_not_run(&error))?;
        Ok(Self {
            log: VerifierKey::new(name, KeyKind::Ed25519, keys.public_key(SigningKey::Log)),
            ledger: Trust { ledger, key: keys.public_key(SigningKey::Institution) },
            event: keys.public_key(SigningKey::Event),
            source: config.tenant.base_url.clone(),
        })
    }

    /// `trust.json`.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, Failure> {
        let ledger = self.ledger.verifier_key().map_err(|error| Failure::could_not_run(&error))?;
        let file = File {
            logs: [Key { origin: self.log.name().as_str(), key: self.log.to_string() }],
            events: [EventKey { source: &self.source, key: STANDARD.encode(self.event) }],
            ledger: Key { origin: self.ledger.ledger.as_str(), key: ledger.to_string() },
        };
        serde_json::to_vec_pretty(&file).map_err(|error| Failure::could_not_run(&error))
    }

    /// Checks one resource. Gives what it rests on.
    ///
    /// # Errors
    /// The link that is broken.
    pub(super) fn check(&self, resource: &Resource) -> Result<String, &'static str> {
        let (Some(r), Some(record)) = (&resource.r, &resource.record) else { return Err("form") };
        let (Some(index), Some(path), Some(checkpoint)) =
            (resource.leaf_index, &resource.inclusion, &resource.checkpoint)
        else {
            return Err("form");
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &unhex(r).ok_or("form")?);
        let commitment = hmac::sign(&key, record.get().as_bytes());
        let leaf = [&[resource.scheme], commitment.as_ref()].concat();
        let path: Option<Vec<[u8; 32]>> =
            path.iter().map(|hash| STANDARD.decode(hash).ok().and_then(|hash| hash.try_into().ok())).collect();
        let signed = SignedCheckpoint::parse(checkpoint.as_bytes()).map_err(|_| "checkpoint")?;
        let proof = TlogProof::new(index, path.ok_or("form")?, signed).map_err(|_| "inclusion")?;
        let policy = Policy::new(vec![self.log.clone()], Vec::new(), 0).map_err(|_| "form")?;
        let ed25519 =
            |key: &[u8; 32], message: &[u8], signature: &[u8; 64]| PublicKey::Ed25519(*key).verify(message, signature);
        let verified = verify_proof(&policy, &leaf_hash(&leaf), &proof, &ed25519);
        let verified = verified.map_err(|error| match error {
            // A path that leads elsewhere than to the signed root: the leaf, made anew from the record, is not the one.
            ReceiptError::Inclusion(_) => "inclusion",
            ReceiptError::Checkpoint(_) => "checkpoint",
            ReceiptError::Form(_) | ReceiptError::Consistency(_) | ReceiptError::OtherLog => "form",
        })?;
        let Some(receipt) = &resource.receipt else { return Ok(verified.assurance.to_string()) };
        let anchor = receipt.anchor(checkpoint).ok_or("receipt")?;
        let shown = verify_anchor(&receipt.text, &anchor, &self.ledger).map_err(|_| "receipt")?;
        Ok(shown.assurance.to_string())
    }
}

impl Resource {
    /// Whether the ledger's receipt has come.
    pub(super) fn is_anchored(&self) -> bool {
        self.receipt.is_some()
    }
}
