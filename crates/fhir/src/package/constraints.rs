//! Reads the constraints of an element. Leaves out those that the validator holds by itself, and words anew those that R4
//! words so that they say something else than they mean, each with the reason.

use super::{items, text};
use crate::definitions::schema::Constraint;
use crate::tree::Node;

/// Constraints that the validator's own rules hold, or that it deliberately leaves alone.
const NATIVE: [&str; 10] = [
    "dom-2", // contained.nested
    "dom-3", // contained.unreferenced
    "dom-4", // contained.meta
    "dom-5", // contained.meta
    "dom-6", // Asked for by `Validator::with_good_practice` alone: most records of machines have no narrative.
    "ele-1", // structure.empty-object
    "ext-1", // extension.content
    "ref-1", // reference.contained-missing
    "txt-1", // narrative.xhtml
    "txt-2", // narrative.xhtml
];

/// R4's expression, and ours.
const REWORDED: [(&str, &str); 3] = [
    // Without a name there is nothing to match; the pattern means the whole name.
    (
        "name.matches('[A-Z]([A-Za-z0-9_]){0,254}')",
        "name.exists() implies name.matches('^[A-Z]([A-Za-z0-9_]){0,254}$')",
    ),
    // `Boolean` is FHIRPath's own type; the answer is FHIR's boolean.
    ("operator = 'exists' implies (answer is Boolean)", "operator = 'exists' implies (answer is boolean)"),
    // `when` repeats, and `in` takes one item on its left.
    (
        "offset.empty() or (when.exists() and ((when in ('C' | 'CM' | 'CD' | 'CV')).not()))",
        "offset.empty() or (when.exists() and when.where($this in ('C' | 'CM' | 'CD' | 'CV')).empty())",
    ),
];

/// The constraints of an element of a snapshot.
pub(super) fn read(element: Node<'_>) -> Vec<Constraint> {
    items(element, "constraint")
        .filter_map(|constraint| {
            let key = text(constraint, "key").filter(|key| !NATIVE.contains(&key.as_str()))?;
            let expression = text(constraint, "expression")?;
            let ours = REWORDED.iter().find(|(theirs, _)| *theirs == expression).map(|(_, ours)| (*ours).to_owned());
            Some(Constraint {
                key,
                is_error: text(constraint, "severity")? == "error",
                expression: ours.unwrap_or(expression),
                human: text(constraint, "human").unwrap_or_default(),
            })
        })
        .collect()
}
