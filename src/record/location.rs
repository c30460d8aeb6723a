//! Where a version lies among the sealed bodies.
//!
//! Takes: the operation that names a row of bodies, the row, a place in it. Gives: the values of the rows by which a version is found.
//! Never: says what lies there.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Result};

/// Bytes of a [`Location`].
const LOCATION_BYTES: usize = 16 + 4 + 4;

/// Where a version lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// Its own, or that of another unit of the same commit.
    operation: [u8; 16],
    row: u32,
    at: u32,
}

impl Location {
    /// A version's place in a row of an operation.
    pub(super) fn new(operation: [u8; 16], row: u32, at: u32) -> Self {
        Self { operation, row, at }
    }

    /// Its bytes, as rows of [`Table::Resource`] and [`Table::Version`] hold them.
    pub(super) fn encode(&self) -> [u8; LOCATION_BYTES] {
        let mut bytes = [0; LOCATION_BYTES];
        bytes[..16].copy_from_slice(&self.operation);
        bytes[16..20].copy_from_slice(&self.row.to_be_bytes());
        bytes[20..].copy_from_slice(&self.at.to_be_bytes());
        bytes
    }

    /// From its bytes.
    pub(super) fn decode(bytes: &[u8; LOCATION_BYTES]) -> Self {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut operation = [0; 16];
        operation.copy_from_slice(&bytes[..16]);
        Self { operation, row: number(16), at: number(20) }
    }

    /// The key of the row.
    pub(super) fn key(&self) -> Bytes {
        [&self.operation[..], &self.row.to_be_bytes()].concat().into()
    }

    /// Which of the row's versions it is, from 0.
    pub(super) fn at(&self) -> u32 {
        self.at
    }
}

/// The value of a [`Table::Resource`](crate::store::Table) row: which version is the current one, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the current version.
    pub version: u64,
    /// Where it lies.
    pub location: Location,
}

impl Head {
    pub(super) fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(8 + LOCATION_BYTES);
        value.put_u64(self.version);
        value.put_slice(&self.location.encode());
        value.freeze()
    }

    /// # Errors
    /// A defect if it is not one.
    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let (version, location) = value.split_first_chunk::<8>().ok_or_else(broken)?;
        Ok(Self { version: u64::from_be_bytes(*version), location: location_of(location)? })
    }
}

/// Reads the value of a [`Table::Version`](crate::store::Table) row.
///
/// # Errors
/// A defect if it is not one.
pub(super) fn location_of(value: &[u8]) -> Result<Location> {
    value.try_into().map(Location::decode).map_err(|_| broken())
}

fn broken() -> Error {
    Error::defect("a row that says where a version lies is not what was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_its_bytes() {
        let location = Location::new([7; 16], 3, 70_000);
        assert_eq!(Location::decode(&location.encode()), location);
        assert_eq!(location.key().len(), 20);
    }

    #[test]
    fn a_head_is_its_bytes_and_not_less() {
        let head = Head { version: 9, location: Location::new([1; 16], 2, 3) };
        let value = head.encode();
        assert_eq!(Head::decode(&value).unwrap(), head);
        for length in 0..value.len() {
            assert!(Head::decode(&value[..length]).is_err());
        }
    }
}
