//! What settle still has to do.
//!
//! Takes: versions that were recorded. Gives: rows that stay until the work is done. Never: names a resource in the
//! clear.

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

/// A version that work is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The resource.
    pub resource: ResourceKey,
    /// Its version.
    pub version: u64,
}

/// Work on versions of units that were committed together, in their order. At least one, at most [`PIECES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// What is to be worked on.
    pub pieces: Vec<Piece>,
    /// What they have in common.
    pub shared: Shared,
}

/// What these versions have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// What its vendors add to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The subscribers who have had all of it, where that was too much for one commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
}

/// Versions in one row at most.
pub const PIECES_MAX: usize = 256;

/// Bytes of their bodies in one row at most, unless it is one alone: whoever works on a row holds them all, and what comes
/// of them for one subscriber must fit one commit.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What each subject of a version counts beside its body, in bytes: about what a decision keeps of it.
pub const SUBJECT_BYTES: usize = 512;

const PIECE_BYTES: usize = 32 + 8;

/// The key of a row of work: its kind, then its number, so that a scan gives it in the order recorded.
pub fn key(kind: Kind, sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(kind as u8);
    key.put_u64(sequence);
    key.freeze()
}

/// The number in the key of a row of work.
pub fn sequence(key: &[u8]) -> Option<u64> {
    key.split_first().and_then(|(_, number)| number.try_into().ok()).map(u64::from_be_bytes)
}

impl Work {
    /// The value of its row: the number of pieces (u16), each with its key and version (u64), then what they share as JSON.
    ///
    /// # Errors
    /// A defect if it can't be written.
    pub fn encode(&self) -> Result<Bytes> {
        let broken = || Error::defect("work can't be written");
        let mut value = Vec::with_capacity(2 + PIECE_BYTES * self.pieces.len() + 128);
        value.extend_from_slice(&u16::try_from(self.pieces.len()).map_err(|_| broken())?.to_be_bytes());
        for piece in &self.pieces {
            value.extend_from_slice(&piece.resource.0);
            value.extend_from_slice(&piece.version.to_be_bytes());
        }
        serde_json::to_writer(&mut value, &self.shared).map_err(|_| broken())?;
        Ok(value.into())
    }

    /// Reads the value of a row.
    ///
    /// # Errors
    /// A defect if it is not one.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let broken = || Error::defect("a row of work is not what was written");
        let (count, rest) = value.split_first_chunk::<2>().ok_or_else(broken)?;
        let length = PIECE_BYTES * usize::from(u16::from_be_bytes(*count));
        let (pieces, shared) = rest.split_at_checked(length).ok_or_else(broken)?;
        let pieces = pieces.as_chunks::<PIECE_BYTES>().0.iter().map(|bytes| {
            let (resource, version) = bytes.split_first_chunk::<32>()?;
            Some(Piece { resource: ResourceKey(*resource), version: u64::from_be_bytes(version.try_into().ok()?) })
        });
        Ok(Self {
            pieces: pieces.collect::<Option<_>>().ok_or_else(broken)?,
            shared: serde_json::from_slice(shared).map_err(|_| broken())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written_and_not_by_half() {
        let pieces = (0..3).map(|n| Piece { resource: ResourceKey([n; 32]), version: n.into() }).collect();
        let work = Work { pieces, shared: Shared { traceparent: None, tracestate: None, told: vec!["s".to_owned()] } };
        let value = work.encode().unwrap();
        assert_eq!(Work::decode(&value).unwrap(), work);
        for length in 0..value.len() {
            assert!(Work::decode(&value[..length]).is_err());
        }
    }
}
