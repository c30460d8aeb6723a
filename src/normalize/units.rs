//! Units by UCUM.
//!
//! Takes: Quantities. Gives: `system` and `code` of UCUM for units that the tables list, and what is no UCUM code though
//! it says so. Never: touches `unit`, which people read, or `value`: nothing is converted.

use std::collections::HashMap;

use serde::Deserialize;
use sluice_fhir::canonical;
use sluice_fhir::tree::{Kind, Node};

use super::overlay::Overlay;
use super::table::{Unmapped, Wrong, once};

/// The system of UCUM (FHIR R4 datatypes.html#Quantity).
const UCUM: &str = "http://unitsofmeasure.org";
/// Bytes of a code that is parsed; longer ones are no UCUM to us.
const CODE_BYTES_MAX: usize = 128;

/// A pack, as written; mappings/schema/units.json describes it.
#[derive(Deserialize)]
pub(super) struct Written {
    #[serde(default)]
    unmapped: Unmapped,
    units: HashMap<String, String>,
}

/// The tables of all packs.
#[derive(Debug, Default)]
pub(super) struct Units {
    by_text: HashMap<String, Unit>,
    /// The first pack of this kind, and what it says of units that no table lists.
    first: Option<Unmapped>,
}

#[derive(Debug)]
struct Unit {
    pack: usize,
    code: String,
}

/// What was found to be UCUM in one unit of work, so that the same code is not parsed for every Quantity.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<String, bool>);

impl Units {
    pub(super) fn add(&mut self, pack: usize, written: Written) -> Result<(), Wrong> {
        self.first.get_or_insert(written.unmapped);
        for (text, code) in written.units {
            let pointer = format!("/units/{}", text.replace('~', "~0").replace('/', "~1"));
            if !is_ucum(&code) {
                return Err((pointer, "a code of UCUM, case-sensitive".to_owned()));
            }
            once(&mut self.by_text, text.trim().to_owned(), Unit { pack, code }, pointer)?;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// A Quantity, if the object that holds this number `value` is one.
    pub(super) fn apply(&self, value: Node<'_>, seen: &mut Seen, overlay: &mut Overlay) {
        let (Some(unmapped), Some(quantity)) = (self.first, value.parent()) else { return };
        let text = |name| quantity.member(name).filter(|it| it.kind() == Kind::String);
        let (system, code, unit) = (text("system"), text("code"), text("unit"));
        let listed = |node: Option<Node<'_>>| {
            let text = node?.as_str()?;
            self.by_text.get(text.trim())
        };
        let expected = "a code of UCUM, or a unit that a table of the site lists";
        match (system, code) {
            (Some(system), Some(code)) if is_ucum_system(system) => {
                if seen.is_ucum(code) {
                    return;
                }
                match listed(Some(code)).or_else(|| listed(unit)) {
                    Some(known) => overlay.set(code, &known.code, known.pack),
                    None => overlay.unmapped(code, unmapped, "normalize.unit", expected),
                }
            }
            (Some(system), None) if is_ucum_system(system) => {
                if let Some(known) = listed(unit) {
                    overlay.edits.insert_member(quantity, "code", canonical::string(&known.code));
                    overlay.changed(quantity, known.pack);
                }
            }
            (None, None) => match (listed(unit), unit) {
                (Some(known), _) => {
                    overlay.edits.insert_member(quantity, "system", canonical::string(UCUM));
                    overlay.edits.insert_member(quantity, "code", canonical::string(&known.code));
                    overlay.changed(quantity, known.pack);
                }
                (None, Some(unit)) => overlay.unmapped(unit, unmapped, "normalize.unit", expected),
                (None, None) => {}
            },
            // A system of the site's own: what it means is not for a table of texts to say.
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
}

impl Seen {
    fn is_ucum(&mut self, code: Node<'_>) -> bool {
        let Some(text) = code.as_str() else { return false };
        if let Some(known) = self.0.get(&*text) {
            return *known;
        }
        let valid = is_ucum(&text);
        self.0.insert(text.into_owned(), valid);
        valid
    }
}

fn is_ucum_system(system: Node<'_>) -> bool {
    system.is_str(UCUM)
}

fn is_ucum(code: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&code.len()) && octofhir_ucum::validate(code).is_ok()
}
