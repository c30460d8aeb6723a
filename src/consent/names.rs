//! By which names the patients of this tenant are known.
//!
//! Takes: a name that a reference uses, and the row that stands under its keyed hash ([`Table::LocalId`]). Gives: who has
//! borne that name. Never: forgets a bearer: a name that went over from one patient to another means both, so that what is
//! told under it needs the permit of both.
//!
//! [`Table::LocalId`]: crate::store::Table::LocalId

use bytes::Bytes;
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::Node;

use super::identify::identifiers;
use super::pseudonym::{Pseudonym, each_once};
use crate::keys::{HmacKey, Keys};
use crate::normalize::percent_decoded;

/// The most patients that one name is kept for. One that more have borne names nobody any more.
const BEARERS_MAX: usize = 8;

/// A name of a patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// `Patient/[id]` as it stands here, or at the upstream: the same for every caller.
    Here(&'a str),
    /// An identifier, as conditional and logical references use it.
    Identifier {
        /// Its system; empty if it has none.
        system: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// A reference that means the patient to its sender alone: by an id that was not kept, or by its `fullUrl`.
    Theirs {
        /// The sender's institution.
        caller: &'a str,
        /// `Patient/[id]`, or a URL.
        reference: &'a str,
    },
}

impl Name<'_> {
    /// The key of its row.
    pub fn key(&self, keys: &Keys) -> Bytes {
        let hash = match self {
            Self::Here(id) => keys.hmac(HmacKey::Index, &[b"local-id", b"Patient", id.as_bytes()]),
            Self::Identifier { system, value } => {
                keys.hmac(HmacKey::Index, &[b"local-id", b"Patient.identifier", system.as_bytes(), value.as_bytes()])
            }
            Self::Theirs { caller, reference } => {
                keys.hmac(HmacKey::Index, &[b"local-id", b"theirs", caller.as_bytes(), reference.as_bytes()])
            }
        };
        Bytes::copy_from_slice(&hash)
    }
}

/// Who has borne a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearers {
    /// Nobody who was recorded.
    Nobody,
    /// These; sorted, at least one.
    These(Vec<Pseudonym>),
    /// More than are kept, or a row that can't be read.
    TooMany,
}

impl Bearers {
    /// Reads a row.
    pub fn of(row: Option<&[u8]>) -> Self {
        let Some(row) = row else { return Self::Nobody };
        let (bearers, rest) = row.as_chunks::<32>();
        if bearers.is_empty() || !rest.is_empty() {
            return Self::TooMany;
        }
        Self::These(bearers.iter().map(|it| Pseudonym(*it)).collect())
    }

    /// The row once these have borne the name as well.
    pub fn row_with(self, more: &[Pseudonym]) -> Vec<u8> {
        let mut bearers = match self {
            Self::Nobody => Vec::new(),
            Self::These(bearers) => bearers,
            Self::TooMany => return vec![0],
        };
        bearers.extend_from_slice(more);
        let bearers = each_once(bearers);
        if bearers.len() > BEARERS_MAX { vec![0] } else { bearers.iter().flat_map(|it| it.0).collect() }
    }

    /// Those of both names.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, other) | (other, Self::Nobody) => other,
            (Self::These(mut these), Self::These(others)) => {
                these.extend(others);
                Self::These(each_once(these))
            }
            (Self::TooMany, _) | (_, Self::TooMany) => Self::TooMany,
        }
    }
}

/// The keys of all names by which callers may mean a Patient later that stands under `id`: that, its identifiers, and for
/// its sender the id that it came with and its `fullUrl`.
pub fn all(keys: &Keys, caller: &str, id: &str, patient: Node<'_>, full_url: Option<&str>) -> Vec<Bytes> {
    let mut found = vec![Name::Here(id).key(keys)];
    for (system, value) in identifiers(patient) {
        found.push(Name::Identifier { system: &system, value: &value }.key(keys));
    }
    let carried = patient.member("id").and_then(Node::as_str).filter(|carried| **carried != *id && is_id(carried));
    if let Some(carried) = carried {
        found.push(Name::Theirs { caller, reference: &format!("Patient/{carried}") }.key(keys));
    }
    // An urn:uuid is a name within its Bundle only.
    if let Some(reference) = full_url.filter(|url| url.starts_with("http")) {
        found.push(Name::Theirs { caller, reference }.key(keys));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The system and the value of a search by `identifier=[system]|[value]` (FHIR R4 search.html#token). Other parameters
/// are not read, so that no condition is left out in silence.
pub fn searched(query: &str) -> Option<(String, String)> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let value = query.strip_prefix("identifier=").filter(|it| !it.contains(['&', ',']))?;
    let value = percent_decoded(&value.replace('+', " "))?;
    let (system, value) = value.split_once('|')?;
    (!value.is_empty()).then(|| (system.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(numbers: &[u8]) -> Bearers {
        Bearers::These(numbers.iter().map(|it| Pseudonym([*it; 32])).collect())
    }

    #[test]
    fn a_name_keeps_all_who_bore_it_until_they_are_too_many() {
        let mut row = Bearers::Nobody.row_with(&[Pseudonym([2; 32])]);
        assert_eq!(Bearers::of(Some(&row)), these(&[2]));
        row = Bearers::of(Some(&row)).row_with(&[Pseudonym([1; 32]), Pseudonym([2; 32])]);
        assert_eq!(Bearers::of(Some(&row)), these(&[1, 2]));
        for number in 3..=8 {
            row = Bearers::of(Some(&row)).row_with(&[Pseudonym([number; 32])]);
        }
        assert_eq!(Bearers::of(Some(&row)), these(&[1, 2, 3, 4, 5, 6, 7, 8]));
        row = Bearers::of(Some(&row)).row_with(&[Pseudonym([9; 32])]);
        assert_eq!(Bearers::of(Some(&row)), Bearers::TooMany);
        row = Bearers::of(Some(&row)).row_with(&[Pseudonym([1; 32])]);
        assert_eq!(Bearers::of(Some(&row)), Bearers::TooMany, "for good");
    }

    #[test]
    fn a_row_that_is_cut_names_nobody() {
        assert_eq!(Bearers::of(None), Bearers::Nobody);
        for row in [&[][..], &[0], &[7; 31], &[7; 33]] {
            assert_eq!(Bearers::of(Some(row)), Bearers::TooMany);
        }
    }

    #[test]
    fn two_names_mean_all_who_bore_either() {
        assert_eq!(these(&[1]).and(these(&[2])), these(&[1, 2]));
        assert_eq!(Bearers::Nobody.and(these(&[2])), these(&[2]));
        assert_eq!(these(&[1]).and(Bearers::TooMany), Bearers::TooMany);
        assert_eq!(Bearers::TooMany.and(Bearers::Nobody), Bearers::TooMany);
    }
}
