//! The leaves of an embedded ledger's log.
//!
//! Takes: an operation, or the map's root. Gives: the bytes that become a leaf, and reads them back. Never: more than
//! 64 KiB, since C2SP tlog-tiles gives an entry a 16-bit length.

use super::codec::{Malformed, Reader, Writer};
use super::ids::{Origin, Timestamp};
use super::records::SignedOp;
use super::signature::PublicKey;

const FORMAT: u8 = 1;
const TAG_GENESIS: u8 = 1;
const TAG_OP: u8 = 2;
const TAG_MAP_HEAD: u8 = 3;

/// A leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The first leaf: which ledger this is and who administers it.
    Genesis(Genesis),
    /// An operation, and the ledger's time of it, by which validity was judged.
    Op { time: Timestamp, op: SignedOp },
    /// The root of the prefix map over all subjects, as of the leaves before this one.
    MapHead(MapHead),
}

/// Which ledger this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Genesis {
    pub(crate) ledger: Origin,
    pub(crate) administrator: PublicKey,
    /// Ed25519, signs the checkpoints.
    pub(crate) checkpoint_key: [u8; 32],
    pub(crate) time: Timestamp,
}

/// The map's root and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapHead {
    pub(crate) time: Timestamp,
    /// Leaves covered; equal to this leaf's own index.
    pub(crate) covers: u64,
    pub(crate) root: [u8; 32],
}

impl Entry {
    /// Longest form, in bytes.
    pub(crate) const BYTES_MAX: usize = 16 + SignedOp::BYTES_MAX;

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(FORMAT);
        match self {
            Self::Genesis(genesis) => {
                out.u8(TAG_GENESIS);
                genesis.ledger.write(&mut out);
                genesis.administrator.write(&mut out);
                out.fixed(&genesis.checkpoint_key).u64(genesis.time.0);
            }
            Self::Op { time, op } => return op_bytes(*time, &op.to_bytes()),
            Self::MapHead(head) => {
                out.u8(TAG_MAP_HEAD).u64(head.time.0).u64(head.covers).fixed(&head.root);
            }
        }
        out.finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let mut input = Reader::new(bytes);
        if input.u8()? != FORMAT {
            return Err(Malformed::Tag);
        }
        let entry = match input.u8()? {
            TAG_GENESIS => Self::Genesis(Genesis {
                ledger: Origin::read(&mut input)?,
                administrator: PublicKey::read(&mut input)?,
                checkpoint_key: input.array()?,
                time: Timestamp(input.u64()?),
            }),
            TAG_OP => {
                let time = Timestamp(input.u64()?);
                return Ok(Self::Op { time, op: SignedOp::from_bytes(input.rest())? });
            }
            TAG_MAP_HEAD => {
                Self::MapHead(MapHead { time: Timestamp(input.u64()?), covers: input.u64()?, root: input.array()? })
            }
            _ => return Err(Malformed::Tag),
        };
        input.finish()?;
        Ok(entry)
    }
}

/// An operation's leaf from its bytes, which the submitter has made already.
pub(crate) fn op_bytes(time: Timestamp, signed: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(FORMAT).u8(TAG_OP).u64(time.0).fixed(signed);
    out.finish()
}
