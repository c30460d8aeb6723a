//! What settle still has to do.
//!
//! Takes: a version that was recorded. Gives: a row that stays until the work is done. Never: names the resource in
//! the clear.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::version::ResourceKey;
use crate::error::{Error, Result};

/// Which work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Decide for every subscriber.
    Route = 1,
    /// File a Consent on the ledger.
    File = 2,
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The resource.
    #[serde(skip)]
    pub resource: ResourceKey,
    /// Its version.
    pub version: u64,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// The operation that recorded it: resources of one unit share it.
    pub operation: String,
    /// Its number in the unit.
    pub at: u32,
}

/// The key of a row of work: its kind, then its number, so that a scan gives it in the order recorded.
pub fn key(kind: Kind, sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(kind as u8);
    key.put_u64(sequence);
    key.freeze()
}

impl Work {
    /// The value of its row.
    ///
    /// # Errors
    /// A defect if it can't be written.
    pub fn encode(&self) -> Result<Bytes> {
        let mut value = self.resource.0.to_vec();
        serde_json::to_writer(&mut value, self).map_err(|_| Error::defect("work can't be written"))?;
        Ok(value.into())
    }

    /// Reads the value of a row.
    ///
    /// # Errors
    /// A defect if it is not one.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let broken = || Error::defect("a row of work is not what was written");
        let (key, rest) = value.split_first_chunk::<32>().ok_or_else(broken)?;
        let mut work: Self = serde_json::from_slice(rest).map_err(|_| broken())?;
        work.resource = ResourceKey(*key);
        Ok(work)
    }
}
