//! Who else came in the same batch, collection or stream.
//!
//! Takes: `fullUrl`, type and id of each entry, in a first pass over the body. Gives: what a reference to a `fullUrl`
//! means, before the entry itself has been processed. Never: holds more than 64 bytes an entry, nor a `fullUrl`
//! itself: only its keyed hash.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use sluice_fhir::bundle::{Reason, Target};

/// The entries that can be referred to by a `fullUrl` that is not their final address (`urn:uuid:…`).
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Two independent keys: 128 bits, so that no stranger's `fullUrl` is ever taken for a neighbour's.
    hashers: [RandomState; 2],
    by_full_url: HashMap<[u64; 2], Slot>,
    types: Vec<Box<str>>,
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

    /// What a reference to `full_url` means.
    pub fn find(&self, full_url: &str) -> Option<Neighbour<'_>> {
        match self.by_full_url.get(&self.key(full_url))? {
            Slot::One { resource_type, id } => Some(Neighbour {
                resource_type: self.types.get(usize::from(*resource_type))?,
                id: uuid::Uuid::from_u128(*id),
            }),
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
    }
}
