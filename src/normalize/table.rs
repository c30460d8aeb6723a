//! What the tables of all kinds of packs share.
//!
//! Takes: names with what they mean. Gives: an error for a name that stands twice. Never: lets a later pack change what
//! an earlier one says.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use sluice_fhir::outcome::Severity;

/// What becomes of a value that a pack speaks of and cannot map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unmapped {
    /// It stays as it is.
    Ignore,
    /// It stays as it is, with a warning.
    #[default]
    Report,
    /// The unit is refused.
    Refuse,
}

impl Unmapped {
    pub(super) fn severity(self) -> Option<Severity> {
        match self {
            Self::Ignore => None,
            Self::Report => Some(Severity::Warning),
            Self::Refuse => Some(Severity::Error),
        }
    }
}

/// What is wrong at a place of a pack: a JSON pointer, and what was expected.
pub(super) type Wrong = (String, String);

/// What a table holds twice: by name, the pointer at which it stood first.
pub(super) fn once<V>(table: &mut HashMap<String, V>, name: String, value: V, pointer: String) -> Result<(), Wrong> {
    if table.contains_key(&name) {
        return Err((pointer, format!("`{name}` once in all packs")));
    }
    table.insert(name, value);
    Ok(())
}

/// As [`once`], for ranks.
pub(super) fn ranked(ranks: &mut BTreeMap<u32, String>, rank: u32, name: &str, pointer: String) -> Result<(), Wrong> {
    match ranks.insert(rank, name.to_owned()) {
        None => Ok(()),
        Some(other) => Err((pointer, format!("a rank of its own; `{other}` has it"))),
    }
}
