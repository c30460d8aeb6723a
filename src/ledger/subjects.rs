//! Subject records in memory, at most 100 bytes each all in, under the prefix map that proves them.
//!
//! Takes: records. Gives: look-ups, the map's root, proofs. Never: holds a key set more than once; what most patients
//! share (no keys, filed by the same house) is one allocation for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_merkle::Hash;
use sluice_merkle::map::{Map, MapProof, Value};

use super::ids::{Name, Pseudonym};
use super::records::{FiledBy, SubjectRecord, SubjectState};
use super::signature::PublicKey;

/// All subjects, compact.
#[derive(Debug, Default)]
pub struct Subjects {
    map: Map<Row>,
    /// The parts of patients without keys, by the house that filed.
    keyless: HashMap<Name, Arc<Apart>>,
}

/// A record without its pseudonym: 48 bytes.
#[derive(Debug, Clone)]
struct Row {
    consent_root: [u8; 32],
    apart: Arc<Apart>,
    version: u32,
    state: SubjectState,
}

/// What is kept apart from the rows.
#[derive(Debug)]
struct Apart {
    keys: Vec<PublicKey>,
    filed_by: FiledBy,
}

impl Subjects {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The record of one.
    pub fn get(&self, pseudonym: &Pseudonym) -> Option<SubjectRecord> {
        self.map.get(&pseudonym.0).map(|row| row.record(*pseudonym))
    }

    /// Version and state of one, without an allocation.
    pub fn version(&self, pseudonym: &Pseudonym) -> Option<(u64, SubjectState)> {
        self.map.get(&pseudonym.0).map(|row| (u64::from(row.version), row.state))
    }

    /// Puts records, the last one winning, and gives the map's root after them.
    pub fn update(&mut self, records: impl IntoIterator<Item = SubjectRecord>) -> Hash {
        let Self { map, keyless } = self;
        map.update(records.into_iter().map(|record| (record.pseudonym.0, Row::new(record, keyless))))
    }

    /// The root over all records.
    pub fn root(&self) -> Hash {
        self.map.root()
    }

    /// The proof of what [`Self::get`] says.
    pub fn prove(&self, pseudonym: &Pseudonym) -> MapProof {
        self.map.prove(&pseudonym.0)
    }

    /// All of them, ascending by pseudonym.
    pub fn iter(&self) -> impl Iterator<Item = SubjectRecord> {
        self.map.iter().map(|(key, row)| row.record(Pseudonym(*key)))
    }
}

impl Row {
    fn new(record: SubjectRecord, keyless: &mut HashMap<Name, Arc<Apart>>) -> Self {
        let SubjectRecord { version, state, consent_root, keys, filed_by, .. } = record;
        let apart = match &filed_by {
            FiledBy::Attested(house) if keys.is_empty() => {
                let house = house.clone();
                Arc::clone(keyless.entry(house).or_insert_with(|| Arc::new(Apart { keys, filed_by })))
            }
            FiledBy::Attested(_) | FiledBy::Patient => Arc::new(Apart { keys, filed_by }),
        };
        // The format bounds versions to 32 bits.
        Self { consent_root, apart, version: u32::try_from(version).unwrap_or(u32::MAX), state }
    }

    fn record(&self, pseudonym: Pseudonym) -> SubjectRecord {
        SubjectRecord {
            pseudonym,
            version: u64::from(self.version),
            state: self.state,
            consent_root: self.consent_root,
            keys: self.apart.keys.clone(),
            filed_by: self.apart.filed_by.clone(),
        }
    }
}

impl Value for Row {
    fn value_hash(&self) -> Hash {
        self.record(Pseudonym([0; 32])).value_hash()
    }
}
