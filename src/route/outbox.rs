//! Events that wait to be sent, as rows of [`Table::Outbox`].
//!
//! Takes: an event that is permitted. Gives: its row, sealed under the keys of its subjects. Never: leaves anything of an
//! event, or of whom it is about, in the clear.
//!
//! A lane is what one subscriber is told about one patient. An event about several patients has its row in the first of
//! its lanes, and in each other lane a mark under the same number, so that it has its place in the order of all of them.
//!
//! A long body has a row of its own in [`Table::Event`], written once: what is known of an event is written anew at each
//! try, and must fit one commit together with what it replaces.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::config::Wait;
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::keys::{HmacKey, Keys};
use crate::record::Recorder;
use crate::store::vault::{VaultError, place};
use crate::store::{Batch, KeyRange, Table};

/// Bytes of a key that name the subscriber and the lane.
const LANE_BYTES: usize = TAG_BYTES + SUBJECT_BYTES;

const TAG_BYTES: usize = 16;
const SUBJECT_BYTES: usize = 8;

/// A body up to this length stands in the event's own row.
const BODY_BYTES_BESIDE: usize = 4 << 10;

/// What leads the value of an event's own row, and of a mark of it in another lane.
const OWN: u8 = 0;
const ALSO: u8 = 1;

/// Bytes of what else leads an event's own row: the length of its body elsewhere, and the number of its other lanes.
const LENGTH_BYTES: usize = 4;
const COUNT_BYTES: usize = 2;

/// What stands in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An event.
    Own(Own),
    /// The mark of an event whose row is in another lane.
    Also,
}

/// Where an event stands besides its own row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// The other lanes that it stands in.
    pub others: Vec<Bytes>,
    /// Bytes of its body, if that has a row of its own.
    pub apart_bytes: Option<u32>,
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Whom it is for.
    pub subscriber: String,
    /// Its id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Where a broker sends it.
    pub routing_key: String,
    /// Its canonical body; none if that has a row of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Why it does not hold the resources that its subscriber would get whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<String>,
    /// When it was routed: RFC 3339, UTC.
    pub time: String,
    /// When what it is about was recorded, the time of the event: RFC 3339, UTC.
    pub recorded_at: String,
    /// The commitment of its decision's leaf.
    pub commitment: Hash32,
    /// The key of that commitment, lower-case hex.
    pub r: String,
    /// The canonical record of the decision.
    pub decision: String,
    /// The patients that it is about, as the ledger names them.
    pub subjects: Vec<Pseudonym>,
    /// The subject as the subscriber knows it.
    pub pairwise: Option<Pseudonym>,
    /// The versions that it is about: the key of the resource, and the number.
    pub versions: Vec<(Hash32, u64)>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// What its vendors add to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// What it waits for.
    pub wait: Wait,
    /// Its number in its lane, once it has one.
    pub sequence: Option<u64>,
    /// Whether a broker may have it already.
    pub maybe_sent: bool,
    /// How often it was tried.
    pub attempts: u32,
}

/// 32 bytes that are stored as hex.
pub type Hash32 = Pseudonym;

/// The lanes of an event, in order, each once: the bytes that lead all keys of a lane are a keyed hash of the subscriber, and
/// the beginning of a pairwise pseudonym. What is about nobody shares one lane.
pub fn lanes(keys: &Keys, subscriber: &str, pairwise: &[Pseudonym]) -> Vec<Bytes> {
    let tag = keys.hmac(HmacKey::Index, &[b"outbox", subscriber.as_bytes()]);
    let lane = |subject: &[u8; 32]| {
        let mut lane = BytesMut::with_capacity(LANE_BYTES);
        lane.put_slice(&tag[..TAG_BYTES]);
        lane.put_slice(&subject[..SUBJECT_BYTES]);
        lane.freeze()
    };
    let mut lanes: Vec<Bytes> = pairwise.iter().map(|it| lane(&it.0)).collect();
    if lanes.is_empty() {
        lanes.push(lane(&[0; 32]));
    }
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

/// The key of a row.
pub fn key(lane: &[u8], sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(LANE_BYTES + 8);
    key.put_slice(lane);
    key.put_u64(sequence);
    key.freeze()
}

/// When the event of this key was routed, in microseconds since 1970: the sequence is the recorder's, which counts them.
/// None for the key of a mark.
pub fn since(key: &[u8]) -> Option<i64> {
    let sequence = key.get(LANE_BYTES..)?.try_into().ok()?;
    i64::try_from(u64::from_be_bytes(sequence)).ok()
}

/// The lane of a row.
pub fn lane_of(key: &Bytes) -> Bytes {
    key.slice(..LANE_BYTES.min(key.len()))
}

/// The key of the mark that an event has in another lane: its number there, and a byte more, so that marks and events
/// can be told apart by their keys alone.
pub fn beside(lane: &[u8], key: &[u8]) -> Bytes {
    [lane, key.get(LANE_BYTES..).unwrap_or_default(), &[0]].concat().into()
}

/// All rows behind a lane.
pub fn behind(lane: &Bytes) -> KeyRange {
    // Numbers are 8 bytes, and behind them stands at most a zero, so no key of the lane is above this one.
    KeyRange::all().after([lane, &[u8::MAX; 9][..]].concat())
}

/// The value of a mark.
pub fn also() -> Bytes {
    Bytes::from_static(&[ALSO])
}

/// What stands in a row.
///
/// # Errors
/// A defect if it is not what was written.
pub fn place_of(key: &[u8], value: &[u8]) -> Result<Place> {
    let Some((head, _)) = split(value)? else { return Ok(Place::Also) };
    let tag = key.get(..TAG_BYTES).ok_or_else(broken)?;
    let (length, subjects) = head[1..].split_first_chunk::<LENGTH_BYTES>().ok_or_else(broken)?;
    let others = subjects[COUNT_BYTES..].chunks(SUBJECT_BYTES).map(|subject| [tag, subject].concat().into()).collect();
    let length = u32::from_be_bytes(*length);
    Ok(Place::Own(Own { others, apart_bytes: (length > 0).then_some(length) }))
}

/// The bytes that are held while the event of a row is worked on, about.
pub fn weight(value: &[u8]) -> usize {
    let apart = match value {
        [OWN, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => 0,
    };
    value.len().saturating_add(apart)
}

/// Adds the rows of an event with this canonical body: its own, a mark in each other lane, and one for a long body.
///
/// # Errors
/// An outage of the keys; they are gone where a subject was erased.
pub fn put(
    batch: Batch,
    recorder: &Recorder,
    key: &Bytes,
    others: Vec<Bytes>,
    mut waiting: Waiting,
    body: String,
) -> Result<Batch> {
    let mut batch = others.iter().fold(batch, |batch, other| batch.put(Table::Outbox, beside(other, key), also()));
    let mut own = Own { others, apart_bytes: None };
    if body.len() > BODY_BYTES_BESIDE {
        let length =
            u32::try_from(body.len()).map_err(|_| Error::defect("an event is longer than any broker takes"))?;
        own.apart_bytes = Some(length);
        let place = place(Table::Event, key);
        let value = recorder.vault().seal(&subjects(&waiting), &place, body.as_bytes())?;
        batch = batch.put(Table::Event, key.clone(), value);
        waiting.body = None;
    } else {
        waiting.body = Some(body);
    }
    let value = seal(recorder, key, &own, &waiting)?;
    Ok(batch.put(Table::Outbox, key.clone(), value))
}

/// The value of an event's own row at its place: a byte; the length of its body if that stands apart, u32; how many other
/// lanes it stands in, u16; what distinguishes each of them; and the event, sealed.
///
/// # Errors
/// An outage of the keys; they are gone where a subject was erased.
pub fn seal(recorder: &Recorder, key: &[u8], own: &Own, waiting: &Waiting) -> Result<Bytes> {
    let plain = serde_json::to_vec(waiting).map_err(|_| Error::defect("an event that waits can't be written"))?;
    let count = u16::try_from(own.others.len()).map_err(|_| Error::defect("an event stands in too many lanes"))?;
    let mut value = vec![OWN];
    value.extend(own.apart_bytes.unwrap_or(0).to_be_bytes());
    value.extend(count.to_be_bytes());
    for other in &own.others {
        value.extend_from_slice(other.get(TAG_BYTES..).unwrap_or_default());
    }
    // What stands before it is bound to the event too.
    let place = [&place(Table::Outbox, key), &value[..]].concat();
    let sealed = recorder.vault().seal(&subjects(waiting), &place, &plain)?;
    value.extend(sealed);
    Ok(value.into())
}

/// Opens an event's own row; none if one of its subjects was erased.
///
/// # Errors
/// An outage of the keys; a defect if it is not what was written.
pub fn open(recorder: &Recorder, key: &[u8], value: &[u8]) -> Result<Option<Waiting>> {
    let Some((head, sealed_event)) = split(value)? else { return Err(broken()) };
    let place = [&place(Table::Outbox, key), head].concat();
    match recorder.vault().open(&place, sealed_event) {
        Ok(plain) => serde_json::from_slice(&plain).map(Some).map_err(|_| broken()),
        Err(VaultError::Erased) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The canonical body of an event, wherever it stands; none if one of its subjects was erased.
///
/// # Errors
/// An outage of the store or the keys; a defect if it is not what was written.
pub async fn body(recorder: &Recorder, key: &[u8], waiting: &Waiting) -> Result<Option<String>> {
    if waiting.body.is_some() {
        return Ok(waiting.body.clone());
    }
    let row = recorder.store().read(Table::Event, key).await?.ok_or_else(broken)?;
    match recorder.vault().open(&place(Table::Event, key), &row) {
        Ok(plain) => String::from_utf8(plain).map(Some).map_err(|_| broken()),
        Err(VaultError::Erased) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn subjects(waiting: &Waiting) -> Vec<[u8; 32]> {
    waiting.subjects.iter().map(|it| it.0).collect()
}

/// What stands before the sealed event in an event's own row, and that; none in a mark.
fn split(value: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    match value.split_first().ok_or_else(broken)? {
        (&OWN, rest) => {
            let count = rest.get(LENGTH_BYTES..LENGTH_BYTES + COUNT_BYTES).and_then(|it| it.try_into().ok());
            let count = u16::from_be_bytes(count.ok_or_else(broken)?);
            let length = 1 + LENGTH_BYTES + COUNT_BYTES + usize::from(count) * SUBJECT_BYTES;
            value.split_at_checked(length).map(Some).ok_or_else(broken)
        }
        (&ALSO, _) => Ok(None),
        _ => Err(broken()),
    }
}

fn broken() -> Error {
    Error::defect("an outbox row is not what was written")
}
