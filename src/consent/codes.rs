//! Codes and references as fixed-size keys, and the few code systems whose order decides.
//!
//! A key is the first 128 bits of a SHA-256 over the parts, each led by its length, so that two different codes never
//! compare equal by chance or by intent, and no table of strings is shared between policies and resources.
//! Codes are compared with their system, references whole and without their version.

mod hierarchy;

use sha2::{Digest as _, Sha256};

/// `http://terminology.hl7.org/CodeSystem/v3-ActReason`: purposes of use.
pub const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
/// `http://terminology.hl7.org/CodeSystem/v3-ActCode`: base rules and sensitivities.
pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
/// `http://terminology.hl7.org/CodeSystem/v3-Confidentiality`
pub const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
/// `http://terminology.hl7.org/CodeSystem/v3-ParticipationType`: in what role an actor is named.
pub const PARTICIPATION_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
/// `http://terminology.hl7.org/CodeSystem/consentaction`
pub const CONSENT_ACTION: &str = "http://terminology.hl7.org/CodeSystem/consentaction";
/// `http://terminology.hl7.org/CodeSystem/consentscope`
pub const CONSENT_SCOPE: &str = "http://terminology.hl7.org/CodeSystem/consentscope";
/// `http://hl7.org/fhir/resource-types`: the classes that a provision may name.
pub const RESOURCE_TYPES: &str = "http://hl7.org/fhir/resource-types";

/// A code with its system, or a reference, as 128 bits. Equal keys mean equal texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u128);

impl Key {
    /// A code in its system.
    pub fn code(system: &str, code: &str) -> Self {
        Self::of(&[b"code", system.as_bytes(), code.as_bytes()])
    }

    /// A reference; its version (`/_history/…`) is dropped.
    pub fn reference(reference: &str) -> Self {
        Self::of(&[b"reference", unversioned(reference).as_bytes()])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        Self(hash.into_iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(byte)))
    }
}

/// A reference without its version (FHIR R4 references, `Reference.reference`).
pub fn unversioned(reference: &str) -> &str {
    reference.split_once("/_history/").map_or(reference, |(whole, _)| whole)
}

/// The key of a purpose of use and of every purpose broader than it (v3-ActReason is an is-a hierarchy): a rule for any
/// of these covers it. A code of another system is covered by itself alone.
pub fn purpose_and_broader(system: &str, code: &str) -> Vec<Key> {
    let mut covering = vec![Key::code(system, code)];
    if system == ACT_REASON {
        covering.extend(broader(hierarchy::ACT_REASON, code).map(|broader| Key::code(system, broader)));
    }
    covering
}

/// How confidential a code of [`CONFIDENTIALITY`] says that a record is; `None` for codes that say something else.
/// U (unrestricted) < L < M < N < R < V (very restricted).
pub fn confidentiality_level(code: &str) -> Option<u8> {
    "ULMNRV".find(code).filter(|_| code.len() == 1).and_then(|level| u8::try_from(level).ok())
}

/// In what role a provision names an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// IRCP and its narrower codes: who receives.
    Recipient,
    /// AUT: who wrote what is asked for.
    Author,
    /// Any other code: what it means for a recipient is not known.
    Other,
}

/// Reads a role of a provision's actor.
pub fn role(system: &str, code: &str) -> Role {
    if system != PARTICIPATION_TYPE {
        Role::Other
    } else if code == "IRCP" || is_below(hierarchy::PARTICIPATION_TYPE, code, "IRCP") {
        Role::Recipient
    } else if code == "AUT" {
        Role::Author
    } else {
        Role::Other
    }
}

/// Whether a role that a requester gave says that it is no recipient: a participation other than IRCP and below.
/// The roles of institutions (hospital, insurer) say nothing about it.
pub fn is_other_participation(code: &str) -> bool {
    hierarchy::PARTICIPATION_TYPE.iter().any(|(known, _)| *known == code)
        && role(PARTICIPATION_TYPE, code) != Role::Recipient
}

/// Whether `code` is strictly below `ancestor` in a table of (code, parent), sorted by code.
fn is_below(table: &'static [(&'static str, &'static str)], code: &str, ancestor: &str) -> bool {
    broader(table, code).any(|above| above == ancestor)
}

/// The codes above a code, the nearest first.
fn broader(table: &'static [(&'static str, &'static str)], code: &str) -> impl Iterator<Item = &'static str> {
    let parent = move |code: &str| {
        let at = table.binary_search_by(|(known, _)| (*known).cmp(code)).ok()?;
        table.get(at).map(|(_, parent)| *parent).filter(|parent| !parent.is_empty())
    };
    // No path is longer than its table, so a cycle ends.
    std::iter::successors(parent(code), move |code| parent(code)).take(table.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_system_and_code_apart() {
        assert_ne!(Key::code("a", "bc"), Key::code("ab", "c"));
        assert_ne!(Key::code("", "Patient/1"), Key::reference("Patient/1"));
        assert_eq!(Key::reference("Patient/1/_history/3"), Key::reference("Patient/1"));
        assert_ne!(Key::reference("http://a/Patient/1"), Key::reference("Patient/1"));
    }

    #[test]
    fn a_purpose_covers_the_narrower_never_the_broader() {
        let covers = |rule, asked| purpose_and_broader(ACT_REASON, asked).contains(&Key::code(ACT_REASON, rule));
        assert!(covers("TREAT", "TREAT") && covers("TREAT", "ETREAT") && covers("TREAT", "BTG"));
        assert!(covers("PurposeOfUse", "HPAYMT") && covers("HRESCH", "CLINTRCHNPC"));
        assert!(!covers("ETREAT", "TREAT") && !covers("TREAT", "HPAYMT") && !covers("HOPERAT", "TREAT"));
        assert_eq!(purpose_and_broader("http://example.org", "BTG").len(), 1);
        assert_eq!(purpose_and_broader(ACT_REASON, "no such code").len(), 1);
    }

    #[test]
    fn confidentiality_is_ordered() {
        let levels: Vec<_> = ["U", "L", "M", "N", "R", "V"].into_iter().map(confidentiality_level).collect();
        assert!(levels.is_sorted() && levels[0].is_some());
        for other in ["", "HIV", "NR", "n", "_Confidentiality"] {
            assert_eq!(confidentiality_level(other), None, "{other}");
        }
    }

    #[test]
    fn roles_are_recipients_authors_or_not_understood() {
        for code in ["IRCP", "PRCP", "REFB", "REFT", "TRC", "NOT"] {
            assert_eq!(role(PARTICIPATION_TYPE, code), Role::Recipient, "{code}");
            assert!(!is_other_participation(code));
        }
        assert_eq!(role(PARTICIPATION_TYPE, "AUT"), Role::Author);
        assert_eq!(role(PARTICIPATION_TYPE, "CST"), Role::Other);
        assert_eq!(role("http://example.org", "IRCP"), Role::Other);
        assert!(is_other_participation("CST") && !is_other_participation("hospital"));
    }
}
