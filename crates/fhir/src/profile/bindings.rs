//! Bindings of an element: the one that every release has, and those beside it (ElementDefinition.binding.additional of R5, and the
//! extensions that stand for it).

use super::element::{Binding, Use};
use super::layer::{Layer, extension_parts};
use crate::definitions::Strength;
use crate::package::{extension, items, text};
use crate::tree::Node;

const ADDITIONAL: [&str; 2] = [
    "http://hl7.org/fhir/tools/StructureDefinition/additional-binding",
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-ElementDefinition.binding.additional",
];
const MAX_VALUE_SET: &str = "http://hl7.org/fhir/StructureDefinition/elementdefinition-maxValueSet";

/// The bindings that can be broken.
pub(super) fn read(layer: &Layer, node: Node<'_>) -> Vec<Binding> {
    let mut found = Vec::new();
    let mut add = |strength, value_set: &str, uses| {
        found.push(Binding { strength, value_set: layer.meant(value_set), uses });
    };
    let strength = text(node, "strength").and_then(|strength| Strength::parse(&strength));
    if let (Some(strength), Some(value_set)) = (strength, text(node, "valueSet"))
        && strength >= Strength::Extensible
    {
        add(strength, &value_set, Box::default());
    }
    for one in items(node, "additional") {
        if let (Some(strength), Some(value_set)) =
            (text(one, "purpose").as_deref().and_then(of_purpose), text(one, "valueSet"))
            && let Some(uses) = items(one, "usage").map(|usage| read_use(layer, usage)).collect()
        {
            add(strength, &value_set, uses);
        }
    }
    for one in ADDITIONAL.iter().flat_map(|url| extension_parts(node, url)) {
        let part = |name, value| extension_parts(one, name).next().and_then(|part| text(part, value));
        let usages = extension_parts(one, "usage").filter_map(|part| part.member("valueUsageContext"));
        if let (Some(strength), Some(value_set)) =
            (part("purpose", "valueCode").as_deref().and_then(of_purpose), part("valueSet", "valueCanonical"))
            && let Some(uses) = usages.map(|usage| read_use(layer, usage)).collect()
        {
            add(strength, &value_set, uses);
        }
    }
    if let Some(max) = extension(node, MAX_VALUE_SET, "valueCanonical").and_then(Node::as_str) {
        add(Strength::Required, &max, Box::default());
    }
    found
}

/// How strongly a binding holds by its purpose; None of one that nothing breaks.
fn of_purpose(purpose: &str) -> Option<Strength> {
    match purpose {
        "maximum" | "required" => Some(Strength::Required),
        "extensible" => Some(Strength::Extensible),
        _ => None,
    }
}

/// Where a binding holds, by a concept of the record: a use whose system is the profile itself, and whose code is the path of an
/// element. None of any other, since nobody can tell it here.
fn read_use(layer: &Layer, usage: Node<'_>) -> Option<Use> {
    let definition = layer.tree.root();
    let code = usage.member("code")?;
    let (system, url) = (text(code, "system")?, text(definition, "url")?);
    let versioned = text(definition, "version").map(|version| format!("{url}|{version}"));
    if system != url && versioned.as_deref() != Some(&*system) {
        return None;
    }
    let codings = items(usage.member("valueCodeableConcept")?, "coding");
    Some(Use {
        path: text(code, "code")?.split('.').map(Into::into).collect(),
        codes: codings
            .filter_map(|coding| Some((text(coding, "system")?.into(), text(coding, "code")?.into())))
            .collect(),
    })
}
