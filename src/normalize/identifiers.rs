//! Identifier systems made one.
//!
//! Takes: Identifiers, and searches by identifier. Gives: the system's one name, and the value in its one form. Never:
//! drops an identifier; changes the value of a system that no pack lists, but for white space around it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde::Deserialize;
use sluice_fhir::tree::{Kind, Node};

use super::overlay::Overlay;
use super::table::{Unmapped, Wrong, once, ranked};

/// A pack, as written; mappings/schema/identifiers.json describes it.
#[derive(Deserialize)]
pub(super) struct Written {
    #[serde(default)]
    unmapped: Unmapped,
    systems: Vec<WrittenSystem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenSystem {
    system: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    case: Case,
    #[serde(default)]
    digits_only: bool,
    length: Option<usize>,
    shared: Option<Shared>,
}

#[derive(Deserialize)]
struct Shared {
    rank: u32,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Case {
    #[default]
    Keep,
    Lower,
    Upper,
}

/// The systems of all packs.
#[derive(Debug, Default)]
pub(super) struct Identifiers {
    systems: Vec<System>,
    /// By the folded form of every name.
    by_name: HashMap<String, usize>,
    ranks: BTreeMap<u32, String>,
    /// The first pack of this kind: white space around what no pack lists is trimmed in its name.
    first: Option<usize>,
}

#[derive(Debug)]
struct System {
    pack: usize,
    name: String,
    case: Case,
    digits_only: bool,
    length: Option<usize>,
    unmapped: Unmapped,
}

impl Identifiers {
    pub(super) fn add(&mut self, pack: usize, written: Written) -> Result<(), Wrong> {
        self.first.get_or_insert(pack);
        for (at, system) in written.systems.into_iter().enumerate() {
            let place = self.systems.len();
            once(&mut self.by_name, folded(&system.system), place, format!("/systems/{at}/system"))?;
            for (alias_at, alias) in system.aliases.iter().enumerate() {
                // An alias that folds to the name itself is said for the reader.
                if folded(alias) != folded(&system.system) {
                    once(&mut self.by_name, folded(alias), place, format!("/systems/{at}/aliases/{alias_at}"))?;
                }
            }
            if let Some(shared) = system.shared {
                ranked(&mut self.ranks, shared.rank, &system.system, format!("/systems/{at}/shared/rank"))?;
            }
            self.systems.push(System {
                pack,
                name: system.system,
                case: system.case,
                digits_only: system.digits_only,
                length: system.length,
                unmapped: written.unmapped,
            });
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn shared(&self) -> Vec<String> {
        self.ranks.values().cloned().collect()
    }

    /// An Identifier, if the object that holds this `value` is one: its system is listed, or it stands where
    /// Identifiers stand.
    pub(super) fn apply(&self, value: Node<'_>, overlay: &mut Overlay) {
        let (Some(first), Some(identifier)) = (self.first, value.parent()) else { return };
        let Some(text) = value.as_str() else { return };
        let system = identifier.member("system").filter(|it| it.kind() == Kind::String);
        let written = system.and_then(Node::as_str);
        let listed = written.as_deref().and_then(|it| self.find(it));
        let Some(listed) = listed else {
            if is_identifier(identifier) {
                trim(system, first, overlay);
                trim(Some(value), first, overlay);
            }
            return;
        };
        if let Some(system) = system.filter(|it| !it.is_str(&listed.name)) {
            overlay.set(system, &listed.name, listed.pack);
        }
        match listed.value(&text) {
            Some(one) if one != text => overlay.set(value, &one, listed.pack),
            Some(_) => {}
            None => {
                let expected = "a value in the form that the identifier's system has";
                overlay.unmapped(value, listed.unmapped, "normalize.identifier", expected);
            }
        }
    }

    /// A search, `identifier=[system]|[value]`, in the form in which identifiers are kept, with the pack that says so;
    /// none if nothing changes.
    pub(super) fn query(&self, query: &str) -> Option<(String, usize)> {
        let wanted = query.strip_prefix("identifier=").filter(|it| !it.contains(['&', ',']))?;
        let wanted = percent_decoded(wanted)?;
        let (system, value) = wanted.split_once('|')?;
        let listed = self.find(system)?;
        let one = listed.value(value).unwrap_or_else(|| value.to_owned());
        if listed.name == system && one == value {
            return None;
        }
        Some((format!("identifier={}|{}", percent_encoded(&listed.name), percent_encoded(&one)), listed.pack))
    }

    fn find(&self, name: &str) -> Option<&System> {
        self.systems.get(*self.by_name.get(&folded(name))?)
    }
}

impl System {
    /// The one form of a value; none if it cannot have it.
    fn value(&self, text: &str) -> Option<String> {
        let text = text.trim();
        let text: Cow<'_, str> = match self.case {
            Case::Keep => text.into(),
            Case::Lower => text.to_lowercase().into(),
            Case::Upper => text.to_uppercase().into(),
        };
        let text: Cow<'_, str> = if self.digits_only {
            text.chars().filter(|it| !matches!(it, ' ' | '-' | '.' | '/' | '\u{a0}')).collect::<String>().into()
        } else {
            text
        };
        let digits = !self.digits_only || text.bytes().all(|it| it.is_ascii_digit());
        let length = self.length.is_none_or(|length| text.chars().count() == length);
        (digits && length && !text.is_empty()).then(|| text.into_owned())
    }
}

/// A system's name without what does not tell systems apart: white space around it, a slash at its end, and, in a URN,
/// the case (RFC 8141 §3.1 for `urn:oid:`).
fn folded(name: &str) -> String {
    let name = name.trim();
    let name = name.strip_suffix('/').unwrap_or(name);
    let is_urn = name.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("urn:"));
    if is_urn { name.to_ascii_lowercase() } else { name.to_owned() }
}

/// By its place: `identifier`, `valueIdentifier`, `masterIdentifier`.
fn is_identifier(object: Node<'_>) -> bool {
    let name = object.name().or_else(|| object.parent().and_then(Node::name));
    name.is_some_and(|it| it == "identifier" || it.ends_with("Identifier"))
}

fn trim(node: Option<Node<'_>>, pack: usize, overlay: &mut Overlay) {
    let Some((node, text)) = node.and_then(|it| Some((it, it.as_str()?))) else { return };
    let trimmed = text.trim();
    if trimmed.len() < text.len() && !trimmed.is_empty() {
        overlay.set(node, trimmed, pack);
    }
}

/// RFC 3986 §2.1; none if it is not UTF-8 or an escape is broken.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Escapes what would not be read again as it is.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'&' | b',' | b'+' | b'#' | b'|' | b'?') {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssn() -> Identifiers {
        let written = serde_json::json!({"systems": [{
            "system": "http://hl7.org/fhir/sid/us-ssn", "aliases": ["urn:oid:2.16.840.1.113883.4.1"],
            "digitsOnly": true, "length": 9, "shared": {"rank": 1}
        }]});
        let mut identifiers = Identifiers::default();
        identifiers.add(0, serde_json::from_value(written).unwrap()).unwrap();
        identifiers
    }

    #[test]
    fn a_search_finds_what_is_kept() {
        let ssn = ssn();
        let one = Some(("identifier=http://hl7.org/fhir/sid/us-ssn|999123456".to_owned(), 0));
        assert_eq!(ssn.query("identifier=URN:OID:2.16.840.1.113883.4.1|999-12-3456"), one);
        assert_eq!(ssn.query("identifier=http%3A%2F%2Fhl7.org/fhir/sid/us-ssn/|999%2012-3456"), one);
        for same in [
            "identifier=http://hl7.org/fhir/sid/us-ssn|999123456",
            "identifier=urn:x|1",
            "name=a",
            "identifier=urn:oid:2.16.840.1.113883.4.1|%zz",
            "identifier=urn:oid:2.16.840.1.113883.4.1|1&name=a",
        ] {
            assert_eq!(ssn.query(same), None, "{same}");
        }
    }

    #[test]
    fn a_value_that_cannot_have_the_form_has_none() {
        let ssn = ssn();
        for bad in ["", "12345678", "12345678x", "1234567890"] {
            assert_eq!(ssn.systems[0].value(bad), None, "{bad}");
        }
        assert_eq!(ssn.systems[0].value(" 999-12-3456 ").as_deref(), Some("999123456"));
    }
}
