//! Versions of resources as rows.
//!
//! Takes: a resource's type, id and version. Gives: the keys of its rows, and where it lies among the sealed
//! bodies. Never: leaves anything of it in the clear: a row's key is a keyed hash.

use super::leaf::Opening;
use crate::consent::pseudonym::Pseudonym;
use crate::consent::subjects::Subjects;
use crate::keys::{HmacKey, Keys};
use bytes::{BufMut, Bytes, BytesMut};

/// What is known of a version beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// `meta.security` of the Bundle that it came in, as its JSON stood there: its labels too.
    pub labels: Option<String>,
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
}
