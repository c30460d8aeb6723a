//! Mapping packs: files, read once, before a port is bound.
//!
//! Takes: JSON files, each of one kind, and the base of the tenant's own URLs. Gives: [`Mappings`], the rules of all
//! packs put together, each remembering its pack. Never: takes packs whose order would change what comes out, or whose
//! second application would change what the first has made; such a pair is an error that names both.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::codes::Codes;
use super::identifiers::Identifiers;
use super::references::References;
use super::table::Wrong;
use super::units::Units;
use crate::config;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Packs of one gateway.
const PACKS_MAX: usize = 64;

/// The schema of each kind of pack.
const SCHEMAS: [(&str, &str); 4] = [
    ("codes", include_str!("../../mappings/schema/codes.json")),
    ("identifiers", include_str!("../../mappings/schema/identifiers.json")),
    ("references", include_str!("../../mappings/schema/references.json")),
    ("units", include_str!("../../mappings/schema/units.json")),
];

/// The mapping packs of a gateway. Shared between threads.
#[derive(Debug, Default)]
pub struct Mappings {
    packs: Vec<(String, String)>,
    pub(super) identifiers: Identifiers,
    pub(super) codes: Codes,
    pub(super) units: Units,
    pub(super) references: References,
}

/// What is wrong with the mapping packs.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// A file cannot be read.
    #[error("{}: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not a pack, or does not go with the packs before it.
    #[error("{}: at `{pointer}`: {expected}", file.display())]
    Pack {
        /// Which.
        file: PathBuf,
        /// Where in it: a JSON pointer.
        pointer: String,
        /// What was expected.
        expected: String,
    },
}

/// What every pack begins with.
#[derive(Deserialize)]
struct Head {
    id: String,
    version: String,
    kind: String,
}

impl Mappings {
    /// Reads the packs that the settings name, in their order; `base` is the tenant's own FHIR base.
    ///
    /// # Errors
    /// The first file that is no pack or does not go with those before it, and where.
    pub fn load(settings: &config::Normalize, base: &str) -> Result<Self, MappingError> {
        let mut files = Vec::with_capacity(settings.mappings.len());
        for file in &settings.mappings {
            files.push((file.as_path(), text(file)?));
        }
        Self::read(&files, base)
    }

    /// Reads packs that are in memory; the path of each serves to name it.
    ///
    /// # Errors
    /// As [`Mappings::load`].
    pub fn read(files: &[(&Path, Vec<u8>)], base: &str) -> Result<Self, MappingError> {
        let mut mappings = Self { references: References::of(base), ..Self::default() };
        for (file, text) in files {
            mappings.add(text).map_err(|(pointer, expected)| MappingError::Pack {
                file: (*file).to_owned(),
                pointer,
                expected,
            })?;
        }
        Ok(mappings)
    }

    /// The identifier systems that the consortium shares, the most telling first.
    pub fn shared_systems(&self) -> Vec<String> {
        self.identifiers.shared()
    }

    /// Id and version of each pack, in the order of the settings.
    pub fn packs(&self) -> &[(String, String)] {
        &self.packs
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    fn add(&mut self, text: &[u8]) -> Result<(), Wrong> {
        let top = |expected: String| (String::new(), expected);
        if self.packs.len() == PACKS_MAX {
            return Err(top(format!("at most {PACKS_MAX} packs")));
        }
        let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| top(format!("JSON: {error}")))?;
        let kind = value.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default();
        let Some((_, schema)) = SCHEMAS.iter().find(|(known, _)| *known == kind) else {
            let kinds = SCHEMAS.map(|(kind, _)| format!("`{kind}`")).join(", ");
            return Err(("/kind".to_owned(), format!("one of {kinds}")));
        };
        fits(&value, schema)?;
        let head: Head = typed(&value)?;
        if self.packs.iter().any(|(id, _)| *id == head.id) {
            return Err(("/id".to_owned(), "an id that no pack before it has".to_owned()));
        }
        let pack = self.packs.len();
        match &*head.kind {
            "identifiers" => self.identifiers.add(pack, typed(&value)?)?,
            "codes" => self.codes.add(pack, &typed(&value)?)?,
            "units" => self.units.add(pack, typed(&value)?)?,
            _ => self.references.add(pack, &typed(&value)?)?,
        }
        self.packs.push((head.id, head.version));
        Ok(())
    }
}

fn text(file: &Path) -> Result<Vec<u8>, MappingError> {
    let at = |error| MappingError::File { file: file.to_owned(), error };
    if std::fs::metadata(file).map_err(at)?.len() > FILE_BYTES_MAX {
        let expected = format!("at most {FILE_BYTES_MAX} bytes");
        return Err(MappingError::Pack { file: file.to_owned(), pointer: String::new(), expected });
    }
    std::fs::read(file).map_err(at)
}

fn fits(value: &serde_json::Value, schema: &str) -> Result<(), Wrong> {
    let own = |_| (String::new(), "a schema of ours that can be read".to_owned());
    let schema: serde_json::Value = serde_json::from_str(schema).map_err(own)?;
    let schema = jsonschema::validator_for(&schema)
        .map_err(|error| (String::new(), format!("a schema of ours that is one: {error}")))?;
    match schema.iter_errors(value).next() {
        None => Ok(()),
        Some(error) => Err((error.instance_path().to_string(), error.to_string())),
    }
}

fn typed<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Wrong> {
    T::deserialize(value).map_err(|error| (String::new(), error.to_string()))
}
