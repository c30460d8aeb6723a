//! Events that wait to be sent, as rows of [`Table::Outbox`].
//!
//! Takes: an event that is permitted. Gives: its row, sealed under the keys of its subjects. Never: leaves anything of an
//! event, or of whom it is about, in the clear.
//!
//! A lane is what one subscriber is told about one patient. An event about several patients has its row in the first of
//! its lanes, and in each other lane a mark under the same number, so that it has its place in the order of all of them.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::config::Wait;
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::keys::{HmacKey, Keys};
use crate::record::Recorder;
use crate::store::vault::{VaultError, place};
use crate::store::{KeyRange, Table};

/// Bytes of a key that name the subscriber and the lane.
const LANE_BYTES: usize = TAG_BYTES + SUBJECT_BYTES;

const TAG_BYTES: usize = 16;
const SUBJECT_BYTES: usize = 8;

/// What leads the value of an event's own row, and of a mark of it in another lane.
const OWN: u8 = 0;
const ALSO: u8 = 1;

/// What stands in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An event.
    Own {
        /// The other lanes that it stands in.
        others: Vec<Bytes>,
    },
    /// The mark of an event whose row is in another lane.
    Also,
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
    /// Its canonical body.
    pub body: String,
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
pub fn since(key: &[u8]) -> Option<i64> {
    let (_, sequence) = key.split_last_chunk::<8>()?;
    i64::try_from(u64::from_be_bytes(*sequence)).ok()
}

/// The lane of a row.
pub fn lane_of(key: &Bytes) -> Bytes {
    key.slice(..LANE_BYTES.min(key.len()))
}

/// The key of the mark that an event has in another lane.
pub fn beside(lane: &[u8], key: &[u8]) -> Bytes {
    [lane, key.get(LANE_BYTES..).unwrap_or_default()].concat().into()
}

/// All rows behind a lane.
pub fn behind(lane: &Bytes) -> KeyRange {
    // Numbers are 8 bytes, so no key of the lane is above this one.
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
    let (own, _) = split(value)?;
    let Some(subjects) = own else { return Ok(Place::Also) };
    let tag = key.get(..TAG_BYTES).ok_or_else(broken)?;
    let others = subjects.chunks(SUBJECT_BYTES).map(|subject| [tag, subject].concat().into()).collect();
    Ok(Place::Own { others })
}

/// The value of an event's own row at its place: a byte, how many other lanes it stands in, u16, what distinguishes each of
/// them, and the event, sealed.
///
/// # Errors
/// An outage of the keys; they are gone where a subject was erased.
pub fn seal(recorder: &Recorder, key: &[u8], others: &[Bytes], waiting: &Waiting) -> Result<Bytes> {
    let plain = serde_json::to_vec(waiting).map_err(|_| Error::defect("an event that waits can't be written"))?;
    let count = u16::try_from(others.len()).map_err(|_| Error::defect("an event stands in too many lanes"))?;
    let mut value = vec![OWN];
    value.extend(count.to_be_bytes());
    for other in others {
        value.extend_from_slice(other.get(TAG_BYTES..).unwrap_or_default());
    }
    let subjects: Vec<[u8; 32]> = waiting.subjects.iter().map(|it| it.0).collect();
    // The lanes are bound to the event too.
    let place = [&place(Table::Outbox, key), &value[..]].concat();
    let sealed = recorder.vault().seal(&subjects, &place, &plain)?;
    value.extend(sealed);
    Ok(value.into())
}

/// Opens an event's own row; none if one of its subjects was erased.
///
/// # Errors
/// An outage of the keys; a defect if it is not what was written.
pub fn open(recorder: &Recorder, key: &[u8], value: &[u8]) -> Result<Option<Waiting>> {
    let (Some(_), sealed_event) = split(value)? else { return Err(broken()) };
    let place = [&place(Table::Outbox, key), &value[..value.len() - sealed_event.len()]].concat();
    match recorder.vault().open(&place, sealed_event) {
        Ok(plain) => serde_json::from_slice(&plain).map(Some).map_err(|_| broken()),
        Err(VaultError::Erased) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The lanes of an event's own row, or none in a mark; and the sealed event.
fn split(value: &[u8]) -> Result<(Option<&[u8]>, &[u8])> {
    match value.split_first().ok_or_else(broken)? {
        (&OWN, rest) => {
            let (count, rest) = rest.split_first_chunk::<2>().ok_or_else(broken)?;
            let length = usize::from(u16::from_be_bytes(*count)) * SUBJECT_BYTES;
            let (subjects, sealed) = rest.split_at_checked(length).ok_or_else(broken)?;
            Ok((Some(subjects), sealed))
        }
        (&ALSO, rest) => Ok((None, rest)),
        _ => Err(broken()),
    }
}

fn broken() -> Error {
    Error::defect("an outbox row is not what was written")
}
