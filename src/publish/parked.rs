//! Parked events: what no broker would take, and what an operator does about it.
//!
//! Takes: rows of [`Table::Parked`], which hold up their lanes. Gives: what is parked, and its return to its lane or its end.
//! Never: shows anything of a record; ends an event without a leaf that says so.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::recheck::{Basis, Denial};
use super::rows::{commit, read, scan, without};
use crate::error::{Error, Result};
use crate::record::Recorder;
use crate::route::outbox::{self, Place};
use crate::store::{Batch, KeyRange, Row, Table};

/// Parked events in one list at most.
pub const LIST_MAX: usize = 256;

/// An event that is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parked {
    /// Names it towards [`retry`] and [`discard`]: lower-case hex.
    pub key: String,
    /// Why.
    pub cause: String,
    /// None where it was erased with a subject.
    pub event: Option<About>,
}

/// What an operator may know of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Its id.
    pub id: String,
    /// Whom it is for.
    pub subscriber: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was routed: RFC 3339, UTC.
    pub routed_at: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// What is parked, behind a key; at most [`LIST_MAX`].
///
/// # Errors
/// An outage of the store or the keys.
pub async fn list(after: Option<Bytes>, recorder: &Recorder) -> Result<Vec<Parked>> {
    let range = after.map_or_else(KeyRange::all, |key| KeyRange::all().after(key));
    let mut list = Vec::new();
    for Row { key, value: cause, .. } in scan(recorder, Table::Parked, range, LIST_MAX).await? {
        let row = read(recorder, Table::Outbox, &key).await?;
        let waiting = row.map(|row| outbox::open(recorder, &key, &row.value)).transpose()?.flatten();
        let event = waiting.map(|it| About {
            id: it.id,
            subscriber: it.subscriber,
            kind: it.kind,
            routed_at: it.time,
            attempts: it.attempts,
        });
        list.push(Parked { key: HEXLOWER.encode(&key), cause: String::from_utf8_lossy(&cause).into_owned(), event });
    }
    Ok(list)
}

/// Lets a parked event be tried again, and its lane go on behind it. False if nothing is parked under this key.
///
/// # Errors
/// An outage of the store or the keys.
pub async fn retry(key: &Bytes, recorder: &Recorder) -> Result<bool> {
    let Some((batch, Some(row))) = unparked(key, recorder).await? else { return Ok(false) };
    let batch = match (outbox::place_of(key, &row.value)?, outbox::open(recorder, key, &row.value)?) {
        (Place::Own(own), Some(mut waiting)) => {
            waiting.attempts = 0;
            let value = outbox::seal(recorder, key, &own, &waiting)?;
            batch.expect_value(Table::Outbox, key.clone(), row.value).put(Table::Outbox, key.clone(), value)
        }
        // Erased: its lane finds that out.
        (_, None) => batch,
        (Place::Also, Some(_)) => return Err(Error::defect("a mark of an event is parked")),
    };
    // A crash before this commit leaves it parked; after it, the next pass of publish takes it up.
    commit(recorder, batch).await?;
    Ok(true)
}

/// Gives a parked event up: it is never sent, a leaf says so, and its lane goes on behind it. False if nothing is parked
/// under this key.
///
/// # Errors
/// An outage of the store or the keys.
pub async fn discard(key: &Bytes, recorder: &Recorder) -> Result<bool> {
    let Some((batch, Some(row))) = unparked(key, recorder).await? else { return Ok(false) };
    let Place::Own(own) = outbox::place_of(key, &row.value)? else {
        return Err(Error::defect("a mark of an event is parked"));
    };
    let mut end = without(&row, &own);
    end.append(batch);
    // A crash before the commit leaves it parked.
    match outbox::open(recorder, key, &row.value)? {
        None => commit(recorder, end).await?,
        Some(waiting) => {
            if let Some(sequence) = waiting.sequence.filter(|_| !waiting.maybe_sent) {
                end = end.put(Table::Lane, outbox::lane_of(key), (sequence - 1).to_be_bytes().to_vec());
            }
            let denial = Denial::deny("operator.discard");
            Basis::from(&waiting).cancel(end, &waiting.subscriber, denial, recorder).await?;
        }
    }
    Ok(true)
}

/// What takes the key off the list, and the event's row. None if it is not on it.
async fn unparked(key: &Bytes, recorder: &Recorder) -> Result<Option<(Batch, Option<Row>)>> {
    let Some(parked) = read(recorder, Table::Parked, key).await? else { return Ok(None) };
    let batch = Batch::new().expect_value(Table::Parked, key.clone(), parked.value).delete(Table::Parked, key.clone());
    Ok(Some((batch, read(recorder, Table::Outbox, key).await?)))
}
