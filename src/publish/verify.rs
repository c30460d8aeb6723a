//! Verification: whether an event is what a gateway decided to send, offline.
//!
//! Takes: the bytes of an event, and whom to trust. Gives: a verdict that names the first link which broke. Never: trusts a
//! key that came with the event; reads anything but its arguments.
//!
//! The chain: body -> commitment -> leaf -> inclusion -> checkpoint -> receipt, and the delivery beside it. `traceparent`
//! and `tracestate` alone stand outside: whoever passes an event on may set them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Node, Tree};
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::note::VerifierKey;
use sluice_merkle::proof::TlogProof;
use sluice_merkle::tree::{leaf_hash, verify_inclusion};

use crate::anchor::{AnchorReceipt, ed25519};
use crate::ledger::{self, proof::verify_anchor};
use crate::record::leaf::{SCHEME, leaf_bytes, mac, unhex};

/// Members that the leaf does not commit to.
const OUTSIDE: [&str; 4] = ["proof", "delivery", "traceparent", "tracestate"];

/// Whom a reader trusts.
#[derive(Debug)]
pub struct Trust {
    logs: Vec<VerifierKey>,
    events: Vec<(String, [u8; 32])>,
    ledger: Option<ledger::proof::Trust>,
}

/// Why there is nobody to trust. Nothing was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Not the JSON of a trust file.
    #[error("expected {{logs: [{{origin, key}}], events: [{{source, key}}], ledger: {{origin, key}}}}")]
    Form,
    /// A key can't be read, or is not its origin's.
    #[error("expected a verifier key of its origin, or 32 bytes in base64")]
    Key,
    /// No log or no source of events is trusted.
    #[error("expected at least one log and one source of events")]
    Empty,
}

/// A trust file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    logs: Vec<Named>,
    events: Vec<Source>,
    ledger: Option<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    origin: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    source: String,
    key: String,
}

/// What links an event to what is trusted, in the order in which it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// It has the members of an event, each in its one form.
    Form,
    /// The decision is about this body.
    Body,
    /// The decision and `r` give the commitment.
    Commitment,
    /// The leaf can stand at its index.
    Leaf,
    /// The log's key is trusted, and so are the source's and the ledger's.
    Trust,
    /// The log signed the checkpoint.
    Checkpoint,
    /// The leaf is under the checkpoint.
    Inclusion,
    /// The checkpoint stands on the ledger, where the event had to wait for that.
    Receipt,
    /// The source signed id and sequence number.
    Delivery,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether every link holds.
    pub verified: bool,
    /// What it rests on; none if a link broke.
    pub assurance: Option<String>,
    /// The first link that broke.
    pub broken_link: Option<Link>,
}

/// That an event's decision stands in the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Proof {
    /// How the leaf commits: 1 is HMAC-SHA-256(r, decision).
    pub scheme: u8,
    /// The key of the commitment, lower-case hex.
    pub r: String,
    /// The commitment, lower-case hex.
    pub commitment: String,
    /// The leaf's index in the log.
    pub leaf_index: u64,
    /// The audit path, base64, the leaf's sibling first (RFC 6962 §2.1.1).
    pub inclusion: Vec<String>,
    /// The signed checkpoint: a C2SP note.
    pub checkpoint: String,
    /// The canonical record that the leaf commits to.
    pub decision: Box<RawValue>,
    /// That the checkpoint stands on the ledger; null where the event did not wait for that.
    // Named, so that it has to be there: an event has one form.
    #[serde(deserialize_with = "Option::deserialize")]
    pub receipt: Option<AnchorReceipt>,
}

/// What is known only at sending.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// The event's number among those about its subject for this subscriber, from 1.
    pub sequence: u64,
    /// Ed25519 by the source's event key over [`delivered`], base64.
    pub signature: String,
}

/// The message that the source signs when it sends.
pub fn delivered(id: &str, sequence: u64) -> Vec<u8> {
    format!("sluice-delivery-1\n{id}\n{sequence}").into_bytes()
}

impl Trust {
    /// Reads a trust file.
    ///
    /// # Errors
    /// [`TrustError`]; then nothing can be verified.
    pub fn parse(text: &[u8]) -> Result<Self, TrustError> {
        let file: TrustFile = serde_json::from_slice(text).map_err(|_| TrustError::Form)?;
        let key = |it: &Named| {
            let key = VerifierKey::parse(&it.key).map_err(|_| TrustError::Key)?;
            if key.name().as_str() == it.origin { Ok(key) } else { Err(TrustError::Key) }
        };
        let logs = file.logs.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let source = |it: Source| {
            let bytes = STANDARD.decode(&it.key).map_err(|_| TrustError::Key)?;
            Ok((it.source, bytes.try_into().map_err(|_| TrustError::Key)?))
        };
        let events = file.events.into_iter().map(source).collect::<Result<Vec<_>, _>>()?;
        let ledger = file.ledger.as_ref().map(key).transpose()?;
        let ledger = ledger.map(|it| ledger::proof::Trust::from_verifier_key(&it).map_err(|_| TrustError::Key));
        if logs.is_empty() || events.is_empty() {
            return Err(TrustError::Empty);
        }
        Ok(Self { logs, events, ledger: ledger.transpose()? })
    }

    /// The keys that are trusted for the log of this origin.
    pub fn log(&self, origin: &str) -> impl Iterator<Item = &VerifierKey> {
        self.logs.iter().filter(move |it| it.name().as_str() == origin)
    }
}

/// Verifies an event in CloudEvents' JSON format.
pub fn verify(event: &[u8], trust: &Trust) -> Verdict {
    match links(event, trust) {
        Ok(assurance) => Verdict { verified: true, assurance: Some(assurance), broken_link: None },
        Err(link) => Verdict { verified: false, assurance: None, broken_link: Some(link) },
    }
}

fn links(event: &[u8], trust: &Trust) -> Result<String, Link> {
    let tree = Tree::parse(Bytes::copy_from_slice(event), &Limits::default()).map_err(|_| Link::Form)?;
    let root = tree.root();
    let text = |node: Node<'_>, name: &str| node.member(name).and_then(Node::as_str).map(std::borrow::Cow::into_owned);
    let (id, source) = (text(root, "id").ok_or(Link::Form)?, text(root, "source").ok_or(Link::Form)?);
    if text(root, "specversion").as_deref() != Some("1.0") {
        return Err(Link::Form);
    }
    let proof: Proof = read(root, "proof")?;
    let delivery: Delivery = read(root, "delivery")?;
    let receipt = root.member("proof").and_then(|it| it.member("receipt"));
    if proof.receipt.is_some() && !receipt.is_some_and(Node::is_object) {
        return Err(Link::Form);
    }
    let decision_node = root.member("proof").and_then(|it| it.member("decision")).ok_or(Link::Form)?;
    let decided = |name| text(decision_node, name);
    // The decision is about this body, and lets it go.
    let body = body(root)?;
    if decided("kind").as_deref() != Some("decision")
        || decided("event") != Some(HEXLOWER.encode(&Sha256::digest(&body)))
    {
        return Err(Link::Body);
    }
    let r = unhex(&proof.r).ok_or(Link::Form)?;
    let commitment = unhex(&proof.commitment).ok_or(Link::Form)?;
    if proof.scheme != SCHEME || mac(&r, &canonical::to_vec(decision_node)) != commitment {
        return Err(Link::Commitment);
    }
    let signed = SignedCheckpoint::parse(proof.checkpoint.as_bytes()).map_err(|_| Link::Checkpoint)?;
    let checkpoint = signed.checkpoint();
    if proof.leaf_index >= checkpoint.size() {
        return Err(Link::Leaf);
    }
    // A log speaks for its own institution alone.
    let tenant = decided("tenant").ok_or(Link::Form)?;
    let owner = checkpoint.origin().split('/').next().unwrap_or_default();
    if owner != tenant {
        return Err(Link::Checkpoint);
    }
    let keys: Vec<_> = trust.log(checkpoint.origin()).collect();
    let event_keys: Vec<_> = trust.events.iter().filter(|(name, _)| *name == source).collect();
    if keys.is_empty() || event_keys.is_empty() {
        return Err(Link::Trust);
    }
    let by = signed.note().verify(keys, &ed25519).map_err(|_| Link::Checkpoint)?;
    // A signature that nobody can check could be changed unnoticed.
    if by.is_empty() || by.len() != signed.note().signatures().len() {
        return Err(Link::Checkpoint);
    }
    let inclusion = proof.inclusion.iter().map(|it| STANDARD.decode(it).ok()?.try_into().ok());
    let inclusion = inclusion.collect::<Option<Vec<[u8; 32]>>>().ok_or(Link::Inclusion)?;
    let leaf = leaf_hash(&leaf_bytes(&commitment));
    verify_inclusion(&leaf, proof.leaf_index, checkpoint.size(), &inclusion, checkpoint.root())
        .map_err(|_| Link::Inclusion)?;
    // What the event waited for is part of the decision, so a receipt can't be taken away.
    let assurance = match (decided("wait").as_deref(), &proof.receipt) {
        (Some("log"), None) => "self".to_owned(),
        (Some("ledger"), Some(receipt)) => on_ledger(receipt, &proof.checkpoint, trust)?,
        _ => return Err(Link::Receipt),
    };
    let signature = STANDARD.decode(&delivery.signature).ok().and_then(|it| <[u8; 64]>::try_from(it).ok());
    let signature = signature.ok_or(Link::Delivery)?;
    let message = delivered(&id, delivery.sequence);
    if !event_keys.iter().any(|(_, key)| ed25519(key, &message, &signature)) {
        return Err(Link::Delivery);
    }
    Ok(assurance)
}

/// The receipt is the ledger's, about this checkpoint, and says nothing that the ledger did not.
fn on_ledger(receipt: &AnchorReceipt, checkpoint: &str, trust: &Trust) -> Result<String, Link> {
    let ledger = trust.ledger.as_ref().ok_or(Link::Trust)?;
    let anchor = receipt.anchor(checkpoint).ok_or(Link::Receipt)?;
    let proof = TlogProof::parse(receipt.text.as_bytes()).map_err(|_| Link::Receipt)?;
    // As above: no line that nobody checks.
    if proof.checkpoint().note().signatures().len() != 1 {
        return Err(Link::Receipt);
    }
    let shown = verify_anchor(&receipt.text, &anchor, ledger).map_err(|_| Link::Receipt)?;
    let assurance = shown.assurance.to_string();
    let same = receipt.position == shown.position.height
        && receipt.time_ms == shown.position.time.0
        && receipt.assurance == assurance;
    if same { Ok(assurance) } else { Err(Link::Receipt) }
}

/// The canonical form of the members that the leaf commits to.
fn body(root: Node<'_>) -> Result<Vec<u8>, Link> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(root.raw()).map_err(|_| Link::Form)?;
    let kept: BTreeMap<_, _> = members.iter().filter(|(name, _)| !OUTSIDE.contains(&name.as_str())).collect();
    let text = serde_json::to_vec(&kept).map_err(|_| Link::Form)?;
    let tree = Tree::parse(text.into(), &Limits::default()).map_err(|_| Link::Form)?;
    Ok(canonical::to_vec(tree.root()))
}

/// A member, in its one form: an object, which serde would also read from a list. The tree has refused members that stand
/// twice.
fn read<T: for<'de> Deserialize<'de>>(root: Node<'_>, name: &str) -> Result<T, Link> {
    root.member(name).filter(|it| it.is_object()).and_then(|it| serde_json::from_slice(it.raw()).ok()).ok_or(Link::Form)
}
