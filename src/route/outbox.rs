//! Events that wait to be sent, as rows of [`Table::Outbox`].
//!
//! Takes: an event that is permitted. Gives: its row, sealed under the keys of its subjects. Never: leaves anything of an
//! event, or of whom it is about, in the clear.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::config::Wait;
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::keys::{HmacKey, Keys};
use crate::record::{Recorder, sealed};
use crate::store::Table;
use crate::store::vault::{VaultError, place};

/// Bytes of a key that name the subscriber and the lane.
pub const LANE_BYTES: usize = TAG_BYTES + 8;

const TAG_BYTES: usize = 16;

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

/// The bytes that lead all keys of a lane: a keyed hash of the subscriber, and the beginning of the pairwise pseudonym.
/// What is about nobody shares one lane.
pub fn lane(keys: &Keys, subscriber: &str, pairwise: Option<&Pseudonym>) -> Bytes {
    let mut lane = BytesMut::with_capacity(LANE_BYTES);
    lane.put_slice(&keys.hmac(HmacKey::Index, &[b"outbox", subscriber.as_bytes()])[..TAG_BYTES]);
    lane.put_slice(&pairwise.map_or([0; 32], |it| it.0)[..8]);
    lane.freeze()
}

/// The key of a row.
pub fn key(lane: &[u8], sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(LANE_BYTES + 8);
    key.put_slice(lane);
    key.put_u64(sequence);
    key.freeze()
}

/// The value of a row at its place.
///
/// # Errors
/// An outage of the keys; they are gone where a subject was erased.
pub fn seal(recorder: &Recorder, key: &[u8], waiting: &Waiting) -> Result<Bytes> {
    let plain = serde_json::to_vec(waiting).map_err(|_| Error::defect("an event that waits can't be written"))?;
    let subjects: Vec<[u8; 32]> = waiting.subjects.iter().map(|it| it.0).collect();
    let value = recorder.vault().seal(&subjects, &place(Table::Outbox, key), &plain);
    value.map(Bytes::from).map_err(|error| sealed(&error))
}

/// Opens a row; none if one of its subjects was erased.
///
/// # Errors
/// An outage of the keys; a defect if it is not what was written.
pub fn open(recorder: &Recorder, key: &[u8], value: &[u8]) -> Result<Option<Waiting>> {
    match recorder.vault().open(&place(Table::Outbox, key), value) {
        Ok(plain) => {
            serde_json::from_slice(&plain).map(Some).map_err(|_| Error::defect("an outbox row is not what was written"))
        }
        Err(VaultError::Erased) => Ok(None),
        Err(error) => Err(sealed(&error)),
    }
}
