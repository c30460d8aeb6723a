//! Bodies: the versions of one commit about the same patients, sealed together.
//!
//! Takes: versions of one unit, or of several, with what is known of them. Gives: rows of [`Table::Body`], where in them each version
//! lies, and a version back. Never: puts versions about different patients under one seal, since destroying one
//! patient's key must destroy what is about her and nothing else; leaves anything in the clear but how many there are.
//!
//! A seal costs as much as writing some thousand bytes, and a row as much again, so a unit of hundreds of small resources
//! about one patient has a dozen seals, not hundreds. A row holds some 64 KiB, so that reading one version opens no more
//! than that.
//!
//! The plaintext: what all have in common, led by its length; then for each version the lengths of what is known of it and
//! of its body, and both. Lengths are u32, big-endian.

use std::collections::HashMap;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::ids;
use super::leaf::{Opening, SubjectOpening, unhex};
use super::location::Location;
use super::version::{About, Version};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::store::keystore::SubjectKey;
use crate::store::vault::{Sealers, place};
use crate::store::{Batch, Table};

/// A row takes no further version once it holds this much.
const ROW_BYTES: usize = 64 << 10;

/// What the versions in one row have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Common {
    recorded_at: String,
    subjects: Vec<Pseudonym>,
    unattributed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<String>,
    sender: String,
}

/// The bodies of a commit, while it is being made.
pub(super) struct Bodies {
    operation: [u8; 16],
    rows: u32,
    /// By whom they are about, who sent them, and how the Bundle around them is labelled.
    groups: HashMap<(Vec<Pseudonym>, bool, String, Option<String>), Group>,
}

/// Versions about the same patients.
struct Group {
    subjects: Vec<SubjectKey>,
    /// What every row of the group begins with.
    lead: Vec<u8>,
    /// The row that is being filled: its number, and how many versions it holds.
    row: u32,
    held: u32,
    plain: Vec<u8>,
}

impl Bodies {
    /// Named by the operation with this id.
    pub(super) fn new(operation: &[u8; 16]) -> Self {
        Self { operation: *operation, rows: 0, groups: HashMap::new() }
    }

    /// Adds a version, and its row to the batch once that is full; gives where it will lie.
    ///
    /// # Errors
    /// An outage of the keystore.
    pub(super) fn add(
        &mut self,
        about: &About,
        body: &[u8],
        sealers: &mut Sealers<'_>,
        batch: &mut Batch,
    ) -> Result<Location> {
        let whom = (about.subjects.clone(), about.unattributed, about.sender.clone(), about.labels.clone());
        let group = match self.groups.entry(whom) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let subjects = ids(&about.subjects);
                new.insert(Group { subjects, lead: lead(about)?, row: 0, held: 0, plain: Vec::new() })
            }
        };
        if group.held == 0 {
            group.row = self.rows;
            self.rows += 1;
            group.plain.clear();
            group.plain.extend_from_slice(&group.lead);
        }
        let location = Location::new(self.operation, group.row, group.held);
        write(about, body, &mut group.plain)?;
        group.held += 1;
        if group.plain.len() >= ROW_BYTES {
            group.seal(self.operation, sealers, batch)?;
        }
        Ok(location)
    }

    /// Adds the rows that are not full.
    ///
    /// # Errors
    /// A defect if sealing fails.
    pub(super) fn finish(mut self, sealers: &mut Sealers<'_>, batch: &mut Batch) -> Result<()> {
        let mut open = self.groups.values_mut().filter(|group| group.held > 0);
        open.try_for_each(|group| group.seal(self.operation, sealers, batch))
    }
}

impl Group {
    fn seal(&mut self, operation: [u8; 16], sealers: &mut Sealers<'_>, batch: &mut Batch) -> Result<()> {
        let key = Location::new(operation, self.row, 0).key();
        let sealer = sealers.of(&self.subjects)?;
        let value = sealer.seal(&place(Table::Body, &key), &self.plain)?;
        self.held = 0;
        batch.add_put(Table::Body, key, value);
        Ok(())
    }
}

/// The version at this place of a row that was opened.
///
/// # Errors
/// A defect if there is none.
pub(super) fn version(plain: &Bytes, at: u32) -> Result<Version> {
    let mut reader = Reader { plain, at: 0 };
    let common: Common = serde_json::from_slice(reader.piece()?).map_err(|_| broken())?;
    for _ in 0..at {
        let [about, body] = reader.lengths()?;
        reader.take(about)?;
        reader.take(body)?;
    }
    let [about, body] = reader.lengths()?;
    let about = read(&mut Reader { plain: &reader.take(about)?, at: 0 }, common)?;
    Ok(Version { about, body: reader.take(body)? })
}

fn lead(about: &About) -> Result<Vec<u8>> {
    let common = Common {
        recorded_at: about.recorded_at.clone(),
        subjects: about.subjects.clone(),
        unattributed: about.unattributed,
        labels: about.labels.clone(),
        sender: about.sender.clone(),
    };
    let text =
        serde_json::to_vec(&common).map_err(|_| Error::defect("what versions have in common can't be written"))?;
    let mut lead = Vec::with_capacity(4 + text.len());
    piece(&text, &mut lead)?;
    Ok(lead)
}

/// Appends a version: two lengths, what is known of it, its body.
fn write(about: &About, body: &[u8], plain: &mut Vec<u8>) -> Result<()> {
    let lengths = plain.len();
    plain.extend_from_slice(&[0; 8]);
    piece(about.resource_type.as_bytes(), plain)?;
    piece(about.id.as_bytes(), plain)?;
    piece(about.operation.as_bytes(), plain)?;
    plain.extend_from_slice(&about.version.to_be_bytes());
    plain.push(u8::from(about.upstream_version.is_some()));
    piece(about.upstream_version.as_deref().unwrap_or_default().as_bytes(), plain)?;
    let hex = |text: &str| unhex(text).ok_or_else(|| Error::defect("a leaf's numbers are not hexadecimal"));
    plain.extend_from_slice(&hex(&about.commitment)?);
    plain.extend_from_slice(&hex(&about.opening.r)?);
    piece(about.opening.record.as_bytes(), plain)?;
    plain.extend_from_slice(&number(about.opening.subjects.len())?);
    for subject in &about.opening.subjects {
        plain.extend_from_slice(&hex(&subject.s)?);
        plain.extend_from_slice(&hex(&subject.subject)?);
        plain.extend_from_slice(&subject.n.to_be_bytes());
    }
    let head = number(plain.len() - lengths - 8)?;
    plain[lengths..lengths + 4].copy_from_slice(&head);
    plain[lengths + 4..lengths + 8].copy_from_slice(&number(body.len())?);
    plain.extend_from_slice(body);
    Ok(())
}

fn read(head: &mut Reader<'_>, common: Common) -> Result<About> {
    let resource_type = head.text()?;
    let id = head.text()?;
    let operation = head.text()?;
    let version = u64::from_be_bytes(head.array()?);
    let [has_upstream_version] = head.array()?;
    let upstream_version = head.text()?;
    let commitment = HEXLOWER.encode(&head.array::<32>()?);
    let r = HEXLOWER.encode(&head.array::<32>()?);
    let record = head.text()?;
    let mut subjects = Vec::new();
    for _ in 0..u32::from_be_bytes(head.array()?) {
        let s = HEXLOWER.encode(&head.array::<32>()?);
        let subject = HEXLOWER.encode(&head.array::<32>()?);
        subjects.push(SubjectOpening { s, subject, n: u64::from_be_bytes(head.array()?) });
    }
    let Common { recorded_at, subjects: whom, unattributed, labels, sender } = common;
    Ok(About {
        resource_type,
        id,
        version,
        upstream_version: (has_upstream_version != 0).then_some(upstream_version),
        recorded_at,
        subjects: whom,
        unattributed,
        labels,
        sender,
        operation,
        commitment,
        opening: Opening { r, record, subjects },
    })
}

fn piece(bytes: &[u8], plain: &mut Vec<u8>) -> Result<()> {
    plain.extend_from_slice(&number(bytes.len())?);
    plain.extend_from_slice(bytes);
    Ok(())
}

fn number(length: usize) -> Result<[u8; 4]> {
    let length = u32::try_from(length).map_err(|_| Error::defect("a part of a version is too long"))?;
    Ok(length.to_be_bytes())
}

struct Reader<'a> {
    plain: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = self.plain.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).ok_or_else(broken)?;
        self.at += N;
        Ok(*rest)
    }

    fn lengths(&mut self) -> Result<[usize; 2]> {
        let mut length = || usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| broken());
        Ok([length()?, length()?])
    }

    /// The next bytes; they share the row's.
    fn take(&mut self, length: usize) -> Result<Bytes> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.plain.len()).ok_or_else(broken)?;
        let taken = self.plain.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn piece(&mut self) -> Result<&[u8]> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| broken())?;
        let start = self.at;
        self.take(length)?;
        self.plain.get(start..self.at).ok_or_else(broken)
    }

    fn text(&mut self) -> Result<String> {
        std::str::from_utf8(self.piece()?).map(str::to_owned).map_err(|_| broken())
    }
}

fn broken() -> Error {
    Error::defect("a row of bodies is not what was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(n: u64) -> About {
        let number = HEXLOWER.encode(&[u8::try_from(n).unwrap(); 32]);
        About {
            resource_type: "Observation".to_owned(),
            id: n.to_string(),
            version: n,
            upstream_version: (n == 2).then(|| "v2".to_owned()),
            recorded_at: "2026-01-01T00:00:00.000Z".to_owned(),
            subjects: vec![Pseudonym([1; 32])],
            unattributed: false,
            labels: Some("[]".to_owned()),
            sender: "hospital-a".to_owned(),
            operation: "operation".to_owned(),
            commitment: number.clone(),
            opening: Opening {
                r: number.clone(),
                record: format!("{{\"n\":{n}}}"),
                subjects: vec![SubjectOpening { s: number.clone(), subject: number, n }],
            },
        }
    }

    #[test]
    fn each_version_of_a_row_is_read_by_its_place() {
        let mut plain = lead(&about(0)).unwrap();
        let bodies: Vec<Vec<u8>> = (0..4_u8).map(|n| vec![n; usize::from(n) * 3]).collect();
        for (n, body) in bodies.iter().enumerate() {
            write(&about(n as u64), body, &mut plain).unwrap();
        }
        let plain = Bytes::from(plain);
        for (n, body) in (0..4_u32).zip(&bodies) {
            let found = version(&plain, n).unwrap();
            assert_eq!(found.about, about(n.into()));
            assert_eq!(&found.body[..], &body[..]);
        }
        assert!(version(&plain, 4).is_err());
        for length in 0..plain.len() {
            assert!(version(&plain.slice(..length), 3).is_err(), "cut at {length}");
        }
    }
}
