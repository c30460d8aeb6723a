//! The event as it is sent: the committed body with what is known only now.
//!
//! Takes: an event that may go, its number and its proof. Gives: the message. Never: changes what the leaf commits to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::recheck::Basis;
use super::verify::{Delivery, Proof, delivered};
use crate::anchor::{AnchorReceipt, LeafProof};
use crate::broker::Message;
use crate::error::{Error, Result};
use crate::keys::{Keys, SigningKey};
use crate::record::leaf::SCHEME;
use crate::route::event::{CONTENT_TYPE, DATA_CONTENT_TYPE, DATA_SCHEMA, canonical};
use crate::route::outbox::Waiting;

/// An event with its number in its lane, its proof, and the receipt that it waited for.
///
/// # Errors
/// A defect if the event can't be written.
pub(super) fn message(
    waiting: &Waiting,
    body: &str,
    source: &str,
    sequence: u64,
    proof: &LeafProof,
    receipt: Option<AnchorReceipt>,
    keys: &Keys,
) -> Result<Message> {
    let unwritten = || Error::defect("an event can't be written");
    let raw = |text: String| RawValue::from_string(text).map_err(|_| unwritten());
    let shown = Proof {
        scheme: SCHEME,
        r: waiting.r.clone(),
        commitment: waiting.commitment.hex(),
        leaf_index: proof.index,
        inclusion: proof.inclusion.iter().map(|hash| STANDARD.encode(hash)).collect(),
        checkpoint: proof.checkpoint.to_string(),
        decision: raw(waiting.decision.clone())?,
        receipt,
    };
    let signature = keys.sign(SigningKey::Event, &delivered(&waiting.id, sequence));
    let delivery = Delivery { sequence, signature: STANDARD.encode(signature) };
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(body).map_err(|_| unwritten())?;
    members.insert("proof".to_owned(), raw(serde_json::to_string(&shown).map_err(|_| unwritten())?)?);
    members.insert("delivery".to_owned(), raw(serde_json::to_string(&delivery).map_err(|_| unwritten())?)?);
    if let Some(trace) = &waiting.traceparent {
        members.insert("traceparent".to_owned(), raw(serde_json::Value::from(trace.as_str()).to_string())?);
    }
    if let Some(state) = &waiting.tracestate {
        members.insert("tracestate".to_owned(), raw(serde_json::Value::from(state.as_str()).to_string())?);
    }
    let body = canonical(serde_json::to_vec(&members).map_err(|_| unwritten())?)?;
    let time = OffsetDateTime::parse(&waiting.time, &Rfc3339).map_err(|_| unwritten())?;
    let attribute = |name: &'static str, value: &str| (Cow::Borrowed(name), value.to_owned());
    // The attributes again, as CloudEvents' AMQP binding §3.2.3 lets a structured message carry them.
    let mut headers = vec![
        attribute("cloudEvents:id", &waiting.id),
        attribute("cloudEvents:source", source),
        attribute("cloudEvents:specversion", "1.0"),
        attribute("cloudEvents:type", &waiting.kind),
        attribute("cloudEvents:datacontenttype", DATA_CONTENT_TYPE),
        attribute("cloudEvents:dataschema", DATA_SCHEMA),
        attribute("cloudEvents:time", &waiting.recorded_at),
    ];
    if let Some(pairwise) = &waiting.pairwise {
        headers.push(attribute("cloudEvents:subject", &pairwise.hex()));
    }
    if let Some(omitted) = &waiting.omitted {
        headers.push(attribute("cloudEvents:omitted", omitted));
    }
    if let Some(trace) = &waiting.traceparent {
        headers.push(attribute("cloudEvents:traceparent", trace));
    }
    if let Some(state) = &waiting.tracestate {
        headers.push(attribute("cloudEvents:tracestate", state));
    }
    Ok(Message {
        id: waiting.id.clone(),
        subscriber: waiting.subscriber.clone(),
        lane: waiting.subjects.iter().flat_map(|it| it.0).collect(),
        routing_key: waiting.routing_key.clone(),
        content_type: Cow::Borrowed(CONTENT_TYPE),
        headers,
        time: u64::try_from(time.unix_timestamp()).unwrap_or(0),
        recall: Basis::from(waiting).encode()?,
        body,
    })
}
