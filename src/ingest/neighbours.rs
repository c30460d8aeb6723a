//! Who else came in the same batch, collection or stream.
//!
//! Takes: `fullUrl`, type and id of each entry, in a first pass over the body. Gives: what a reference to a `fullUrl`
//! means, before the entry itself has been processed. Never: holds more than 64 bytes an entry, nor a `fullUrl`
//! itself: only its keyed hash.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};

use sluice_fhir::bundle::{Reason, Target};

/// The entries that can be referred to by a `fullUrl` that is not their final address (`urn:uuid:…`).
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Two independent keys: 128 bits, so that no stranger's `fullUrl` is ever taken for a neighbour's.
    hashers: [RandomState; 2],
    by_full_url: HashMap<[u64; 2], Slot>,
    types: Vec<Box<str>>,
    /// Those that stand under another id than the one noted: they came before, and were not taken again.
    elsewhere: RwLock<HashMap<[u64; 2], u128>>,
    digest: Option<[u8; 32]>,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    /// The only entry with this hash.
    One { resource_type: u16, id: u128 },
    /// Two entries claim it: a reference to it means neither.
    Several,
}

/// Where a neighbour will stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour<'a> {
    /// Its type.
    pub resource_type: &'a str,
    /// The id that it will get.
    pub id: uuid::Uuid,
}

impl Neighbours {
    /// Notes that the entry with this `fullUrl` will stand under `id`.
    pub fn insert(&mut self, full_url: &str, resource_type: &str, id: uuid::Uuid) {
        let known = self.types.iter().position(|known| &**known == resource_type);
        let resource_type = known.unwrap_or_else(|| {
            self.types.push(resource_type.into());
            self.types.len() - 1
        });
        // More than 65,536 names of types are no FHIR: what can't be noted can't be referred to.
        let Ok(resource_type) = u16::try_from(resource_type) else { return };
        let slot = Slot::One { resource_type, id: id.as_u128() };
        self.by_full_url.entry(self.key(full_url)).and_modify(|slot| *slot = Slot::Several).or_insert(slot);
    }

    /// What all entries say, as one SHA-256: what tells an entry that means its neighbours, or is meant by them, from one
    /// of the same words in another batch. Never leaves the house but sealed or under a key.
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    /// Notes what all entries say.
    pub fn set_digest(&mut self, digest: Option<[u8; 32]>) {
        self.digest = digest;
    }

    /// Notes that the entry with this `fullUrl` stands under another id than was noted: the same was recorded before. Who
    /// has asked already was told the other.
    pub fn stands(&self, full_url: &str, id: uuid::Uuid) {
        let key = self.key(full_url);
        if matches!(self.by_full_url.get(&key), Some(Slot::One { id: noted, .. }) if *noted != id.as_u128()) {
            self.elsewhere.write().unwrap_or_else(PoisonError::into_inner).insert(key, id.as_u128());
        }
    }

    /// What a reference to `full_url` means.
    pub fn find(&self, full_url: &str) -> Option<Neighbour<'_>> {
        let key = self.key(full_url);
        match self.by_full_url.get(&key)? {
            Slot::One { resource_type, id } => {
                let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
                let resource_type = self.types.get(usize::from(*resource_type))?;
                Some(Neighbour { resource_type, id: uuid::Uuid::from_u128(elsewhere.unwrap_or(*id)) })
            }
            Slot::Several => None,
        }
    }

    /// What a reference means that leads out of its unit to `target`.
    pub fn meant(&self, reference: &str, target: Target<'_>) -> Option<Neighbour<'_>> {
        match target {
            Target::Absolute(_) | Target::Unresolvable(Reason::UnknownUrn) => self.find(reference),
            _ => None,
        }
    }

    fn key(&self, full_url: &str) -> [u64; 2] {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(full_url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_url_that_two_claim_means_neither() {
        let mut neighbours = Neighbours::default();
        let id = uuid::Uuid::from_u128(7);
        neighbours.insert("urn:uuid:a", "Patient", id);
        neighbours.insert("urn:uuid:b", "Patient", id);
        neighbours.insert("urn:uuid:b", "Observation", id);
        assert_eq!(neighbours.find("urn:uuid:a"), Some(Neighbour { resource_type: "Patient", id }));
        assert_eq!(neighbours.find("urn:uuid:b"), None);
        assert_eq!(neighbours.find("urn:uuid:c"), None);
        let before = uuid::Uuid::from_u128(8);
        for name in ["urn:uuid:a", "urn:uuid:b", "urn:uuid:c"] {
            neighbours.stands(name, before);
        }
        assert_eq!(neighbours.find("urn:uuid:a"), Some(Neighbour { resource_type: "Patient", id: before }));
        assert_eq!((neighbours.find("urn:uuid:b"), neighbours.find("urn:uuid:c")), (None, None));
    }
}
