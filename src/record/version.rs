//! Versions of resources as rows.
//!
//! Takes: a resource as stored, whom it is about, and what opens its leaf. Gives: the sealed value of a
//! [`Table::Version`](crate::store::Table) row, and the parts of one that was opened. Never: leaves anything of it in
//! the clear: a row's key is a keyed hash.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::leaf::Opening;
use crate::consent::pseudonym::Pseudonym;
use crate::consent::subjects::Subjects;
use crate::error::{Error, Result};
use crate::keys::{HmacKey, Keys};
use crate::store::Table;
use crate::store::vault::place;

/// What is known of a version beside its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its type.
    pub resource_type: String,
    /// Its id.
    pub id: String,
    /// Its version, from 1.
    pub version: u64,
    /// Its version at the upstream, as that writes it.
    pub upstream_version: Option<String>,
    /// When it was recorded: RFC 3339, UTC.
    pub recorded_at: String,
    /// The patients that it is about.
    pub subjects: Vec<Pseudonym>,
    /// Whether it should name a patient and names none that can be known; then it is never disclosed.
    pub unattributed: bool,
    /// The institution that sent it.
    pub sender: String,
    /// The operation that recorded it.
    pub operation: String,
    /// The commitment of its leaf, lower-case hex.
    pub commitment: String,
    /// What opens it.
    pub opening: Opening,
}

impl About {
    /// Whom it is about.
    pub fn whom(&self) -> Subjects {
        match (self.unattributed, &self.subjects[..]) {
            (true, _) => Subjects::Unattributed,
            (false, []) => Subjects::Nobody,
            (false, subjects) => Subjects::Of(subjects.to_vec()),
        }
    }
}

/// A version, opened.
#[derive(Debug, Clone)]
pub struct Version {
    /// What is known of it.
    pub about: About,
    /// The resource as stored: JSON.
    pub body: Bytes,
}

/// The keyed hash that stands for a resource in keys of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey(pub [u8; 32]);

impl ResourceKey {
    /// Of this type and id.
    pub fn of(keys: &Keys, resource_type: &str, id: &str) -> Self {
        Self(keys.hmac(HmacKey::Index, &[b"resource", resource_type.as_bytes(), id.as_bytes()]))
    }

    /// The key of the row that says which version is the current one.
    pub fn head(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The key of the row of one version.
    pub fn version(&self, version: u64) -> Bytes {
        let mut key = BytesMut::with_capacity(40);
        key.put_slice(&self.0);
        key.put_u64(version);
        key.freeze()
    }

    /// What the seal of a version's row is bound to, so that rows can't be swapped.
    pub fn aad(&self, version: u64) -> Vec<u8> {
        place(Table::Version, &self.version(version))
    }
}

/// The value of a [`Table::Resource`] row: the number of the current version.
pub fn head_value(version: u64) -> Bytes {
    Bytes::copy_from_slice(&version.to_be_bytes())
}

/// Reads the value of a [`Table::Resource`] row.
///
/// # Errors
/// A defect if it is not one.
pub fn head_version(value: &[u8]) -> Result<u64> {
    let bytes = value.try_into().map_err(|_| Error::defect("a head row is not 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The plaintext of a version's row: the length of the first part, what is known, the body.
///
/// # Errors
/// A defect if `about` can't be written.
pub fn encode(about: &About, body: &[u8]) -> Result<Vec<u8>> {
    let head = serde_json::to_vec(about).map_err(|_| Error::defect("a version can't be written"))?;
    let length = u32::try_from(head.len()).map_err(|_| Error::defect("a version's head is too long"))?;
    let mut plain = Vec::with_capacity(4 + head.len() + body.len());
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(&head);
    plain.extend_from_slice(body);
    Ok(plain)
}

/// Reads the plaintext of a version's row.
///
/// # Errors
/// A defect if it is not one.
pub fn decode(plain: Vec<u8>) -> Result<Version> {
    let plain = Bytes::from(plain);
    let broken = || Error::defect("a version's row is not what was written");
    let (length, _) = plain.split_first_chunk::<4>().ok_or_else(broken)?;
    let end = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| broken())?.saturating_add(4);
    if end > plain.len() {
        return Err(broken());
    }
    let about = serde_json::from_slice(&plain[4..end]).map_err(|_| broken())?;
    Ok(Version { about, body: plain.slice(end..) })
}
