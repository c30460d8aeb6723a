//! Codes of UCUM, which has more of them than any list: its grammar and its table of units say what is one.

use super::rules;
use super::walk::Walk;
use crate::tree::Node;

const UCUM: &str = "http://unitsofmeasure.org";

/// Codes longer than this are not looked at.
const CODE_BYTES_MAX: usize = 200;

impl<'t> Walk<'_, 't> {
    /// A Quantity or Coding whose system is UCUM has one of its codes, if it has any.
    pub(super) fn ucum(&mut self, node: Node<'t>) {
        if !node.member("system").is_some_and(|system| system.is_str(UCUM)) {
            return;
        }
        let Some(code) = node.member("code").and_then(Node::as_str) else { return };
        if code.len() > CODE_BYTES_MAX {
            return;
        }
        // The same few in a whole document.
        let known = self.units.get(&*code).copied();
        let is_valid = known.unwrap_or_else(|| {
            let is_valid = is_unit(&code);
            self.units.insert(code.into_owned(), is_valid);
            is_valid
        });
        if !is_valid {
            self.issue(&rules::CODE_UNKNOWN, node, "Expected a unit of UCUM, since that is the system");
        }
    }
}

/// Whether it is a unit. Spaces in annotations pass, as they do with HL7's own reader of UCUM: they change no meaning.
fn is_unit(code: &str) -> bool {
    let mut in_braces = false;
    let spelled = code.chars().map(|c| {
        in_braces = c == '{' || (in_braces && c != '}');
        if in_braces && c == ' ' { '_' } else { c }
    });
    let spelled: String = spelled.collect();
    octofhir_ucum::parse_expression(&spelled).is_ok_and(|unit| octofhir_ucum::evaluate(&unit).is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_unit;

    #[test]
    fn a_unit_is_an_expression_of_ucum() {
        for unit in [
            "kg",
            "mm[Hg]",
            "{score}",
            "/min",
            "10*3/uL",
            "%",
            "1",
            "kg/m2",
            "mL/min/{1.73_m2}",
            "[degF]",
            "Cel",
            "{wine glasses}/d",
        ] {
            assert!(is_unit(unit), "{unit}");
        }
        for other in ["(score)", "Kg", "score", "mmHg", "kg/", "kg m", "°C", "[in", "{score"] {
            assert!(!is_unit(other), "{other}");
        }
    }
}
